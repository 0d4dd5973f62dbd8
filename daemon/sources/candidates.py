"""Files that are to be read once their writers are done, each at its time."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from pathlib import Path
from typing import NamedTuple

from daemon.readers import parts_of

SETTLE_SECONDS = 0.3
"""A file is complete when its size and time of change have stood still for this long, and it can be read."""

Stamp = tuple[int, int]
"""A file's size in bytes and time of change in ns."""


class Signature(NamedTuple):
    """What changes when an image file, or anything that is read with it, changes.

    `others` are the stamps of its sidecar and, of an `.emi`, of its `.ser` files; None where there is no such file.
    """

    image: Stamp
    others: tuple[Stamp | None, ...]


def signature_of(path: Path) -> Signature:
    """Look at an image file and its parts.

    Raises:
        OSError: The image file is gone or cannot be looked at.
    """
    image, *others = parts_of(path)
    return Signature(_stamp(image), tuple(_stamp_if_any(part) for part in others))


def is_half_of_a_pair(path: Path, signature: Signature) -> bool:
    """Whether TIA, which writes an `.emi` and its `.ser` files one after the other, has written only one of them.

    Of the `.ser` files, only those without an `.emi` are image files.
    """
    has_ser = any(signature.others[1:])
    return path.suffix.lower() == ".ser" or (path.suffix.lower() == ".emi" and not has_ser)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _stamp_if_any(path: Path) -> Stamp | None:
    try:
        return _stamp(path)
    except OSError:  # if it is there and matters, reading the frame says what is wrong
        return None


@dataclass(frozen=True)
class Candidate:
    """A file that may hold frames, once its writer is done.

    Attributes:
        signature: As last seen.
        due: When to look at it again, on the monotonic clock.
        settled_at: When it has stood still for long enough to be whole, should it not change before.
        resumed: It was there at start.
        attempts: How often it could not be read as it stands now.
        delivered: Ids of the frames it has yielded so far.
    """

    signature: Signature
    due: float
    settled_at: float = 0.0
    resumed: bool = False
    attempts: int = 0
    delivered: set[str] = field(default_factory=set)


_Entry = tuple[float, int, Path, Candidate]
"""Due time, order of entry, and the file as it was then: it may since have been replaced or dropped."""


class Candidates:
    """The files waiting, in order of their times; those that were there at start come after the new ones."""

    def __init__(self) -> None:
        self._waiting: dict[Path, Candidate] = {}
        self._new: list[_Entry] = []
        self._resumed: list[_Entry] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, path: Path) -> bool:
        return path in self._waiting

    def put(self, path: Path, candidate: Candidate) -> None:
        """Add a file, or replace what is known of it."""
        self._waiting[path] = candidate
        entries = self._resumed if candidate.resumed else self._new
        heappush(entries, (candidate.due, next(self._order), path, candidate))

    def get(self, path: Path) -> Candidate | None:
        """Return what is known of a file."""
        return self._waiting.get(path)

    def drop(self, path: Path) -> None:
        """Wait for a file no longer."""
        self._waiting.pop(path, None)

    def next_due(self) -> float:
        """Return when the next file is due, infinity where none waits."""
        return min((entry[0] for entry in (self._next(self._new), self._next(self._resumed)) if entry), default=inf)

    def due(self, now: float) -> tuple[Path, Candidate] | None:
        """Return a file that is due, without taking it out; the operator waits for what is new."""
        for entry in (self._next(self._new), self._next(self._resumed)):
            if entry and entry[0] <= now:
                return entry[2:]
        return None

    def _next(self, entries: list[_Entry]) -> _Entry | None:
        while entries and self._waiting.get(entries[0][2]) is not entries[0][3]:
            heappop(entries)
        return entries[0] if entries else None
