"""Where in the text of `config.toml` each key stands; tomllib does not keep it."""

import re

KeyPath = tuple[str | int, ...]
"""A key's place in the document, such as ("sources", 0, "policy")."""

_TABLE_LINE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY_LINE = re.compile(r"\s*([\w.\"'-]+)\s*=")


def places_in(text: str) -> dict[KeyPath, tuple[int, str]]:
    """Find the line of every table and key: its number, and what to call it."""
    places: dict[KeyPath, tuple[int, str]] = {}
    items: dict[KeyPath, int] = {}  # how many [[items]] of each array of tables have begun
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE_LINE.match(line):
            table = ()
            *outer, last = _keys(match[2])
            for key in outer:
                table = (*table, key)
                if table in items:
                    table = (*table, items[table] - 1)
            table = (*table, last)
            if match[1] == "[" and table in items:
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


def place_of(key: KeyPath, places: dict[KeyPath, tuple[int, str]]) -> tuple[int, str]:
    """Return where a key stands, or the section it should stand in."""
    while key and key not in places:
        key = key[:-1]
    return places.get(key, (0, "whole file"))


def dotted(key: KeyPath) -> str:
    """Write ("sources", 0, "policy") as sources[0].policy."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")
