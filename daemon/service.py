"""The life of `hrtemd run`: load, warm up, run until told to stop, finish the frame in work."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any

from daemon.alerts import AlertWatch
from daemon.averaging import AveragedSource
from daemon.config import Configuration, Limits, SourceSettings
from daemon.config import DirectorySource as DirectorySettings
from daemon.config import ZeroMQSource as ZeroMQSettings
from daemon.drops import Drops
from daemon.errors import explain
from daemon.frames import Frame
from daemon.ledger import Ledger, LedgerLimits, alone_with
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.publish.retention import Retention, RetentionLimits
from daemon.publish.zeromq import ZeroMQPublisher
from daemon.recognition.choice import ModelChoice, Offer
from daemon.recognition.package import ModelPackage, StatedRanges, find_model
from daemon.recognition.recogniser import Recogniser
from daemon.series.grouping import GroupedSource, Grouping
from daemon.series.membership import rules_for
from daemon.sources.connection import Place
from daemon.sources.directory import DirectorySource
from daemon.sources.formats import FORMATS
from daemon.sources.source import Source
from daemon.sources.spool import Spool
from daemon.sources.zeromq import ZeroMQSource
from daemon.status import Watched, status_of

WARM_UP_SHAPE = (1024, 1024)

log = logging.getLogger(__name__)


def run_daemon(
    configuration: Configuration, load_recogniser: Callable[[ModelPackage, str], Recogniser] = Recogniser
) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        configuration: Verified (see `daemon.config.load_configuration`).
        load_recogniser: Makes a recogniser for a model on a backend.

    Returns:
        The exit status: 0 after a request to stop, 1 where no source is left.

    Raises:
        ModelError: A model cannot be loaded.
        BackendError: No engine can run it.
        HrtemdError: Another daemon works with the same ledger.
        OSError: The ledger cannot be made or written, or files that an earlier run left to be written cannot.
    """
    happenings: SimpleQueue[signal.Signals | str] = SimpleQueue()  # a request to stop, or a source that ended
    with _signals_into(happenings), ExitStack() as closing:
        closing.enter_context(alone_with(configuration.ledger_path))
        models = _load_models(configuration, load_recogniser)
        files = FilePublisher(configuration.publish.files.directory, overlays=configuration.publish.files.overlays)
        limits = LedgerLimits(configuration.ledger.bytes, configuration.ledger.age_days)
        ledger = closing.enter_context(contextlib.closing(Ledger(configuration.ledger_path, limits)))
        _sweep(files)
        drops, started_at = Drops(), datetime.now(UTC)
        is_done = partial(_is_done, files, ledger)
        origins = {
            source.name: _open_source(source, models[source.name].takes_series, configuration.limits, is_done, drops)
            for source in configuration.sources
        }
        watched = {name: Watched(origin) for name, origin in origins.items()}
        from_wire = {name: origin for name, origin in origins.items() if isinstance(origin, ZeroMQSource)}
        broadcast = _broadcast(configuration, ledger, lambda: status_of(started_at, watched, models, pipeline, drops))
        if broadcast is not None:
            closing.callback(broadcast.close)
        finish = {name: origin.finished for name, origin in from_wire.items()}
        outlet = Outlet(files, ledger, broadcast, finish)
        closing.callback(outlet.close)
        pipeline = Pipeline(
            [
                _prepared(source, watched[source.name], models[source.name], drops, finish.get(source.name))
                for source in configuration.sources
            ],
            {source.name: source.policy for source in configuration.sources},
            models,
            outlet,
            drops,
            on_end=happenings.put,
            alerts={
                (source, recogniser.manifest.onnx_sha256): AlertWatch(configuration.alerts, recogniser.manifest)
                for source, choice in models.items()
                for recogniser in choice.recognisers
            },
            sent_once=from_wire,
        )
        _keep_room(configuration, ledger, closing)
        if broadcast is not None:
            broadcast.start()
            log.info("results are sent from %s, and again from %s", broadcast.endpoint, broadcast.replay_endpoint)
        pipeline.start()
        log.info("ready; results go to %s", files.directory)
        running = set(origins)
        while running and not isinstance(happening := happenings.get(), signal.Signals):
            log.error("%s: ended; %d sources are left", happening, len(running) - 1)
            running.remove(happening)
        log.info("stopping")
        pipeline.stop()
        counts = pipeline.counts
        log.info(
            "stopped: %d analysed, %d failed, %d had their results already; %s",
            counts["analysed"], counts["failed"], counts["skipped"], str(drops) or "none dropped",
        )  # fmt: skip
        return 0 if running else 1


def _sweep(files: FilePublisher) -> None:
    """Tidy up after a run that was killed; the daemon runs without that too."""
    try:
        files.delete_unfinished()
    except OSError as error:
        log.warning(
            "%s: what an earlier run left half written there is not deleted: %s", files.directory, explain(error)
        )


def _open_source(
    settings: SourceSettings,
    in_series: bool,
    limits: Limits,
    is_done: Callable[[str, Path, PurePosixPath, float], bool],
    drops: Drops,
) -> DirectorySource | ZeroMQSource:
    """Open a way in."""
    if isinstance(settings, ZeroMQSettings):
        return ZeroMQSource(
            settings.name,
            Place(settings.endpoint, settings.socket, settings.bind, settings.keys),
            FORMATS[settings.type].decoder(),
            settings.policy,
            settings.pixel_size_angstrom,
            limits.for_reading(),
            limits.message_bytes,
            drops,
            Spool(settings.spool / settings.name, limits.spool_bytes) if settings.spool else None,
        )
    assert isinstance(settings, DirectorySettings)
    # Only a whole series can be told from its results, so each file is read to find its series.
    return DirectorySource(
        settings.name,
        settings.path,
        settings.policy,
        settings.pixel_size_angstrom,
        (lambda *_: False) if in_series else partial(is_done, settings.name),
        limits.for_reading(),
        drops,
        include=settings.include,
        exclude=settings.exclude,
        in_series=in_series,
    )


def _is_done(
    files: FilePublisher, ledger: Ledger, source: str, file: Path, folder: PurePosixPath, changed_at: float
) -> bool:
    """Whether a file of one frame has its results, published ones, without reading it."""
    frame_id = files.newer_result(source, file, folder, changed_at)
    return frame_id is not None and ledger.state(source, frame_id) != "received"


def _prepared(
    settings: SourceSettings,
    source: Source,
    models: ModelChoice,
    drops: Drops,
    finish: Callable[[str], None] | None,
) -> Source:
    """Have frames grouped for models that take focal series, or averaged where that is wanted."""
    if models.takes_series:
        rules = rules_for("live", settings.series_pattern)

        def ranges(frame: Frame) -> StatedRanges:
            return models.recogniser_for(frame).manifest.ranges

        grouping = Grouping(settings.name, rules, ranges, drops, settings.series_timeout_seconds, finish)
        return GroupedSource(source, grouping)
    if settings.average_frames > 1:
        return AveragedSource(source, settings.average_frames, settings.average_weights, drops)
    return source


def _broadcast(
    configuration: Configuration, ledger: Ledger, status: Callable[[], dict[str, Any]]
) -> ZeroMQPublisher | None:
    """Open the endpoints for programs that listen, where there are any."""
    settings = configuration.publish.zeromq
    if settings is None:
        return None
    results = configuration.publish.files.directory
    return ZeroMQPublisher(settings.endpoint, settings.replay_endpoint, ledger, results, status, settings.keys)


def _keep_room(configuration: Configuration, ledger: Ledger, closing: ExitStack) -> None:
    """Have old results deleted, where a limit is set."""
    limits = RetentionLimits(**configuration.retention.model_dump())
    if limits == RetentionLimits():
        return

    def is_unpublished(source: str, frame_id: str) -> bool:
        return ledger.state(source, frame_id) == "received"

    retention = Retention(configuration.publish.files.directory, limits, is_unpublished)
    retention.start()
    closing.callback(retention.stop)


def _load_models(
    configuration: Configuration, load_recogniser: Callable[[ModelPackage, str], Recogniser]
) -> dict[str, ModelChoice]:
    """Load and warm up the models of each source; sources of the same model share it."""
    recognisers: dict[str, Recogniser] = {}
    for model in {model: None for source in configuration.sources for model in source.all_models}:
        package = find_model(model)
        recogniser = load_recogniser(package, configuration.recognition.backend)
        recogniser.warm_up(WARM_UP_SHAPE, package.manifest.sampling_angstrom)
        log.info("model %s is warm on %s", package.manifest.name, recogniser.backend)
        recognisers[model] = recogniser
    return {
        source.name: ModelChoice(
            *(Offer(recognisers[choice.model], choice.conditions) for choice in source.models),
            *([Offer(recognisers[source.model])] if source.model else []),
        )
        for source in configuration.sources
    }


@contextmanager
def _signals_into(happenings: SimpleQueue[signal.Signals | str]) -> Iterator[None]:
    """Put SIGTERM and SIGINT into a queue; the second one ends the process as it would without us."""
    defaults = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in defaults.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        restore()
        happenings.put(signal.Signals(number))  # the one queue whose put() is safe in a signal handler

    for number in defaults:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
