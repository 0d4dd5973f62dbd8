"""Messages on disk from when they are received until they are analysed, so that a crash in between loses none.

A spool is a folder of segments, each a file to which records are only ever appended, and beside it a file with the
numbers of those that are finished. A segment is deleted once all of it is finished and a newer one has been begun; so
the newest record stays, and the next start sees which frames never came. What a crash cut off at the end of a segment
was not yet passed on.
"""

import logging
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from daemon.sources.connection import Message
from daemon.sources.fields import Buffer
from daemon.sources.spool_records import append_records, read_records

_SEGMENT_BYTES = 256 * 2**20

_NUMBER = struct.Struct("<I")

log = logging.getLogger(__name__)


class Ticket(NamedTuple):
    """Where a message is kept."""

    segment: int
    record: int


class Stored(NamedTuple):
    """A message of an earlier run.

    `is_opening` marks a copy of the message that began the series that its segment begins in the midst of.
    """

    ticket: Ticket
    message: Message
    is_opening: bool
    is_finished: bool


@dataclass
class _Segment:
    path: Path
    records: int = 0
    bytes: int = 0
    finished: set[int] = field(default_factory=set)

    @property
    def is_finished(self) -> bool:
        return len(self.finished) == self.records

    @property
    def finished_path(self) -> Path:
        return self.path.with_suffix(".finished")


class Spool:
    """Keeps messages on disk. Safe to use from several threads.

    Args:
        folder: Its own; made where it does not exist.
        max_bytes: Largest size of all segments; the last messages may go a little beyond.

    Raises:
        OSError: The folder cannot be made or read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._awaited: dict[str, set[Ticket]] = {}
        self._unfinished: dict[Ticket, set[str]] = {}
        self._segments = {int(path.stem): _opened(path) for path in sorted(folder.glob("[0-9]*.spool"))}
        self._earlier = list(self._segments)
        self._numbers = count(max(self._segments, default=0) + 1)
        self._newest: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be received until something is finished."""
        with self._lock:
            if self._bytes() >= self._max_bytes:
                self._remove_finished(with_newest=True)
            return self._bytes() >= self._max_bytes

    @property
    def bytes(self) -> int:
        """Size of all segments, with what is finished in them."""
        with self._lock:
            return self._bytes()

    def append(self, messages: Sequence[Message], opening: Sequence[Buffer] | None = None) -> list[Ticket]:
        """Keep messages; when this returns they are on the disk itself.

        Args:
            messages: In the order they came.
            opening: The message that began the series which is open before them.

        Raises:
            OSError: They cannot be kept, and none of them is.
        """
        with self._lock:
            if self._newest is None or self._segments[self._newest].bytes >= min(_SEGMENT_BYTES, self._max_bytes // 4):
                self._begin_segment(opening, messages[0].received_at)
            assert self._newest is not None
            number, segment = self._newest, self._segments[self._newest]
            try:
                segment.bytes = append_records(segment.path, segment.bytes, messages)
            except OSError:
                self._remove_finished(with_newest=True)  # it may be what fills the disk
                raise
            first = segment.records
            segment.records += len(messages)
            return [Ticket(number, first + place) for place in range(len(messages))]

    def stored(self) -> Iterator[Stored]:
        """Yield what earlier runs kept, in the order it came."""
        for number in self._earlier:
            segment = self._segments.get(number)
            if segment is None:
                continue
            for record, (message, is_opening) in enumerate(read_records(segment.path)):
                yield Stored(Ticket(number, record), message, is_opening, record in segment.finished)

    def expect(self, ticket: Ticket, frame_ids: Iterable[str]) -> None:
        """Keep a message until these frames of it are finished; one without frames is finished now."""
        with self._lock:
            frames = set(frame_ids)
            for frame_id in frames:
                self._awaited.setdefault(frame_id, set()).add(ticket)
            if frames:
                self._unfinished[ticket] = frames
            else:
                self._finish(ticket)

    def finished(self, frame_id: str) -> None:
        """Forget a frame, and its message with the last of its frames."""
        with self._lock:
            for ticket in self._awaited.pop(frame_id, ()):
                self._unfinished[ticket].discard(frame_id)
                if not self._unfinished[ticket]:
                    del self._unfinished[ticket]
                    self._finish(ticket)

    def _finish(self, ticket: Ticket) -> None:
        segment = self._segments[ticket.segment]
        segment.finished.add(ticket.record)
        try:
            # Not made sure of: after a loss of power the frame comes again, and the ledger knows it.
            with segment.finished_path.open("ab") as numbers:
                numbers.write(_NUMBER.pack(ticket.record))
        except OSError as error:
            log.warning("%s: not noted as finished (%s); it comes again at the next start", ticket, error.strerror)
        self._remove_finished()

    def _remove_finished(self, *, with_newest: bool = False) -> None:
        newest = max(self._segments, default=None)
        for number, segment in list(self._segments.items()):
            if segment.is_finished and (with_newest or number != newest):
                del self._segments[number]
                try:
                    segment.path.unlink(missing_ok=True)
                    segment.finished_path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning("%s: cannot be deleted (%s); it is tried again at the next start", segment.path, error)
                if number == self._newest:
                    self._newest = None

    def _begin_segment(self, opening: Sequence[Buffer] | None, now: datetime) -> None:
        number = next(self._numbers)
        segment = _Segment(self._folder / f"{number:08d}.spool")
        # What an earlier run finished under this number says nothing of this one.
        segment.finished_path.unlink(missing_ok=True)
        segment.path.touch()
        _sync_folder(self._folder)
        if opening:
            segment.bytes = append_records(segment.path, 0, [Message(list(opening), now)], are_openings=True)
            segment.records, segment.finished = 1, {0}
        self._segments[number] = segment
        self._newest = number
        self._remove_finished()

    def _bytes(self) -> int:
        return sum(segment.bytes for segment in self._segments.values())


def _opened(path: Path) -> _Segment:
    """Look at a segment of an earlier run."""
    segment = _Segment(path, bytes=path.stat().st_size)
    for record, (_, is_opening) in enumerate(read_records(path)):
        segment.records += 1
        if is_opening:
            segment.finished.add(record)
    with suppress(FileNotFoundError):
        numbers = segment.finished_path.read_bytes()
        whole = len(numbers) - len(numbers) % _NUMBER.size
        found = {number for (number,) in _NUMBER.iter_unpack(numbers[:whole])}
        segment.finished |= {number for number in found if number < segment.records}
    return segment


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
