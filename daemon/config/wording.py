"""What pydantic found wrong, in words for a facility engineer."""

from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from daemon.config.alerts import Alerts
from daemon.config.configuration import Configuration, Limits, RecognitionSettings
from daemon.config.models import ConditionalModel
from daemon.config.places import KeyPath
from daemon.config.publishing import FilesPublishing, LedgerSettings, Publishing, Retention, ZeroMQPublishing
from daemon.config.sources import DirectorySource, ZeroMQSource

_SOURCE_TYPES: dict[str, type[BaseModel]] = {
    name: model for model in (DirectorySource, ZeroMQSource) for name in get_args(model.model_fields["type"].annotation)
}

_SECTIONS: dict[KeyPath, type[BaseModel]] = {
    (): Configuration,
    ("limits",): Limits,
    ("recognition",): RecognitionSettings,
    ("publish",): Publishing,
    ("publish", "files"): FilesPublishing,
    ("publish", "zeromq"): ZeroMQPublishing,
    ("ledger",): LedgerSettings,
    ("retention",): Retention,
    ("alerts",): Alerts,
}


def in_words(detail: ErrorDetails) -> tuple[KeyPath, str]:
    """Return the key a mistake is in, as it stands in the document, and a sentence about it."""
    location, value = detail["loc"], detail["input"]
    match detail["type"]:
        case "union_tag_not_found":
            return (*location, "type"), "is required and missing"
        case "union_tag_invalid":
            return (*location, "type"), f"input should be {_listed(_SOURCE_TYPES)}, not {value.get('type')!r}"
        case "extra_forbidden":
            return _key(location), f"there is no such key; known here: {', '.join(_known_keys(location[:-1]))}"
        case "missing":
            return _key(location), "is required and missing"
        case "unusable":
            return _key(location), detail["msg"]
        case _:
            return _key(location), f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {value!r}"


def _key(location: KeyPath) -> KeyPath:
    """Leave out what pydantic puts between a source's number and its keys: its type."""
    return location[:2] + location[3:] if location[:1] == ("sources",) else location


def _known_keys(section: KeyPath) -> list[str]:
    model = _SECTIONS[section] if section in _SECTIONS else _SOURCE_TYPES[str(section[2])]
    if section[3:4] == ("models",):
        model = ConditionalModel
    return list(model.model_fields)


def _listed(names: dict[str, type[BaseModel]]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}"
