"""What every way in has in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from threading import Event
from typing import Protocol

from daemon.frames import FocalSeries, Frame

TOP = PurePosixPath()
"""The results directory itself."""


@dataclass(frozen=True)
class Arrival:
    """A frame as its source hands it over, or a focal series made of such frames.

    Attributes:
        source: Name of the source in config.toml.
        origin: What it was read from, for messages and result headers: a file's path or a series on the wire; of a
            focal series, that of its first frame.
        subject: What is to be analysed.
        read_ms: Milliseconds it took to read it.
        folder: Folder below the results directory that its results belong in.
        resumed: It was there before the daemon started, and may have results already.
        described_at: When its sidecar changed, in seconds since 1970; 0 where it has none.
        members: Ids of all frames of a focal series, those included that were not chosen; empty for a frame.
    """

    source: str
    origin: str
    subject: Frame | FocalSeries
    read_ms: float
    folder: PurePosixPath = TOP
    resumed: bool = False
    described_at: float = 0.0
    members: tuple[str, ...] = ()

    @property
    def frame_ids(self) -> tuple[str, ...]:
        """Ids of the frames that are finished when this is."""
        return self.members or (self.subject.frame_id,)


@dataclass(frozen=True)
class Failure:
    """Something that should have been a frame and is not, or a source in trouble.

    Attributes:
        source: Its name.
        origin: Where it came from.
        error: Says what is wrong.
        frame_id: What the ledger notes it as; None for what is no frame or file, and has no history.
    """

    source: str
    origin: str
    error: Exception
    frame_id: str | None = None


class Source(Protocol):
    """A way in. It reconnects and retries by itself; its iterator ends only when `stop` is set."""

    name: str

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """Yield frames and failures as they come, until `stop` is set, and None when nothing came for a moment."""
