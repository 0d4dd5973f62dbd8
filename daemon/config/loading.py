"""Reading `config.toml`, with `HRTEMD_...` environment variables over it.

Every mistake is reported at once, each with the line (or the variable) it stands in and the key's full name.
"""

import os
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daemon.config.configuration import Configuration
from daemon.config.places import KeyPath, dotted, place_of, places_in
from daemon.config.wording import in_words
from daemon.errors import ConfigurationError

ENVIRONMENT_PREFIX = "HRTEMD_"


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

    places = places_in(text)
    problems = _override_from(environment, document, places)
    problems += _repeated_source_names(document)
    if verify and not document.get("sources"):
        problems.append((("sources",), "there is no source, so nothing to run; add a [[sources]] section"))
    configuration = None
    try:
        context = {"folder": path.absolute().parent, "verify": verify}
        configuration = Configuration.model_validate(document, context=context)
    except ValidationError as error:
        problems += [in_words(detail) for detail in error.errors()]
    if configuration is None or problems:
        lines = sorted(place_of(key, places) + (dotted(key), message) for key, message in problems)
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
