"""The daemon's own pipeline, run once over files: what `hrtemd process` does."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from daemon.atoms import counts_by_species, found_in_words
from daemon.errors import explain, is_foreseen
from daemon.frames import FocalSeries, Frame
from daemon.publish.files import FilePublisher
from daemon.publish.header import result_table
from daemon.readers import DEFAULT_LIMITS, ReadLimits
from daemon.recognition.recogniser import Recogniser, Recognition
from daemon.series.grouping import Grouping
from daemon.sources.image_file import arrivals_from
from daemon.sources.source import Arrival, Failure

SOURCE = "files"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What became of a frame or series, or of a file that could not be read: a row of `summary.json`.

    Attributes:
        file: As it was named; of a series, the file of its first frame.
        stem: Name that the result files share, below the output directory; null where there are none.
        frame_id: See `daemon.frames`; null where there is no frame or series.
        model: Name of the model.
        pixel_size_angstrom: Å per pixel of the acquired frame.
        calibration_source: Where the pixel size came from.
        count: Rows of the atom table; null, never 0, for what could not be analysed.
        counts_by_species: The same by species.
        found: The same in words, such as `53 columns, 205 atoms counted`.
        latency_ms: From the frame or series being in memory to its atom table being ready.
        latency_ms_by_stage: `read`, `prepare`, `infer`, `decode`, `write`, `draw`.
        warnings: Why the atoms may deserve less trust than their probabilities say, or why there is no overlay.
        error: Why there is no result, or null.
        complete: Whether all files of the result were written.
    """

    file: str
    model: str
    stem: str | None = None
    frame_id: str | None = None
    pixel_size_angstrom: float | None = None
    calibration_source: str | None = None
    count: int | None = None
    counts_by_species: dict[str, int] | None = None
    found: str | None = None
    latency_ms: float | None = None
    latency_ms_by_stage: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    complete: bool = True


class Batch:
    """Analyses files one after the other.

    Args:
        recogniser: Of the model wanted.
        files: Where results go.
        pixel_size_angstrom: Å per pixel; beats what files and sidecars say.
        limits: Beyond them a file is refused.
        grouping: Makes focal series of the frames, for a model that takes them.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        files: FilePublisher,
        pixel_size_angstrom: float | None = None,
        limits: ReadLimits = DEFAULT_LIMITS,
        grouping: Grouping | None = None,
    ) -> None:
        self._recogniser = recogniser
        self._files = files
        self._pixel_size_angstrom = pixel_size_angstrom
        self._limits = limits
        self._grouping = grouping
        self._named: dict[str, str] = {}
        self._warm: set[tuple[int, ...]] = set()

    def process(self, paths: Iterable[Path]) -> Iterator[Report]:
        """Yield a report for each frame or series as its results are written; a bad file never stops the others."""
        for outcome in self._subjects(self._arrivals(paths)):
            file = self._named.get(outcome.origin, outcome.origin)
            if isinstance(outcome, Failure):
                yield self._failed(file, None, outcome.error)
            else:
                yield self._process(file, outcome)

    def _arrivals(self, paths: Iterable[Path]) -> Iterator[Arrival | Failure]:
        for path in paths:
            try:
                for arrival in arrivals_from(
                    path, source=SOURCE, pixel_size_angstrom=self._pixel_size_angstrom, limits=self._limits
                ):
                    self._named[arrival.origin] = str(path)
                    yield arrival
            except Exception as error:
                yield Failure(SOURCE, str(path), error)

    def _subjects(self, arrivals: Iterator[Arrival | Failure]) -> Iterator[Arrival | Failure]:
        if self._grouping is None:
            yield from arrivals
        else:
            yield from self._grouping.group(arrivals)
            yield from self._grouping.close()

    def _process(self, file: str, arrival: Arrival) -> Report:
        try:
            self._warm_up(arrival.subject)
            started = perf_counter()
            recognition = self._recogniser.recognise(arrival.subject)
            recognised = perf_counter()
            stem = self._files.write_tables(arrival, result_table(arrival, recognition))
        except Exception as error:
            return self._failed(file, arrival.subject.frame_id, error)
        written = perf_counter()
        problem = self._draw(file, stem, recognition) if self._files.overlays else None
        drawn = perf_counter()
        return Report(
            file=file,
            model=recognition.model,
            stem=stem.relative_to(self._files.directory).as_posix(),
            frame_id=arrival.subject.frame_id,
            pixel_size_angstrom=recognition.calibration.pixel_size_angstrom,
            calibration_source=str(recognition.calibration.source),
            count=recognition.table.num_rows,
            counts_by_species=counts_by_species(recognition.table),
            found=found_in_words(recognition.table),
            latency_ms=1e3 * (recognised - started),
            latency_ms_by_stage={
                "read": arrival.read_ms,
                **recognition.latency_ms,
                "write": 1e3 * (written - recognised),
                "draw": 1e3 * (drawn - written),
            },
            warnings=[*recognition.warnings, *([problem] if problem else [])],
            complete=problem is None,
        )

    def _draw(self, file: str, stem: Path, recognition: Recognition) -> str | None:
        """Write an overlay, or return why there is none: its atoms are good all the same."""
        try:
            self._files.write_overlay(stem, recognition)
        except Exception as error:
            self._log_unforeseen(file, error)
            return f"There is no overlay: {explain(error)}"
        return None

    def _warm_up(self, subject: Frame | FocalSeries) -> None:
        """Recognise the first subject of each network input once untimed, so that it does not pay for all."""
        kind = self._input_shape(subject.reference)
        if kind not in self._warm:
            self._recogniser.recognise(subject)
            self._warm.add(kind)

    def _input_shape(self, frame: Frame) -> tuple[int, ...]:
        """Return the shape in which the network sees a frame, which is what an engine compiles for."""
        manifest = self._recogniser.manifest
        factor = frame.calibration.pixel_size_angstrom / manifest.sampling_angstrom if frame.calibration else 1.0
        multiple = manifest.input_multiple
        return tuple(-(-round(extent * factor) // multiple) * multiple for extent in frame.pixels.shape)

    def _failed(self, file: str, frame_id: str | None, error: Exception) -> Report:
        self._log_unforeseen(file, error)
        name = self._recogniser.manifest.name
        return Report(file, name, frame_id=frame_id, error=explain(error), complete=False)

    def _log_unforeseen(self, file: str, error: Exception) -> None:
        if not is_foreseen(error):
            log.error("%s: unexpected error", file, exc_info=error)
