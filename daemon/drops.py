"""What was given up: counted by source and reason, and said in the log while it goes on."""

import logging
from collections import Counter
from math import inf
from threading import Lock
from time import monotonic

SAY_SECONDS = 30.0
"""The log tells of a source and reason no more often."""

log = logging.getLogger(__name__)


class Drops:
    """Counts frames and overlays that were given up."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By source and reason."""
        self._said_at: dict[tuple[str, str], float] = {}
        self._counting = Lock()

    def add(self, source: str, reason: str, number: int = 1) -> None:
        """Count some more."""
        key = (source, reason)
        with self._counting:
            self.counts[key] += number
            if monotonic() < self._said_at.get(key, -inf) + SAY_SECONDS:
                return
            self._said_at[key] = monotonic()
            log.warning("%s: %d dropped so far (%s)", source, self.counts[key], reason)

    def of(self, source: str) -> dict[str, int]:
        """Return how many were given up of one source, by reason."""
        with self._counting:
            return {reason: number for (name, reason), number in self.counts.items() if name == source}

    def __str__(self) -> str:
        """Say all of it; empty where nothing was given up."""
        with self._counting:
            return ", ".join(
                f"{source}: {number} dropped ({reason})" for (source, reason), number in self.counts.items()
            )
