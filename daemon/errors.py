"""One tree of errors. Each message says what was wrong, where, and what to do about it."""


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
