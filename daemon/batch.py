"""The daemon's own pipeline, run once over files: what `hrtemd process` does."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from daemon.atoms import counts_by_species
from daemon.frames import Calibration, Frame
from daemon.pipeline import analyse, explain, is_foreseen
from daemon.publish.files import FilePublisher
from daemon.recognition.recogniser import Recogniser
from daemon.sources.image_file import arrivals_from
from daemon.sources.source import Arrival, Failure

SOURCE = "files"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What became of a frame, or of a file that could not be read: a row of `summary.json`.

    Attributes:
        file: As it was named.
        stem: Name that the result files share, below the output directory; null where there are none.
        frame_id: See `daemon.frames.Frame`; null where there is no frame.
        model: Name of the model.
        pixel_size_angstrom: Å per pixel of the acquired frame.
        calibration_source: Where the pixel size came from.
        count: Rows of the atom table; null, never 0, for what could not be analysed.
        counts_by_species: The same by species.
        latency_ms: From the frame being in memory to its atom table being ready.
        latency_ms_by_stage: `read`, `prepare`, `infer`, `decode`, `write`, `draw`.
        warnings: Why the atoms may deserve less trust than their probabilities say.
        error: Why there is no result, or null.
    """

    file: str
    model: str
    stem: str | None = None
    frame_id: str | None = None
    pixel_size_angstrom: float | None = None
    calibration_source: str | None = None
    count: int | None = None
    counts_by_species: dict[str, int] | None = None
    latency_ms: float | None = None
    latency_ms_by_stage: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


class Batch:
    """Analyses files one after the other.

    Args:
        recogniser: Of the model wanted.
        files: Where results go.
        pixel_size_angstrom: Å per pixel; beats what files and sidecars say.
    """

    def __init__(self, recogniser: Recogniser, files: FilePublisher, pixel_size_angstrom: float | None = None) -> None:
        self._recogniser = recogniser
        self._files = files
        self._pixel_size_angstrom = pixel_size_angstrom
        self._warm: set[tuple[tuple[int, ...], Calibration | None]] = set()

    def process(self, paths: Iterable[Path]) -> Iterator[Report]:
        """Yield a report for each frame as its results are written; a bad file never stops the others."""
        for path in paths:
            try:
                for arrival in arrivals_from(path, source=SOURCE, pixel_size_angstrom=self._pixel_size_angstrom):
                    if isinstance(arrival, Failure):
                        yield self._failed(path, None, arrival.error)
                    else:
                        yield self._process_frame(path, arrival)
            except Exception as error:
                yield self._failed(path, None, error)

    def _process_frame(self, path: Path, arrival: Arrival) -> Report:
        try:
            self._warm_up(arrival.frame)
            analysed = analyse(arrival, self._recogniser, self._files)
            started = perf_counter()
            if self._files.overlays:
                self._files.write_overlay(analysed.stem, analysed.recognition)
            draw_ms = 1e3 * (perf_counter() - started)
        except Exception as error:
            return self._failed(path, arrival.frame.frame_id, error)
        recognition = analysed.recognition
        return Report(
            file=str(path),
            model=recognition.model,
            stem=analysed.stem.relative_to(self._files.directory).as_posix(),
            frame_id=recognition.frame.frame_id,
            pixel_size_angstrom=recognition.calibration.pixel_size_angstrom,
            calibration_source=str(recognition.calibration.source),
            count=recognition.table.num_rows,
            counts_by_species=counts_by_species(recognition.table),
            latency_ms=analysed.latency_ms,
            latency_ms_by_stage={
                "read": arrival.read_ms,
                **recognition.latency_ms,
                "write": analysed.write_ms,
                "draw": draw_ms,
            },
            warnings=recognition.warnings,
        )

    def _warm_up(self, frame: Frame) -> None:
        """Recognise the first frame of each shape and pixel size once untimed, so that it does not pay for all."""
        kind = (frame.pixels.shape, frame.calibration)
        if kind not in self._warm:
            self._recogniser.recognise(frame)
            self._warm.add(kind)

    def _failed(self, path: Path, frame_id: str | None, error: Exception) -> Report:
        if not is_foreseen(error):
            log.error("%s: unexpected error", path, exc_info=error)
        return Report(str(path), self._recogniser.manifest.name, frame_id=frame_id, error=explain(error))
