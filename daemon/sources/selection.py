"""Which files below a folder a source takes: `include` and `exclude` patterns."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath


def problem_with(pattern: str) -> str | None:
    """Return why a pattern can never match, None where it can."""
    if not pattern.strip("/") or pattern.startswith("/"):
        return "is empty or begins with '/'; patterns are paths below the source's folder, such as 'session*/**/*.mrc'"
    if "\\" in pattern:
        return "has a backslash; folders are separated by '/' on every system"
    if {".", ".."} & set(pattern.split("/")):
        return "has '.' or '..' as a folder; patterns are paths below the source's folder"
    if "" in pattern.rstrip("/").split("/"):
        return "has a folder without a name ('//'); remove one of the '/'"
    return None


class Selection:
    """Takes files by their paths below the source's folder.

    In a pattern `*` stands for any characters of one name, `?` for one of them, `[ab]` for one of those listed, `[!ab]`
    for one that is not, and `**` as a whole name for any number of folders. A pattern without `/` is about names at
    any depth, one with `/` about the whole path below the folder. Where a pattern matches a folder, it means everything
    in it. Upper and lower case are different on every system.

    Args:
        include: Only files that one of these matches are taken; all where there are none.
        exclude: Of those, files that one of these matches are left out.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = [_names_in(pattern) for pattern in include]
        self._exclude = [_names_in(pattern) for pattern in exclude]

    def takes(self, path: PurePath) -> bool:
        """Tell of a file, given its path below the folder; nothing is read."""
        is_included = not self._include or any(_matches(pattern, path.parts) for pattern in self._include)
        return is_included and not any(_matches(pattern, path.parts) for pattern in self._exclude)


def _names_in(pattern: str) -> tuple[str, ...]:
    names = tuple(pattern.rstrip("/").split("/"))
    return names if len(names) > 1 else ("**", *names)


def _matches(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether a pattern matches a path or a folder above it."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(pattern[1:], names[skipped:]) for skipped in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(pattern[1:], names[1:])
