"""Frames, or focal series, waiting for a stage of the pipeline: one bounded queue a source, served in turn."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic, perf_counter
from typing import Generic, Literal, TypeVar

from daemon.drops import Drops
from daemon.sources.source import Arrival

Policy = Literal["lossless", "latest"]

LOSSLESS_CAPACITY = 4
"""Frames of a lossless source that may wait in memory; the source itself waits for room."""

NEWER = "a newer frame came first"

Content = TypeVar("Content")


@dataclass
class Job(Generic[Content]):
    """A frame or focal series on its way.

    Attributes:
        arrival: As its source handed it over.
        content: What the stage before made of it.
        waited_ms: In all queues so far.
        waiting_since: On the performance counter.
    """

    arrival: Arrival
    content: Content
    waited_ms: float = 0.0
    waiting_since: float = field(default_factory=perf_counter)


def _always(_source: str) -> bool:
    return True


class Inbox(Generic[Content]):
    """Where every source's frames wait for a stage.

    Whoever adds a frame of a `lossless` source waits while its queue is full. Of a `latest` source nobody waits: its
    newest frame replaces the one waiting, which is dropped. No source can take another's turn.

    Args:
        policies: Policy of each source, by name.
        drops: Counts the frames given up.
        capacity: Frames of a lossless source that may wait.
        changed: Told of every change; one for all inboxes of a pipeline, since whether a frame can be taken from one
            depends on the room in the next.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        drops: Drops,
        capacity: int = LOSSLESS_CAPACITY,
        changed: Condition | None = None,
    ) -> None:
        self._policies = policies
        self._drops = drops
        self._capacity = capacity
        self._waiting: dict[str, deque[Job[Content]]] = {source: deque() for source in policies}
        self._held_until: dict[str, float] = {}
        self._changed = changed or Condition()
        self._pauses_count = True
        self._closed = False
        self._finishing = False

    def put(self, job: Job[Content]) -> list[Job[Content]]:
        """Add a frame by its source's policy, and return those dropped for it; a closed inbox takes no more."""
        source = job.arrival.source
        with self._changed:
            queue = self._waiting[source]
            dropped = list(queue) if self._policies[source] == "latest" and not self._closed else []
            if dropped:
                self._drops.add(source, NEWER, len(dropped))
                queue.clear()
            self._changed.wait_for(lambda: self._closed or len(queue) < self._capacity)
            if not self._closed:
                queue.append(job)
                self._changed.notify_all()
            return dropped

    def put_back(self, job: Job[Content], pause_seconds: float) -> None:
        """Return a frame to the head of its queue; nothing is taken from its source for a while."""
        job.waiting_since = perf_counter()
        with self._changed:
            self._waiting[job.arrival.source].appendleft(job)
            self._held_until[job.arrival.source] = monotonic() + pause_seconds
            self._changed.notify_all()

    def has_room(self, source: str) -> bool:
        """Whether `put` would not wait. Asked by the one who puts, it stays true until it does."""
        with self._changed:
            return self._policies[source] == "latest" or len(self._waiting[source]) < self._capacity

    def get(self, may_be_taken: Callable[[str], bool] = _always) -> Job[Content] | None:
        """Take the next frame of a source that may be taken, waiting for one; None once the inbox is closed."""
        with self._changed:
            while not self._closed or (self._finishing and any(self._waiting.values())):
                due = {
                    source: self._held_until.get(source, 0.0) if self._pauses_count else 0.0
                    for source, queue in self._waiting.items()
                    if queue and may_be_taken(source)
                }
                now = monotonic()
                source = next((source for source in due if due[source] <= now), None)
                if source is not None:
                    # Whoever was served goes to the end of the line.
                    queue = self._waiting.pop(source)
                    self._waiting[source] = queue
                    self._changed.notify_all()
                    job = queue.popleft()
                    job.waited_ms += 1e3 * (perf_counter() - job.waiting_since)
                    return job
                self._changed.wait(min(due.values()) - now if due else None)
            return None

    def lengths(self) -> dict[str, int]:
        """Return how many frames wait, by source."""
        with self._changed:
            return {source: len(queue) for source, queue in self._waiting.items()}

    def end_pauses(self) -> None:
        """Give out at once what was put back, now and from now on."""
        with self._changed:
            self._pauses_count = False
            self._changed.notify_all()

    def close(self, *, finish: bool = False) -> None:
        """Let everyone who waits go on.

        Args:
            finish: Give out what is there before; else frames still waiting stay unanalysed.
        """
        with self._changed:
            self._closed, self._finishing = True, finish
            self._changed.notify_all()
