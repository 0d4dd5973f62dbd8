"""Frames, or focal series, waiting for recognition: one bounded queue a source, served in turn."""

from collections import deque
from collections.abc import Mapping
from threading import Condition
from time import monotonic
from typing import Literal

from daemon.drops import Drops
from daemon.sources.source import Arrival

Policy = Literal["lossless", "latest"]

LOSSLESS_CAPACITY = 4
"""Frames of a lossless source that may wait in memory; the source itself waits for room."""

NEWER = "a newer frame came first"


class Inbox:
    """Where every source puts its frames and recognition takes them.

    A `lossless` source waits while its queue is full. A `latest` source never waits: its newest frame replaces the one
    waiting, which is dropped. No source can take another's turn.

    Args:
        policies: Policy of each source, by name.
        drops: Counts the frames given up.
    """

    def __init__(self, policies: Mapping[str, Policy], drops: Drops) -> None:
        self._policies = policies
        self._drops = drops
        self._waiting: dict[str, deque[Arrival]] = {source: deque() for source in policies}
        self._held_until: dict[str, float] = {}
        self._changed = Condition()
        self._closed = False

    def put(self, arrival: Arrival) -> None:
        """Add a frame by its source's policy; a closed inbox takes no more."""
        with self._changed:
            queue = self._waiting[arrival.source]
            if self._policies[arrival.source] == "latest" and queue:
                self._drops.add(arrival.source, NEWER, len(queue))
                queue.clear()
            self._changed.wait_for(lambda: self._closed or len(queue) < LOSSLESS_CAPACITY)
            if not self._closed:
                queue.append(arrival)
                self._changed.notify_all()

    def put_back(self, arrival: Arrival, pause_seconds: float) -> None:
        """Return a frame to the head of its queue; nothing is taken from its source for a while."""
        with self._changed:
            self._waiting[arrival.source].appendleft(arrival)
            self._held_until[arrival.source] = monotonic() + pause_seconds
            self._changed.notify_all()

    def get(self) -> Arrival | None:
        """Take the next frame, waiting for one; None once the inbox is closed."""
        with self._changed:
            while not self._closed:
                due = {source: self._held_until.get(source, 0.0) for source, queue in self._waiting.items() if queue}
                now = monotonic()
                source = next((source for source in due if due[source] <= now), None)
                if source is not None:
                    # Whoever was served goes to the end of the line.
                    queue = self._waiting.pop(source)
                    self._waiting[source] = queue
                    self._changed.notify_all()
                    return queue.popleft()
                self._changed.wait(min(due.values()) - now if due else None)
            return None

    def close(self) -> None:
        """Let everyone who waits go on; frames still waiting stay unanalysed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
