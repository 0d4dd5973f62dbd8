"""A directory source that runs in a thread, and what it yields; for tests."""

import threading
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from daemon.drops import Drops
from daemon.inbox import Policy
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.directory import DirectorySource
from daemon.sources.source import Arrival, Failure

PATIENCE_SECONDS = 60.0  # the machine may be busy
QUIET_SECONDS = 0.7  # longer than a file takes to settle


class Watching:
    """A running source and what it has yielded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: set[str] = set()
        self.changed_at: dict[str, float] = {}
        self._arrived: SimpleQueue[Arrival | Failure] = SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, policy: Policy = "lossless", **options: Any) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=[self.new_source(policy, **options)])
        self._thread.start()

    def new_source(self, policy: Policy = "lossless", **options: Any) -> DirectorySource:
        return DirectorySource(
            "camera", self.folder, policy, 0.1, self._has_newer_results, DEFAULT_LIMITS, Drops(), **options
        )

    def _has_newer_results(self, path: Path, folder: PurePosixPath, changed_at: float) -> bool:
        self.changed_at[path.name] = changed_at
        return path.name in self.finished

    def _run(self, source: DirectorySource) -> None:
        for arrival in source.arrivals(self._stop):
            if arrival:
                self._arrived.put(arrival)

    def next(self) -> Arrival | Failure:
        return self._arrived.get(timeout=PATIENCE_SECONDS)

    def arrivals(self, number: int) -> list[Arrival]:
        found = [self.next() for _ in range(number)]
        assert all(isinstance(arrival, Arrival) for arrival in found), found
        return [arrival for arrival in found if isinstance(arrival, Arrival)]

    def names(self, number: int) -> list[str]:
        """The next frames' names, and nothing after them."""
        arrivals = [self.next() for _ in range(number)]
        with pytest.raises(Empty):
            print("unexpected:", self._arrived.get(timeout=QUIET_SECONDS))  # noqa: T201
        return [arrival.subject.name for arrival in arrivals if isinstance(arrival, Arrival)]

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(PATIENCE_SECONDS)
            assert not self._thread.is_alive()
