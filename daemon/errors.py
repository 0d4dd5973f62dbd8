"""One tree of errors. Each message says what was wrong, where, and what to do about it."""

from pathlib import Path


class HrtemdError(Exception):
    """Anything hrtemd can explain to its user."""


class ConfigurationError(HrtemdError):
    """`config.toml`, an environment variable or an argument cannot be used."""


class FrameError(HrtemdError):
    """A file or message does not hold a frame that can be analysed."""


class CalibrationError(FrameError):
    """A frame's pixel size is unknown and could not be estimated."""


class ModelError(HrtemdError):
    """A model package is missing, damaged, or does not fit what it is asked to do."""


class BackendError(HrtemdError):
    """An inference engine cannot be loaded or cannot run a model."""


def is_foreseen(error: Exception) -> bool:
    """Whether an error's own sentence says all there is to say."""
    return isinstance(error, HrtemdError | OSError)


def explain(error: Exception) -> str:
    """Put an error into a sentence; one that nobody foresaw is logged in full where it is caught."""
    if isinstance(error, HrtemdError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename or 'Input or output'}: {error.strerror}; "
            "check that the folder is there, may be used by this user and has room."
        )
    return f"Unexpected {type(error).__name__}: {error}. This is a fault in hrtemd; please report it with the log."


def beginning_with_file(sentence: str, origin: str) -> str:
    """Begin a sentence with the file it is about, unless it names it already."""
    name = Path(origin).name
    return sentence if name in sentence else f"{name}: {sentence}"
