"""Overlays, drawn behind recognition and never in its way."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from daemon.drops import Drops
from daemon.inbox import Policy
from daemon.publish.outlet import Outlet
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival, Failure

WAITING_BYTES = 512 * 2**20
"""Memory for frames whose overlays wait."""

WAITING_OVERLAYS = 256
"""So many overlays may wait: each takes more memory than its pixels, and of small frames there could be very many."""

FINISH_SECONDS = 5.0
"""After a request to stop, as long is drawn what waits."""

NEWER = "the overlay of a newer frame came first"
NO_ROOM = "overlay; too many wait"
STOPPED = "overlay; stopped before it was drawn"


class _Waiting(NamedTuple):
    arrival: Arrival
    stem: Path
    recognition: Recognition

    @property
    def source(self) -> str:
        return self.arrival.source

    @property
    def bytes(self) -> int:
        series = self.recognition.series
        frames = series.frames if series else (self.recognition.frame,)
        return sum(frame.pixels.nbytes for frame in frames) + int(self.recognition.table.nbytes)


class Drawing:
    """Draws overlays in a thread of its own, in the order of their frames.

    Of a `latest` source only the newest frame's overlay waits. Those of a `lossless` source wait while there is room
    for them; one that comes beyond it is left out. What waits when the daemon stops is drawn after the next start where
    its frame is kept, as a file or in a spool.

    Args:
        outlet: Where overlays go.
        policies: Policy of each source, by name.
        drops: Counts the overlays left out.
        report: Called, from the thread, with an overlay that cannot be drawn.
    """

    def __init__(
        self, outlet: Outlet, policies: Mapping[str, Policy], drops: Drops, report: Callable[[Failure], None]
    ) -> None:
        self._outlet = outlet
        self._policies = policies
        self._drops = drops
        self._report = report
        self._waiting: dict[Path, _Waiting] = {}
        self._changed = Condition()
        self._stop_at: float | None = None
        self._thread = Thread(target=self._draw, name="drawing")

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self) -> None:
        """Draw what waits for a little longer, and end."""
        with self._changed:
            self._stop_at = monotonic() + FINISH_SECONDS
            self._changed.notify_all()
        self._thread.join()
        for waiting in self._waiting.values():
            self._drops.add(waiting.source, STOPPED)

    def add(self, arrival: Arrival, stem: Path, recognition: Recognition) -> None:
        """Have an overlay drawn beside its tables, or leave it out; never waits."""
        source, new = arrival.source, _Waiting(arrival, stem, recognition)
        with self._changed:
            if before := self._waiting.pop(stem, None):  # of what the file held before
                self._outlet.finish(before.arrival)
            if self._policies[source] == "latest":
                for older in [waiting for waiting in self._waiting.values() if waiting.source == source]:
                    del self._waiting[older.stem]
                    self._drops.add(source, NEWER)
                    self._outlet.finish(older.arrival)
            elif self._waiting and not self._has_room_for(new):
                self._drops.add(source, NO_ROOM)
                self._outlet.finish(arrival)
                return
            self._waiting[stem] = new
            self._changed.notify_all()

    def waiting(self) -> dict[str, int]:
        """Return how many overlays wait, by source."""
        with self._changed:
            return Counter(waiting.source for waiting in self._waiting.values())

    def _draw(self) -> None:
        while next_ := self._next():
            try:
                self._outlet.write_overlay(next_.stem, next_.recognition)
            except Exception as error:
                self._report(Failure(next_.source, f"{next_.stem} (overlay)", error))
            self._outlet.finish(next_.arrival)

    def _has_room_for(self, new: _Waiting) -> bool:
        waiting_bytes = sum(waiting.bytes for waiting in self._waiting.values())
        return len(self._waiting) < WAITING_OVERLAYS and waiting_bytes + new.bytes <= WAITING_BYTES

    def _next(self) -> _Waiting | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stop_at is not None)
            if not self._waiting or (self._stop_at is not None and monotonic() > self._stop_at):
                return None
            return self._waiting.pop(next(iter(self._waiting)))
