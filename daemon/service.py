"""The life of `hrtemd run`: load, warm up, run until told to stop, finish the frame in work."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue

from daemon.config import Configuration
from daemon.config import DirectorySource as DirectorySettings
from daemon.drops import Drops
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.readers import ReadLimits
from daemon.recognition.package import Manifest, ModelPackage, find_model
from daemon.recognition.recogniser import Recogniser
from daemon.series.grouping import GroupedSource, Grouping
from daemon.series.membership import rules_for
from daemon.sources.directory import DirectorySource
from daemon.sources.source import Source

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
    """
    happenings: SimpleQueue[signal.Signals | str] = SimpleQueue()  # a request to stop, or a source that ended
    with _signals_into(happenings):
        recognisers = _load_recognisers(configuration, load_recogniser)
        files = FilePublisher(configuration.publish.files.directory, overlays=configuration.publish.files.overlays)
        drops = Drops()
        sources = [
            _open_source(source, recognisers[source.model].manifest, configuration.limits.for_reading(), files, drops)
            for source in configuration.sources
        ]
        pipeline = Pipeline(
            sources,
            {source.name: source.policy for source in configuration.sources},
            {source.name: recognisers[source.model] for source in configuration.sources},
            files,
            drops,
            on_end=happenings.put,
        )
        pipeline.start()
        log.info("ready; results go to %s", files.directory)
        running = {source.name for source in sources}
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


def _open_source(
    settings: DirectorySettings, manifest: Manifest, limits: ReadLimits, files: FilePublisher, drops: Drops
) -> Source:
    """Open a way in; for a model that takes focal series, one that groups them."""
    is_grouped = manifest.input_frames > 1
    source = DirectorySource(
        settings.name,
        settings.path,
        settings.policy,
        settings.pixel_size_angstrom,
        # Only a whole series can be told from its results, so each file is read to find its series.
        (lambda *_: False) if is_grouped else partial(files.has_newer_results, settings.name),
        limits,
        drops,
    )
    if not is_grouped:
        return source
    rules = rules_for("live", settings.series_pattern)
    grouping = Grouping(settings.name, rules, manifest.ranges, drops, settings.series_timeout_seconds)
    return GroupedSource(source, grouping)


def _load_recognisers(
    configuration: Configuration, load_recogniser: Callable[[ModelPackage, str], Recogniser]
) -> dict[str, Recogniser]:
    """Load and warm up one recogniser a model; sources of the same model share it."""
    recognisers: dict[str, Recogniser] = {}
    for model in {source.model: None for source in configuration.sources}:
        package = find_model(model)
        recogniser = load_recogniser(package, configuration.recognition.backend)
        recogniser.warm_up(WARM_UP_SHAPE, package.manifest.sampling_angstrom)
        log.info("model %s is warm on %s", package.manifest.name, recogniser.backend)
        recognisers[model] = recogniser
    return recognisers


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
