"""So many events a minute of one origin, however many a sender of garbage causes; the rest is told in one."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, Timer
from time import monotonic

MOST_A_MINUTE = 10
"""Failures of one origin that are told one by one."""

WITHHELD = "failures that were told together"

_WINDOW_SECONDS = 60.0

# Each file is an origin of its own: those of which nothing is withheld are forgotten when they are many.
_MOST_REMEMBERED = 1000

Origin = tuple[str, str]
"""A source and what it read from: an endpoint, or a file."""


@dataclass
class _Window:
    ends_at: float
    admitted: int = 0
    withheld: int = 0
    last_sentence: str = ""
    timer: Timer | None = None


class EventLimit:
    """Counts the failures of each origin, and withholds those beyond `MOST_A_MINUTE`. Safe to use from any thread.

    Args:
        tell: Called with an origin and a sentence that says how many were withheld, a minute after the first failure,
            from a thread of its own.
    """

    def __init__(self, tell: Callable[[Origin, str], None]) -> None:
        self._tell = tell
        self._windows: dict[Origin, _Window] = {}
        self._counting = Lock()
        self._closed = False

    def admits(self, origin: Origin, sentence: str) -> bool:
        """Count a failure; return whether it is to be told now, on its own."""
        with self._counting:
            now = monotonic()
            window = self._windows.get(origin)
            if window is None or (window.ends_at <= now and not window.withheld):
                self._forget_old(now)
                window = self._windows[origin] = _Window(now + _WINDOW_SECONDS)
            if window.admitted < MOST_A_MINUTE or self._closed:
                window.admitted += 1
                return True
            window.withheld += 1
            window.last_sentence = sentence
            if window.timer is None:
                window.timer = Timer(max(0.0, window.ends_at - now), self._end, [origin])
                window.timer.daemon = True
                window.timer.start()
            return False

    def close(self) -> None:
        """Tell of what is withheld now; from here on, nothing is."""
        with self._counting:
            self._closed = True
            timers = {origin: window.timer for origin, window in self._windows.items() if window.timer}
        for origin, timer in timers.items():
            timer.cancel()
            timer.join()
            self._end(origin)

    def _end(self, origin: Origin) -> None:
        with self._counting:
            window = self._windows.pop(origin, None)
        if window and window.withheld:
            more = f"{window.withheld} more like these came within a minute."
            self._tell(origin, f"{more} The last: {window.last_sentence}")

    def _forget_old(self, now: float) -> None:
        if len(self._windows) >= _MOST_REMEMBERED:
            self._windows = {
                origin: window for origin, window in self._windows.items() if window.withheld or window.ends_at > now
            }
