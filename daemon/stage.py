"""One step of the pipeline: a thread that takes from its inbox and puts what it makes into the next stage's."""

import logging
from collections.abc import Callable
from threading import Thread
from typing import Generic, Protocol, TypeVar

from daemon.errors import FrameError, explain, is_foreseen
from daemon.inbox import Inbox, Job
from daemon.sources.source import Arrival

# Between attempts at a frame that waits for a disk; the pause doubles each time.
_SHORTEST_HOLD_SECONDS = 1.0
_LONGEST_HOLD_SECONDS = 30.0

Content = TypeVar("Content")
Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Overseer(Protocol):
    """What stages ask and tell of frames that go no further."""

    def is_mended_by_waiting(self, arrival: Arrival, error: OSError) -> bool:
        """Whether a frame, and its source's frames after it, are to wait until this no longer happens."""

    def give_up(self, arrival: Arrival, error: Exception) -> None:
        """Make known that a frame cannot be analysed, and why."""

    def drop(self, arrival: Arrival) -> None:
        """Forget a frame in work, in place of which a newer one goes on."""


class Stage(Generic[Content, Made]):
    """Works on one frame after the other, each source's in their order.

    A frame of which the work fails though nobody foresaw it is tried once more; if it fails again it is set aside, and
    the stage goes on with others. Nothing is taken for which the next stage has no room, so that what holds up one
    source stops no other.

    Args:
        name: What it does, for messages.
        work: Makes of a frame what the next stage needs; None where the frame's way ends here.
        inlet: Frames that wait for it.
        outlet: Those that wait for the next stage; None after the last one.
        overseer: Told of frames that go no further.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Job[Content]], Made | None],
        inlet: Inbox[Content],
        outlet: Inbox[Made] | None,
        overseer: Overseer,
    ) -> None:
        self.name = name
        self._work = work
        self._inlet = inlet
        self._outlet = outlet
        self._overseer = overseer
        self._stopping = False
        self._holds_seconds: dict[str, float] = {}
        self._left: set[str] = set()
        self._thread = Thread(target=self._run, name=name)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def prepare_to_stop(self) -> None:
        """From now on, hold nothing back: what cannot be written now is left to the next start."""
        self._stopping = True
        self._inlet.end_pauses()

    def stop(self, *, finish: bool) -> None:
        """End, after the frame in work, or after all that wait if `finish`; the stage before must have ended."""
        self._inlet.close(finish=finish)
        self._thread.join()

    def waiting(self) -> dict[str, int]:
        """Return how many frames wait, by source."""
        return self._inlet.lengths()

    def holds(self, source: str) -> bool:
        """Whether a source's frames wait until something can be written."""
        return source in self._holds_seconds

    def _run(self) -> None:
        while job := self._inlet.get(self._next_has_room):
            source = job.arrival.source
            if source in self._left:
                continue
            try:
                made = self._attempt(job)
            except Exception as error:
                self._fail(job, error)
                continue
            if self._holds_seconds.pop(source, None):
                log.info("%s: results are written again", source)
            if made is not None and self._outlet:
                for dropped in self._outlet.put(Job(job.arrival, made, job.waited_ms)):
                    self._overseer.drop(dropped.arrival)

    def _next_has_room(self, source: str) -> bool:
        return self._outlet is None or self._outlet.has_room(source)

    def _attempt(self, job: Job[Content]) -> Made | None:
        name = job.arrival.subject.name
        try:
            return self._work(job)
        except Exception as error:
            if is_foreseen(error):
                raise
            log.exception("%s: %s: %s failed; it is tried once more", job.arrival.source, name, self.name)
        try:
            return self._work(job)
        except Exception as error:
            if is_foreseen(error):
                raise
            raise FrameError(
                f"{name} is set aside: {self.name} failed on it twice ({type(error).__name__}: {error}). "
                "Please report it, with the file and the log."
            ) from error

    def _fail(self, job: Job[Content], error: Exception) -> None:
        if not isinstance(error, OSError) or not self._overseer.is_mended_by_waiting(job.arrival, error):
            self._overseer.give_up(job.arrival, error)
        elif self._stopping:
            self._left.add(job.arrival.source)  # and those after it, so that all stay in order
        else:
            self._hold(job, error)

    def _hold(self, job: Job[Content], error: OSError) -> None:
        """Try a frame again later, and its source's frames after it: none of them may be lost to a full disk."""
        source = job.arrival.source
        before = self._holds_seconds.get(source)
        if before is None:
            log.error("%s: results wait until they can be written: %s", source, explain(error))
        pause_seconds = min(2 * before, _LONGEST_HOLD_SECONDS) if before else _SHORTEST_HOLD_SECONDS
        self._holds_seconds[source] = pause_seconds
        self._inlet.put_back(job, pause_seconds)
