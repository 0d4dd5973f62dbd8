"""Frames waiting for recognition: one bounded queue a source, served in turn."""

from collections import Counter, deque
from collections.abc import Mapping
from threading import Condition
from typing import Literal

from daemon.sources.source import Arrival

Policy = Literal["lossless", "latest"]

LOSSLESS_CAPACITY = 4
"""Frames of a lossless source that may wait in memory; the source itself waits for room."""


class Inbox:
    """Where every source puts its frames and recognition takes them.

    A `lossless` source waits while its queue is full. A `latest` source never waits: its newest frame replaces the one
    waiting, and `dropped` counts it. No source can take another's turn.
    """

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        """Frames given up, by source and reason."""
        self._policies = policies
        self._waiting: dict[str, deque[Arrival]] = {source: deque() for source in policies}
        self._changed = Condition()
        self._closed = False

    def put(self, arrival: Arrival) -> None:
        """Add a frame by its source's policy; a closed inbox takes no more."""
        with self._changed:
            queue = self._waiting[arrival.source]
            if self._policies[arrival.source] == "latest":
                self.dropped[arrival.source, "a newer frame came first"] += len(queue)
                queue.clear()
            self._changed.wait_for(lambda: self._closed or len(queue) < LOSSLESS_CAPACITY)
            if not self._closed:
                queue.append(arrival)
                self._changed.notify_all()

    def get(self) -> Arrival | None:
        """Take the next frame, waiting for one; None once the inbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._waiting.values()))
            if self._closed:
                return None
            source = next(source for source, queue in self._waiting.items() if queue)
            # Whoever was served goes to the end of the line.
            queue = self._waiting.pop(source)
            self._waiting[source] = queue
            self._changed.notify_all()
            return queue.popleft()

    def close(self) -> None:
        """Let everyone who waits go on; frames still waiting stay unanalysed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
