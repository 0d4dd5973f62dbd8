"""From a source's frames or focal series to published results: one at a time, or as the daemon's running threads.

Threads: one a source, which fills the inbox; one that recognises and writes atom tables; one that draws overlays, so
that atoms are out before their overlay is begun. OpenCV, OpenVINO and Arrow release the interpreter lock in their heavy
calls.
"""

import errno
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, perf_counter

from daemon.alerts import Alert, AlertWatch
from daemon.drawing import Drawing
from daemon.drops import Drops
from daemon.errors import HrtemdError
from daemon.frames import FocalSeries
from daemon.inbox import Inbox, Policy
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.recogniser import Recogniser, Recognition
from daemon.series.triplets import choice_made
from daemon.sources.source import Arrival, Failure, Source

_SECONDS_FOR_A_SOURCE_TO_STOP = 5.0

# Before a source that failed is started again; the pause doubles each time.
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

# Between attempts to write results of a lossless source; the pause doubles each time.
_SHORTEST_HOLD_SECONDS = 1.0
_LONGEST_HOLD_SECONDS = 30.0

# About a result's name or place; waiting does not mend them, as it may a full disk or a share that went away.
_NOT_MENDED_BY_WAITING = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analysed:
    """A frame or focal series whose atom table is published.

    Attributes:
        recognition: What was found.
        stem: Path and name that its result files share.
        latency_ms: From it being in memory to its atom table being ready.
        write_ms: For writing the tables.
    """

    recognition: Recognition
    stem: Path
    latency_ms: float
    write_ms: float


def analyse(arrival: Arrival, recogniser: Recogniser, results: FilePublisher | Outlet) -> Analysed:
    """Find the atoms of one frame or focal series and publish them as tables.

    Raises:
        HrtemdError: It cannot be analysed.
        OSError: The tables cannot be written.
    """
    started = perf_counter()
    recognition = recogniser.recognise(arrival.subject)
    if isinstance(arrival.subject, FocalSeries):
        recognition = replace(recognition, warnings=choice_made(arrival.subject) + recognition.warnings)
    elif average := arrival.subject.average:
        recognition = replace(recognition, warnings=[*average.warnings, *recognition.warnings])
    recognised = perf_counter()
    stem = results.write_tables(arrival, recognition)
    written = perf_counter()
    return Analysed(recognition, stem, 1e3 * (recognised - started), 1e3 * (written - recognised))


def explain(error: Exception) -> str:
    """Put an error into a sentence; one that nobody foresaw is logged in full where it is caught."""
    if isinstance(error, HrtemdError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename or 'Input or output'}: {error.strerror}; "
            "check that the folder is there, may be used by this user and has room."
        )
    return f"Unexpected {type(error).__name__}: {error}. This is a fault in hrtemd; please report it with the log."


def beginning_with_file(sentence: str, origin: str) -> str:
    """Begin a sentence with the file it is about, unless it names it already."""
    name = Path(origin).name
    return sentence if name in sentence else f"{name}: {sentence}"


def is_foreseen(error: Exception) -> bool:
    """Whether an error's own sentence says all there is to say."""
    return isinstance(error, HrtemdError | OSError)


class Pipeline:
    """The daemon's threads between its sources and its results.

    Args:
        sources: The ways in.
        policies: Policy of each source, by name.
        recognisers: Recogniser of each source, by name.
        outlet: Where results go.
        drops: Counts what is given up.
        on_end: Called, from its thread, with the name of a source that ended though nobody stopped it.
        alerts: By source, what tells of things to act on.
        sent_once: Sources whose published frames are never analysed again; files are, where their sidecars changed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Mapping[str, Policy],
        recognisers: Mapping[str, Recogniser],
        outlet: Outlet,
        drops: Drops,
        on_end: Callable[[str], None],
        alerts: Mapping[str, AlertWatch] | None = None,
        sent_once: Collection[str] = (),
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Frames or series `analysed`, `failed`, and `skipped` because their results were there."""
        self._policies = policies
        self._recognisers = recognisers
        self._outlet = outlet
        self._alerts = alerts or {}
        self._sent_once = sent_once
        self._on_end = on_end
        self._stop = Event()
        self._reporting = Lock()
        self._inbox = Inbox(policies, drops)
        self._drawing = Drawing(outlet, policies, drops, self._report)
        self._holds_seconds: dict[str, float] = {}
        self._feeders = [Thread(target=self._feed, args=[source], name=source.name, daemon=True) for source in sources]
        self._recognition = Thread(target=self._recognise, name="recognition")

    def start(self) -> None:
        """Begin to read, recognise and draw."""
        self._drawing.start()
        for thread in (self._recognition, *self._feeders):
            thread.start()

    def stop(self) -> None:
        """Finish the frame in work and soon the overlays; what waits is left for the next start."""
        self._stop.set()
        self._inbox.close()
        self._recognition.join()
        self._drawing.stop()
        for thread in self._feeders:
            thread.join(_SECONDS_FOR_A_SOURCE_TO_STOP)
            if thread.is_alive():
                log.warning("%s: did not stop reading in time, and is left behind", thread.name)

    def _feed(self, source: Source) -> None:
        """Pass on what a source yields; one that fails, though it should never, is started again after a pause."""
        pause_seconds = _SHORTEST_PAUSE_SECONDS
        while not self._stop.is_set():
            started = monotonic()
            try:
                for arrival in source.arrivals(self._stop):
                    if isinstance(arrival, Failure):
                        self._report(arrival)
                    elif arrival:
                        self._inbox.put(arrival)
                break
            except Exception as error:
                self._report(Failure(source.name, source.name, error))
            if monotonic() - started > _LONGEST_PAUSE_SECONDS:  # it worked for a while
                pause_seconds = _SHORTEST_PAUSE_SECONDS
            self._stop.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        if not self._stop.is_set():
            self._on_end(source.name)

    def _recognise(self) -> None:
        while arrival := self._inbox.get():
            try:
                self._analyse(arrival)
            except Exception as error:
                if isinstance(error, OSError) and self._may_be_mended(arrival, error):
                    self._hold(arrival, error)
                else:
                    self._report(Failure(arrival.source, arrival.origin, error), arrival)
            else:
                if self._holds_seconds.pop(arrival.source, None):
                    log.info("%s: results are written again", arrival.source)

    def _analyse(self, arrival: Arrival) -> None:
        is_published = self._outlet.is_published(arrival)
        if arrival.source in self._sent_once:
            is_done = is_published
        else:
            is_done = arrival.resumed and self._outlet.files.has_results(arrival)
        if is_done:
            self.counts["skipped"] += 1
            return
        self._outlet.begin(arrival)
        analysed = analyse(arrival, self._recognisers[arrival.source], self._outlet)
        self.counts["analysed"] += 1
        log.info("%s", _log_line(arrival, analysed))
        if self._outlet.files.overlays:
            self._drawing.add(arrival.source, analysed.stem, analysed.recognition)
        if watch := self._alerts.get(arrival.source):
            self._tell(watch.of(arrival, analysed.recognition), arrival.source)

    def _tell(self, alerts: Iterable[Alert], source: str) -> None:
        for alert in alerts:
            log.warning("%s: %s: %s", source, alert.name, alert.sentence)
            self._outlet.write_alert(source, alert.as_event())

    def _may_be_mended(self, arrival: Arrival, error: OSError) -> bool:
        return self._policies[arrival.source] == "lossless" and error.errno not in _NOT_MENDED_BY_WAITING

    def _hold(self, arrival: Arrival, error: OSError) -> None:
        """Try a frame again later, and its source's frames after it: none of them may be lost to a full disk."""
        before = self._holds_seconds.get(arrival.source)
        if before is None:
            log.error("%s: results wait until they can be written: %s", arrival.source, explain(error))
        pause_seconds = min(2 * before, _LONGEST_HOLD_SECONDS) if before else _SHORTEST_HOLD_SECONDS
        self._holds_seconds[arrival.source] = pause_seconds
        self._inbox.put_back(arrival, pause_seconds)

    def _report(self, failure: Failure, arrival: Arrival | None = None) -> None:
        """Make an error known: in the log, and as an event; of a frame that was taken up, it is the end."""
        sentence = explain(failure.error)
        traceback = None if is_foreseen(failure.error) else failure.error
        log.error("%s: %s", failure.source, beginning_with_file(sentence, failure.origin), exc_info=traceback)
        with self._reporting:
            self.counts["failed"] += 1
            try:
                self._outlet.write_failure(failure, sentence, arrival)
            except OSError as error:
                log.error("%s: the event could not be written: %s", failure.source, explain(error))


def _log_line(arrival: Arrival, analysed: Analysed) -> str:
    recognition = analysed.recognition
    warnings = "".join(f"; warning: {warning}" for warning in recognition.warnings)
    return (
        f"{arrival.source}: {arrival.subject.name}: {recognition.table.num_rows} atoms "
        f"in {analysed.latency_ms:.0f} ms{warnings}"
    )
