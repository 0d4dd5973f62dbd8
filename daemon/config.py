"""`config.toml` and `HRTEMD_...` environment variables as checked settings.

Every mistake is reported at once, each with the line (or the variable) it stands in and the key's full name.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from daemon.errors import ConfigurationError, ModelError
from daemon.readers.limits import DEFAULT_LIMITS, ReadLimits
from daemon.recognition.package import find_model, shipped_models
from daemon.series.membership import check_pattern

KeyPath = tuple[str | int, ...]
"""A key's place in the document, such as ("sources", 0, "policy")."""

ENVIRONMENT_PREFIX = "HRTEMD_"

_LATER_SOURCES = ("array-1.0", "dectris-v1", "dectris-stream2")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _in_folder_of_config(path: Path, info: ValidationInfo) -> Path:
    """Take relative paths from the folder of config.toml, wherever the daemon was started."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path.expanduser()


def _verifies(info: ValidationInfo) -> bool:
    return bool((info.context or {}).get("verify"))


def _unusable(reason: str) -> PydanticCustomError:
    return PydanticCustomError("unusable", "{reason}", {"reason": reason})


class DirectorySource(_Section):
    """A folder into which the acquisition program writes its images."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Stands in frame ids, results and log lines."""

    type: Literal["directory"]
    """How frames come in."""

    path: Path
    """The folder to watch, with everything below it."""

    policy: Literal["lossless", "latest"] = "lossless"
    """What to do when frames come faster than they are analysed: wait, or keep only the newest."""

    model: Annotated[str, Field(validate_default=True)] = "graphene"
    """A shipped model's name, or the folder of a model package."""

    pixel_size_angstrom: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Å per pixel; where given it beats what files and sidecars say."""

    series_pattern: str | None = None
    """A regular expression that finds `series` and `index` in the names of files that make a focal series."""

    series_timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """A focal series is given up as incomplete when nothing more of it came for so long."""

    @field_validator("path")
    @classmethod
    def _path_is_a_readable_folder(cls, path: Path, info: ValidationInfo) -> Path:
        path = _in_folder_of_config(path, info)
        if _verifies(info):
            if not path.is_dir():
                raise _unusable(f"the folder {path} does not exist; create it, or mount the share it lies on")
            if not os.access(path, os.R_OK | os.X_OK):
                raise _unusable(f"the folder {path} may not be read by this user; change its permissions")
        return path

    @field_validator("model")
    @classmethod
    def _model_loads_and_suits_the_policy(cls, model: str, info: ValidationInfo) -> str:
        folder = _in_folder_of_config(Path(model), info)
        if Path(model).name != model or (model not in shipped_models() and folder.is_dir()):
            model = str(folder)
        if _verifies(info):
            try:
                manifest = find_model(model).manifest
            except ModelError as error:
                raise _unusable(str(error)) from error
            if manifest.input_frames != 1 and info.data.get("policy") == "latest":
                raise _unusable(
                    f"{model!r} takes focal series of {manifest.input_frames} frames, none of which may be left out; "
                    'set policy = "lossless", or choose a model for single frames'
                )
        return model

    @field_validator("series_pattern")
    @classmethod
    def _pattern_finds_series_and_index(cls, pattern: str | None) -> str | None:
        if pattern is not None and (problem := check_pattern(pattern)):
            raise _unusable(problem)
        return pattern


class FilesPublishing(_Section):
    """Atom tables, overlays and events as files."""

    directory: Path = Field(default=Path("results"), validate_default=True)
    """Everything hrtemd writes is below this folder; it is made where it does not exist."""

    overlays: bool = True
    """Also draw each frame with its atoms marked, as PNG."""

    @field_validator("directory")
    @classmethod
    def _directory_can_be_written(cls, directory: Path, info: ValidationInfo) -> Path:
        directory = _in_folder_of_config(directory, info)
        if _verifies(info):
            existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
            if not existing.is_dir():
                raise _unusable(f"{existing} is a file, not a folder; name another folder for results")
            if not os.access(existing, os.W_OK | os.X_OK):
                raise _unusable(f"the folder {existing} may not be written by this user; change its permissions")
        return directory


class Publishing(_Section):
    """Where results go."""

    files: FilesPublishing = Field(default={}, validate_default=True)
    """As files, always."""


class RecognitionSettings(_Section):
    """How networks are run."""

    backend: Literal["auto", "openvino", "onnxruntime"] = "auto"
    """The inference engine; `auto` takes the fastest one this machine has."""


class Limits(_Section):
    """Sizes beyond which a file is refused before its pixels are loaded, so that none can use up the memory."""

    frame_pixels: PositiveInt = DEFAULT_LIMITS.frame_pixels
    """Largest height times width of an image."""

    decompressed_bytes: PositiveInt = DEFAULT_LIMITS.decompressed_bytes
    """Largest size in memory of what is loaded from a file at once."""

    def for_reading(self) -> ReadLimits:
        """Return them as the readers take them."""
        return ReadLimits(self.frame_pixels, self.decompressed_bytes)


class Configuration(_Section):
    """All of `config.toml`."""

    sources: list[DirectorySource] = []
    """Where frames come from."""

    limits: Limits = Limits()
    """What is refused."""

    recognition: RecognitionSettings = RecognitionSettings()
    """How networks are run."""

    publish: Publishing = Field(default={}, validate_default=True)
    """Where results go."""


def load_configuration(
    path: Path, *, verify: bool = False, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """Read `config.toml` with environment variables over it.

    Args:
        path: The file; relative paths in it are taken from its folder.
        verify: Also check what the settings speak of: at least one source, folders that exist, models that load.
        environment: `HRTEMD_SOURCES__0__MODEL` overrides `model` of the first source, and so on.

    Raises:
        ConfigurationError: With one line for every mistake.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin UTF-8 with a byte-order mark
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a configuration file that can be read.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {error}.") from error

    places = _places_in(text)
    problems = _override_from(environment, document, places)
    problems += _repeated_source_names(document)
    if verify and not document.get("sources"):
        problems.append((("sources",), "there is no source, so nothing to run; add a [[sources]] section"))
    configuration = None
    try:
        context = {"folder": path.absolute().parent, "verify": verify}
        configuration = Configuration.model_validate(document, context=context)
    except ValidationError as error:
        problems += [(detail["loc"], _in_words(detail)) for detail in error.errors()]
    if configuration is None or problems:
        lines = sorted(_place_of(key, places) + (_dotted(key), message) for key, message in problems)
        raise ConfigurationError(
            "\n".join(f"{path}, {place}: {key}: {message.rstrip('.')}." for _, place, key, message in lines)
        )
    return configuration


def _override_from(
    environment: Mapping[str, str], document: dict[str, Any], places: dict[KeyPath, tuple[int, str]]
) -> list[tuple[KeyPath, str]]:
    """Put the values of HRTEMD_... variables into the document; return those that have no place there."""
    problems: list[tuple[KeyPath, str]] = []
    for variable in sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX)):
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        keys: KeyPath = tuple(int(part) if part.isdigit() else part for part in parts)
        places[keys] = (0, f"environment variable {variable}")
        section: Any = document
        try:
            for key, following in pairwise(keys):
                section = _enter(section, key, [] if isinstance(following, int) else {})
            _enter(section, keys[-1], None)
            section[keys[-1]] = environment[variable]
        except (TypeError, IndexError):
            problems.append((keys, "there is no such key to override"))
    return problems


def _enter(section: Any, key: str | int, empty: Any) -> Any:
    """Return what stands under `key`, which is made where it is missing or the next item of a list."""
    if isinstance(section, list) and isinstance(key, int):
        if key == len(section):
            section.append(empty)
        return section[key]
    if isinstance(section, dict) and isinstance(key, str):
        return section.setdefault(key, empty)
    raise TypeError


def _repeated_source_names(document: dict[str, Any]) -> list[tuple[KeyPath, str]]:
    problems: list[tuple[KeyPath, str]] = []
    seen = set()
    sources = document.get("sources")
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        name = source.get("name") if isinstance(source, dict) else None
        if isinstance(name, str) and name in seen:
            problems.append((("sources", index, "name"), f"another source is called {name!r} too; rename one"))
        elif isinstance(name, str):
            seen.add(name)
    return problems


def _in_words(detail: ErrorDetails) -> str:
    """Say what pydantic found in words for a facility engineer."""
    key, value = detail["loc"], detail["input"]
    if key == ("publish", "zeromq"):
        return "publishing by ZeroMQ is not available in this version; remove the section"
    if key[-1] == "type" and value in _LATER_SOURCES:
        return f"sources of type {value!r} are not available in this version; 'directory' is"
    match detail["type"]:
        case "extra_forbidden":
            return f"there is no such key; known here: {', '.join(_known_keys(key[:-1]))}"
        case "missing":
            return "is required and missing"
        case "unusable":
            return detail["msg"]
        case _:
            return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {value!r}"


def _known_keys(section: KeyPath) -> list[str]:
    models: dict[KeyPath, type[BaseModel]] = {
        (): Configuration,
        ("sources",): DirectorySource,
        ("limits",): Limits,
        ("recognition",): RecognitionSettings,
        ("publish",): Publishing,
        ("publish", "files"): FilesPublishing,
    }
    return list(models[tuple(key for key in section if isinstance(key, str))].model_fields)


_TABLE_LINE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY_LINE = re.compile(r"\s*([\w.\"'-]+)\s*=")


def _places_in(text: str) -> dict[KeyPath, tuple[int, str]]:
    """Find the line of every table and key; tomllib does not keep them."""
    places: dict[KeyPath, tuple[int, str]] = {}
    items: dict[KeyPath, int] = {}  # how many [[items]] of each array of tables have begun
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE_LINE.match(line):
            table = ()
            for key in _keys(match[2]):
                table = (*table, key)
                if table in items and not (match[1] == "[[" and table == _keys(match[2])):
                    table = (*table, items[table] - 1)
            if match[1] == "[[":
                items[table] = items.get(table, 0) + 1
                places.setdefault(table, (number, f"line {number}"))
                table = (*table, items[table] - 1)
            places[table] = (number, f"line {number}")
        elif match := _KEY_LINE.match(line):
            places[table + _keys(match[1])] = (number, f"line {number}")
    return places


def _keys(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _place_of(key: KeyPath, places: dict[KeyPath, tuple[int, str]]) -> tuple[int, str]:
    """Return where a key stands, or the section it should stand in."""
    while key and key not in places:
        key = key[:-1]
    return places.get(key, (0, "whole file"))


def _dotted(key: KeyPath) -> str:
    """Write ("sources", 0, "policy") as sources[0].policy."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")
