"""What goes wrong is made known: counted, in the log, and as an event."""

import logging
from collections import Counter
from collections.abc import Mapping
from threading import Lock

from daemon.drops import Drops
from daemon.errors import FrameError, beginning_with_file, explain, is_foreseen
from daemon.event_limit import WITHHELD, EventLimit, Origin
from daemon.publish.outlet import Outlet
from daemon.sources.source import Arrival, Failure

log = logging.getLogger(__name__)


class Failures:
    """Makes failures known; any thread may.

    Args:
        outlet: Where events go.
        drops: Counts those that are told together.
        counts: By source, where each is counted as `failed`.
    """

    def __init__(self, outlet: Outlet, drops: Drops, counts: Mapping[str, Counter[str]]) -> None:
        self._outlet = outlet
        self._drops = drops
        self._counts = counts
        self._one_at_a_time = Lock()
        self._limit = EventLimit(self._tell_of_withheld)

    def report(self, failure: Failure, arrival: Arrival | None = None) -> None:
        """Make a failure known; of a frame that was taken up, it is the end."""
        sentence = explain(failure.error)
        with self._one_at_a_time:
            self._counts[failure.source]["failed"] += 1
        if arrival is None and not self._limit.admits((failure.source, failure.origin), sentence):
            self._drops.add(failure.source, WITHHELD)
        else:
            self._make_known(failure, sentence, arrival)

    def close(self) -> None:
        """Tell how many were withheld, and end."""
        self._limit.close()

    def _tell_of_withheld(self, origin: Origin, sentence: str) -> None:
        self._make_known(Failure(*origin, FrameError(sentence)), sentence)

    def _make_known(self, failure: Failure, sentence: str, arrival: Arrival | None = None) -> None:
        traceback = None if is_foreseen(failure.error) else failure.error
        log.error("%s: %s", failure.source, beginning_with_file(sentence, failure.origin), exc_info=traceback)
        with self._one_at_a_time:
            try:
                self._outlet.write_failure(failure, sentence, arrival)
            except Exception as error:
                unforeseen = None if is_foreseen(error) else error
                log.error("%s: the event was not written: %s", failure.source, explain(error), exc_info=unforeseen)
                if arrival is not None:
                    self._outlet.leave(arrival)
