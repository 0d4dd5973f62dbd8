"""How the daemon is: what each heartbeat carries, made here and nowhere else, of JSON types.

A page of metrics will tell the same numbers.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from threading import Event
from time import monotonic
from typing import Any, Protocol

from daemon.drops import Drops
from daemon.pipeline import Pipeline
from daemon.recognition.choice import ModelChoice
from daemon.sources.source import Arrival, Failure, Source


class Origin(Source, Protocol):
    """A source that says how it is."""

    def gauge(self) -> Mapping[str, Any]:
        """Return `connected`, whether frames can come now, and what else its kind of source tells."""


class Watched:
    """A source whose frames are counted as they come."""

    def __init__(self, origin: Origin) -> None:
        self.name = origin.name
        self._origin = origin
        self._received = 0
        self._last_at: float | None = None

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """See `Source`."""
        for arrival in self._origin.arrivals(stop):
            if isinstance(arrival, Arrival):
                self._received += 1
                self._last_at = monotonic()
            yield arrival

    def gauge(self) -> dict[str, Any]:
        """Return how the source is, how many frames came of it, and how long ago the last one did."""
        last_at = self._last_at
        return {
            **self._origin.gauge(),
            "received": self._received,
            "seconds_since_last_frame": None if last_at is None else round(monotonic() - last_at, 1),
        }


def status_of(
    started_at: datetime,
    sources: Mapping[str, Watched],
    models: Mapping[str, ModelChoice],
    pipeline: Pipeline,
    drops: Drops,
) -> dict[str, Any]:
    """Tell how the daemon and each of its sources are now; docs/client.md says what each key means."""
    waiting = pipeline.waiting()
    return {
        "version": version("hrtemd"),
        "started_at": started_at.isoformat(),
        "sources": {
            name: {
                "models": {engine.manifest.name: engine.backend for engine in models[name].recognisers},
                **source.gauge(),
                **pipeline.counts_of(name),
                "dropped": drops.of(name),
                "waiting": {stage: lengths.get(name, 0) for stage, lengths in waiting.items()},
            }
            for name, source in sources.items()
        },
    }
