"""The daemon's running threads, from its sources' frames or focal series to published results.

A thread a source fills the first inbox; then one thread each prepares frames, runs the networks, decodes their answers,
publishes tables and writes their files, so that a frame is in the engine while its neighbours are before and behind it.
Atoms are out before their files are written, and before their overlay is begun, in a thread of its own. OpenCV, the
engines and Arrow release the interpreter lock in their heavy calls.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from errno import EEXIST, EILSEQ, EINVAL, EISDIR, ENAMETOOLONG, ENOTDIR
from threading import Condition, Event, Thread
from time import monotonic
from typing import Any, NamedTuple

from daemon.alerts import Alert, AlertWatch
from daemon.atoms import found_in_words
from daemon.drawing import Drawing
from daemon.drops import Drops
from daemon.errors import explain, is_foreseen
from daemon.failures import Failures
from daemon.frames import FocalSeries, Frame
from daemon.inbox import Inbox, Job, Policy
from daemon.publish.outlet import Outlet, Published
from daemon.recognition.choice import ModelChoice
from daemon.recognition.recogniser import Inferred, Prepared, Recogniser, Recognition
from daemon.sources.source import Arrival, Failure, Source
from daemon.stage import Stage

_SECONDS_FOR_A_SOURCE_TO_STOP = 5.0

# Before a source that failed is started again; the pause doubles each time.
_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

# While a frame waits to be alone.
_SECONDS_BETWEEN_LOOKS = 0.02

# About a result's name or place; waiting does not mend them, as it may a full disk or a share that went away.
_NOT_MENDED_BY_WAITING = frozenset({ENAMETOOLONG, EINVAL, EILSEQ, EEXIST, EISDIR, ENOTDIR})

log = logging.getLogger(__name__)


class _Out(NamedTuple):
    """A result on its way to files; `published` is None where these are there and only its overlay is missing."""

    recognition: Recognition
    published: Published | None


class Pipeline:
    """The daemon's threads between its sources and its results.

    Args:
        sources: The ways in.
        policies: Policy of each source, by name.
        models: Models of each source, by name.
        outlet: Where results go.
        drops: Counts what is given up.
        on_end: Called, from its thread, with the name of a source that ended though nobody stopped it.
        alerts: By source and hash of the model, what tells of things to act on.
        sent_once: Sources whose published frames are never analysed again; files are, where their sidecars changed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Mapping[str, Policy],
        models: Mapping[str, ModelChoice],
        outlet: Outlet,
        drops: Drops,
        on_end: Callable[[str], None],
        alerts: Mapping[tuple[str, str], AlertWatch] | None = None,
        sent_once: Collection[str] = (),
    ) -> None:
        self._counts: dict[str, Counter[str]] = {source: Counter() for source in policies}
        self._policies = policies
        self._models = models
        self._outlet = outlet
        self._alerts = alerts or {}
        self._sent_once = sent_once
        self._on_end = on_end
        self._stop = Event()
        self._failures = Failures(outlet, drops, self._counts)
        self._drawing = Drawing(outlet, policies, drops, self._failures.report)
        self._alone: tuple[str, str] | None = None
        changed = Condition()
        self._inbox: Inbox[Frame | FocalSeries] = Inbox(policies, drops, changed=changed)
        # One frame of each source waits before an engine or disk that is busy; more would only be older.
        prepared: Inbox[Prepared] = Inbox(policies, drops, 1, changed)
        inferred: Inbox[Inferred] = Inbox(policies, drops, 1, changed)
        recognised: Inbox[Recognition] = Inbox(policies, drops, 1, changed)
        # What is published is never given up for what is newer.
        everything: dict[str, Policy] = dict.fromkeys(policies, "lossless")
        published: Inbox[_Out] = Inbox(everything, drops, 1, changed)
        self._stages: tuple[Stage[Any, Any], ...] = (
            Stage("prepare", self._prepare, self._inbox, prepared, self),
            Stage("infer", self._infer, prepared, inferred, self),
            Stage("decode", self._decode, inferred, recognised, self),
            Stage("publish", self._publish, recognised, published, self),
            Stage("file", self._file, published, None, self),
        )
        self._feeders = [Thread(target=self._feed, args=[source], name=source.name, daemon=True) for source in sources]

    def start(self) -> None:
        """Write the files that an earlier run left to be written; then begin to read, recognise and draw.

        Raises:
            OSError: They cannot be written.
        """
        if filed := self._outlet.file_what_was_left():
            log.info("results that an earlier run published have their files now: %d", filed)
        self._drawing.start()
        for stage in self._stages:
            stage.start()
        for feeder in self._feeders:
            feeder.start()

    def stop(self) -> None:
        """Finish the frames in work and soon the overlays; what waits to be taken up is left for the next start."""
        self._stop.set()
        for stage in self._stages:
            stage.prepare_to_stop()
        for stage in self._stages:
            stage.stop(finish=stage is not self._stages[0])
        self._drawing.stop()
        for thread in self._feeders:
            thread.join(_SECONDS_FOR_A_SOURCE_TO_STOP)
            if thread.is_alive():
                log.warning("%s: did not stop reading in time, and is left behind", thread.name)
        self._failures.close()

    @property
    def counts(self) -> Counter[str]:
        """Frames or series of all sources, as `counts_of` tells of one."""
        return sum(self._counts.values(), Counter())

    def counts_of(self, source: str) -> dict[str, int]:
        """Return how many frames or series are `analysed`, `failed`, and `skipped` because their results were there."""
        counts = self._counts[source]
        return {state: counts[state] for state in ("analysed", "failed", "skipped")}

    def waiting(self) -> dict[str, dict[str, int]]:
        """Return how many frames wait, by stage and source, those whose overlay is to be drawn among them."""
        return {stage.name: stage.waiting() for stage in self._stages} | {"draw": self._drawing.waiting()}

    def _feed(self, source: Source) -> None:
        """Pass on what a source yields; one that fails, though it should never, is started again after a pause."""
        pause_seconds = _SHORTEST_PAUSE_SECONDS
        while not self._stop.is_set():
            started = monotonic()
            try:
                for arrival in source.arrivals(self._stop):
                    if isinstance(arrival, Failure):
                        self._failures.report(arrival)
                    elif arrival:
                        self._inbox.put(Job(arrival, arrival.subject, _waited_ms(arrival)))
                break
            except Exception as error:
                self._failures.report(Failure(source.name, source.name, error))
            if monotonic() - started > _LONGEST_PAUSE_SECONDS:  # it worked for a while
                pause_seconds = _SHORTEST_PAUSE_SECONDS
            self._stop.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        if not self._stop.is_set():
            self._on_end(source.name)

    def _prepare(self, job: Job[Frame | FocalSeries]) -> Prepared | None:
        arrival = job.arrival
        if self._is_done(arrival):
            self._counts[arrival.source]["skipped"] += 1
            self._outlet.finish(arrival)
            return None
        if not self._wait_for_its_turn(arrival):
            return None
        self._outlet.begin(arrival)
        return self._recogniser_of(arrival).prepare(job.content)

    def _infer(self, job: Job[Prepared]) -> Inferred:
        return self._recogniser_of(job.arrival).infer(job.content)

    def _decode(self, job: Job[Inferred]) -> Recognition:
        return self._recogniser_of(job.arrival).decode(job.content)

    def _recogniser_of(self, arrival: Arrival) -> Recogniser:
        return self._models[arrival.source].recogniser_for(arrival.subject)

    def _publish(self, job: Job[Recognition]) -> "_Out":
        arrival = job.arrival
        latency_ms = {"wait": job.waited_ms, **job.content.latency_ms}
        recognition = replace(job.content, latency_ms=latency_ms)
        is_only_drawn = self._outlet.is_out(arrival)
        published = None if is_only_drawn else self._outlet.publish(arrival, recognition)
        self._counts[arrival.source]["analysed"] += 1
        log.info("%s", _log_line(arrival, recognition))
        try:
            watch = self._alerts.get((arrival.source, recognition.model_sha256))
            if watch and not is_only_drawn:  # else it was told when its table was published
                self._tell(watch.of(arrival, recognition), arrival.source)
        except Exception as error:  # its result is out, and must not come twice
            self._failures.report(Failure(arrival.source, arrival.origin, error))
        return _Out(recognition, published)

    def _file(self, job: Job["_Out"]) -> None:
        arrival, out = job.arrival, job.content
        try:
            if out.published is None:
                stem = self._outlet.files.stem_of(arrival)
            else:
                stem = self._outlet.file(arrival, out.published)
            if self._outlet.files.overlays:
                self._drawing.add(arrival, stem, out.recognition)
        except Exception as error:
            if isinstance(error, OSError) and self.is_mended_by_waiting(arrival, error):
                raise
            # Its result is out, and stays so without its files.
            self._failures.report(Failure(arrival.source, arrival.origin, error))
            if out.published is not None:
                with suppress(OSError):  # at worst the next start writes them
                    self._outlet.end_filing(arrival, out.published)
            self._outlet.finish(arrival)

    def _is_done(self, arrival: Arrival) -> bool:
        is_published = self._outlet.is_published(arrival)
        if arrival.source in self._sent_once:
            lacks_its_overlay = self._outlet.is_out(arrival) and not self._outlet.files.has_results(arrival)
            return is_published and not lacks_its_overlay
        return arrival.resumed and self._outlet.has_results(arrival)

    def _wait_for_its_turn(self, arrival: Arrival) -> bool:
        """Let a frame under which an earlier process may have died go its way alone; return whether it may begin.

        If the process dies again, it is known of what. Frames of a source that waits for its disk are nobody's company.
        """

        def is_free() -> bool:
            begun = {frame for frame in self._outlet.begun if not self._is_held(frame[0])}
            return not begun if self._outlet.is_suspect(arrival) else self._alone not in begun

        while not is_free():
            if self._stop.wait(_SECONDS_BETWEEN_LOOKS):
                return False
        if self._outlet.is_suspect(arrival):
            self._alone = (arrival.source, arrival.subject.frame_id)
        return True

    def _is_held(self, source: str) -> bool:
        return any(stage.holds(source) for stage in self._stages)

    def _tell(self, alerts: Iterable[Alert], source: str) -> None:
        for alert in alerts:
            log.warning("%s: %s: %s", source, alert.name, alert.sentence)
            self._outlet.write_alert(source, alert.as_event())

    def is_mended_by_waiting(self, arrival: Arrival, error: OSError) -> bool:
        """See `daemon.stage.Overseer`."""
        return self._policies[arrival.source] == "lossless" and error.errno not in _NOT_MENDED_BY_WAITING

    def give_up(self, arrival: Arrival, error: Exception) -> None:
        """See `daemon.stage.Overseer`."""
        failure = Failure(arrival.source, arrival.origin, error)
        try:
            if self._outlet.is_out(arrival):  # its table is published and stays so; it gets no overlay
                self._failures.report(failure)
                self._outlet.finish(arrival)
            else:
                self._failures.report(failure, arrival)
        except Exception:
            log.exception("%s: %s could not be given up", arrival.source, arrival.subject.name)

    def drop(self, arrival: Arrival) -> None:
        """See `daemon.stage.Overseer`."""
        try:
            self._outlet.drop(arrival)
        except Exception as error:
            unforeseen = None if is_foreseen(error) else error
            name = arrival.subject.name
            log.error("%s: %s stays in the ledger: %s", arrival.source, name, explain(error), exc_info=unforeseen)


def _waited_ms(arrival: Arrival) -> float:
    """How long a frame that came while we run was there before it was handed over, reading it apart."""
    if arrival.resumed:
        return 0.0
    received_at = max(frame.received_at for frame in arrival.subject.frames)
    return max(0.0, 1e3 * (datetime.now(UTC) - received_at).total_seconds() - arrival.read_ms)


def _log_line(arrival: Arrival, recognition: Recognition) -> str:
    warnings = "".join(f"; warning: {warning}" for warning in recognition.warnings)
    milliseconds = sum(recognition.latency_ms.values())
    return (
        f"{arrival.source}: {arrival.subject.name}: {found_in_words(recognition.table)} "
        f"in {milliseconds:.0f} ms{warnings}"
    )
