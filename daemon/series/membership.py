"""Which series a frame belongs to: by its ids, by the file it is an image of, or by its file's name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from daemon.errors import FrameError
from daemon.frames import Frame

Key = tuple[str, ...]


class Membership(NamedTuple):
    """A frame's place in a series.

    Attributes:
        key: Tells one series of a source from all others.
        name: What the operator knows the series by.
        place: Number in the order the frames were taken; None where they come in that order.
        length: How many frames the series has; None where nobody tells, and it has three.
    """

    key: Key
    name: str
    place: int | None
    length: int | None


Rule = Callable[[Frame, str], Membership | None]
"""Given a frame and its origin, tells the series it belongs to; None where this rule does not tell."""


def by_ids(frame: Frame, origin: str) -> Membership | None:
    """Follow `series_id`, `series_index` and `series_length`; one id in two folders is two series."""
    acquisition = frame.acquisition
    if acquisition.series_id is None:
        return None
    key = ("id", _folder(origin), acquisition.series_id)
    return Membership(key, acquisition.series_id, acquisition.series_index, acquisition.series_length)


def by_file(frame: Frame, origin: str) -> Membership:
    """Make the images of one file one series, even if there is only one."""
    if frame.images_in_file == 1:
        return Membership(("file", origin), frame.name, 0, 1)
    name, _, number = frame.name.rpartition("-")  # the readers' STEM-0000, STEM-0001 ...
    return Membership(("file", origin), name, int(number), frame.images_in_file)


def by_stack(frame: Frame, origin: str) -> Membership | None:
    """Make the images of one file one series, where there are several."""
    return by_file(frame, origin) if frame.images_in_file > 1 else None


def by_pattern(pattern: str) -> Rule:
    """Make a rule of a regular expression that finds `series` and `index` in file names; see `check_pattern`."""
    expression = re.compile(pattern)

    def rule(frame: Frame, origin: str) -> Membership | None:
        # A pattern may speak of the file's ending or stop before it.
        found = expression.search(frame.name + Path(origin).suffix) or expression.search(frame.name)
        if not found or not found["series"]:
            return None
        try:
            index = int(found["index"])
        except (TypeError, ValueError):
            raise FrameError(
                f"{frame.name}: `series_pattern` finds the index {found['index']!r} in its name, which is no number; "
                r"let `index` stand for digits only, as in (?P<index>\d+)."
            ) from None
        key = ("name", _folder(origin), found["series"])
        return Membership(key, found["series"], index, frame.acquisition.series_length)

    return rule


def rules_for(series: str, pattern: str | None) -> list[Rule]:
    """Return the rules for a way of grouping, in order of precedence.

    Args:
        series: `stack` groups the images of each file, `metadata` by ids, else by file names; `live`, for a running
            source, also makes a series of each file of several images without ids.
        pattern: A checked `series_pattern`, where there is one.
    """
    by_name = [by_pattern(pattern)] if pattern else []
    rules: dict[str, list[Rule]] = {
        "stack": [by_file],
        "metadata": [by_ids, *by_name],
        "live": [by_ids, by_stack, *by_name],
    }
    return rules[series]


def check_pattern(pattern: str) -> str | None:
    """Return what is wrong with a `series_pattern`, None where it can be used."""
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        return f"is not a regular expression ({error})"
    missing = [name for name in ("series", "index") if name not in groups]
    if missing:
        return (
            f"has no group named {' and none named '.join(missing)}; name both, as in "
            r"'(?P<series>.+)_(?P<index>\d+)'"
        )
    return None


def _folder(origin: str) -> str:
    return str(Path(origin).parent)
