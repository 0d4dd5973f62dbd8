"""From a source's frames to published results: one frame at a time, or as the daemon's running threads.

Threads: one a source, which fills the inbox; one that recognises and writes atom tables; one that draws overlays, so
that atoms are out before their overlay is begun. OpenCV, OpenVINO and Arrow release the interpreter lock in their heavy
calls.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Event, Lock, Thread
from time import monotonic, perf_counter

from daemon.errors import HrtemdError
from daemon.inbox import Inbox, Policy
from daemon.publish.files import FilePublisher
from daemon.recognition.recogniser import Recogniser, Recognition
from daemon.sources.source import Arrival, Failure, Source

_OVERLAYS_WAITING = 4
_SECONDS_FOR_A_SOURCE_TO_STOP = 5.0

# Before a source that failed is started again; the pause doubles each time.
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analysed:
    """A frame whose atom table is published.

    Attributes:
        recognition: What was found.
        stem: Path and name that the frame's result files share.
        latency_ms: From the frame being in memory to its atom table being ready.
        write_ms: For writing the tables.
    """

    recognition: Recognition
    stem: Path
    latency_ms: float
    write_ms: float


def analyse(arrival: Arrival, recogniser: Recogniser, files: FilePublisher) -> Analysed:
    """Find the atoms of one frame and publish them as tables.

    Raises:
        HrtemdError: The frame cannot be analysed.
        OSError: The tables cannot be written.
    """
    started = perf_counter()
    recognition = recogniser.recognise(arrival.frame)
    recognised = perf_counter()
    stem = files.write_tables(arrival, recognition)
    written = perf_counter()
    return Analysed(recognition, stem, 1e3 * (recognised - started), 1e3 * (written - recognised))


def explain(error: Exception) -> str:
    """Put an error into a sentence; one that nobody foresaw is logged in full where it is caught."""
    if isinstance(error, HrtemdError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'Input or output'}: {error.strerror}."
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
        files: Where results go.
        on_end: Called, from its thread, with the name of a source that ended though nobody stopped it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Mapping[str, Policy],
        recognisers: Mapping[str, Recogniser],
        files: FilePublisher,
        on_end: Callable[[str], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Frames `analysed`, `failed`, and `skipped` because their results were there."""
        self._policies = policies
        self._recognisers = recognisers
        self._files = files
        self._on_end = on_end
        self._stop = Event()
        self._reporting = Lock()
        self._inbox = Inbox(policies)
        self._overlays: Queue[tuple[str, Analysed] | None] = Queue(_OVERLAYS_WAITING)
        self._feeders = [Thread(target=self._feed, args=[source], name=source.name, daemon=True) for source in sources]
        self._recognition = Thread(target=self._recognise, name="recognition")
        self._drawing = Thread(target=self._draw, name="drawing")

    def start(self) -> None:
        """Begin to read, recognise and draw."""
        for thread in (self._drawing, self._recognition, *self._feeders):
            thread.start()

    def stop(self) -> None:
        """Finish the frame in work and the overlays begun; what waits is left for the next start."""
        self._stop.set()
        self._inbox.close()
        self._recognition.join()
        self._overlays.put(None)
        self._drawing.join()
        for thread in self._feeders:
            thread.join(_SECONDS_FOR_A_SOURCE_TO_STOP)
            if thread.is_alive():
                log.warning("%s: did not stop reading in time, and is left behind", thread.name)

    def dropped(self) -> str:
        """Say how many frames were given up so far, by source and reason; empty where none was."""
        dropped = self._inbox.dropped.items()
        return ", ".join(f"{source}: {number} dropped ({reason})" for (source, reason), number in dropped if number)

    def _feed(self, source: Source) -> None:
        """Pass on what a source yields; one that fails, though it should never, is started again after a pause."""
        pause_seconds = _SHORTEST_PAUSE_SECONDS
        while not self._stop.is_set():
            started = monotonic()
            try:
                for arrival in source.arrivals(self._stop):
                    if isinstance(arrival, Failure):
                        self._report(arrival)
                    else:
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
                if arrival.resumed and self._files.has_results(arrival):
                    self.counts["skipped"] += 1
                    continue
                analysed = analyse(arrival, self._recognisers[arrival.source], self._files)
                self.counts["analysed"] += 1
                log.info("%s", _log_line(arrival, analysed))
            except Exception as error:
                self._report(Failure(arrival.source, arrival.origin, error))
                continue
            if self._files.overlays:
                self._hand_to_drawing(arrival.source, analysed)

    def _hand_to_drawing(self, source: str, analysed: Analysed) -> None:
        if self._policies[source] == "latest" and self._overlays.full():
            log.info("%s: the overlay of %s is left out, drawing is behind", source, analysed.stem.name)
        else:
            self._overlays.put((source, analysed))

    def _draw(self) -> None:
        while item := self._overlays.get():
            source, analysed = item
            try:
                self._files.write_overlay(analysed.stem, analysed.recognition)
            except Exception as error:
                self._report(Failure(source, f"{analysed.stem} (overlay)", error))

    def _report(self, failure: Failure) -> None:
        """Make an error known: in the log, and as an event beside the results."""
        sentence = explain(failure.error)
        traceback = None if is_foreseen(failure.error) else failure.error
        log.error("%s: %s", failure.source, beginning_with_file(sentence, failure.origin), exc_info=traceback)
        with self._reporting:
            self.counts["failed"] += 1
            try:
                self._files.write_event(failure.source, failure.origin, sentence)
            except OSError as error:
                log.error("%s: the event could not be written: %s", failure.source, explain(error))


def _log_line(arrival: Arrival, analysed: Analysed) -> str:
    recognition = analysed.recognition
    warnings = "".join(f"; warning: {warning}" for warning in recognition.warnings)
    return (
        f"{arrival.source}: {arrival.frame.name}: {recognition.table.num_rows} atoms "
        f"in {analysed.latency_ms:.0f} ms{warnings}"
    )
