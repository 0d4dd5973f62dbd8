"""Frame or focal series in, atom table out: in three stages, or all at once.

While one frame is in the engine, the next may be prepared and the one before decoded, each in a thread of its own.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.errors import CalibrationError, FrameError, ModelError
from daemon.frames import Acquisition, Calibration, CalibrationSource, FocalSeries, Frame
from daemon.recognition.backends import open_session
from daemon.recognition.calibrate import calibrate
from daemon.recognition.judgement import judge
from daemon.recognition.package import Manifest, ModelPackage
from daemon.recognition.peaks import Peaks, find_peaks
from daemon.recognition.preprocess import LEAST_FIELD_ANGSTROM, PreparedFrame, prepare
from daemon.recognition.scale import estimate_graphene_pixel_size
from daemon.recognition.series_input import despeckled, prepare_series
from daemon.recognition.tabulate import tabulate
from daemon.recognition.tiling import TILE_PIXELS, run_tiled
from daemon.series.alignment import measure_drift
from daemon.series.triplets import choice_made

LOWEST_RAW_PROBABILITY = 0.02
"""Candidates below this are dropped before calibration; no calibration lifts them to anything of use."""

MAX_INPUT_PIXELS = 16384**2
"""Of the network's input: a gigabyte before the first layer."""


@dataclass(frozen=True)
class Prepared:
    """What the engine needs of a frame or focal series.

    Attributes:
        subject: What is analysed, a series with its drift.
        calibration: The pixel size used: the frame's own, or one estimated from its lattice.
        network_input: The network's input, and the way back to the acquired frame.
        warnings: See `Recognition`.
        latency_ms: See `Recognition`.
    """

    subject: Frame | FocalSeries
    calibration: Calibration
    network_input: PreparedFrame
    warnings: list[str]
    latency_ms: dict[str, float]


@dataclass(frozen=True)
class Inferred:
    """What the network says of a frame or focal series.

    Attributes:
        prepared: What it was asked.
        heads: Its answer, shape (channels, rows, columns).
        latency_ms: See `Recognition`.
    """

    prepared: Prepared
    heads: NDArray[np.float32]
    latency_ms: dict[str, float]


@dataclass(frozen=True)
class Recognition:
    """What was found in one frame or focal series.

    Attributes:
        frame: The frame as acquired; of a series the one acquired first, which positions refer to.
        calibration: The pixel size used: the frame's own, or one estimated from its lattice.
        table: The atom table (see `daemon.atoms`).
        warnings: Sentences for the operator: why these atoms may deserve less trust than their probabilities say.
        latency_ms: Milliseconds by stage: `align` (of a series), `prepare`, `infer`, `decode`; in the daemon `wait`,
            before and between them, too.
        model: Name of the model.
        model_sha256: Hash of its network.
        backend: Engine, device and precision, such as `openvino CPU bf16`.
        series: The series with its drift; None for a single frame.
        peaks: What the table was made of, row by row: also what the network thinks of the answers it did not choose.
            None where no network was asked.
    """

    frame: Frame
    calibration: Calibration
    table: pa.Table
    warnings: list[str]
    latency_ms: dict[str, float]
    model: str
    model_sha256: str
    backend: str
    series: FocalSeries | None = None
    peaks: Peaks | None = None

    @property
    def subject(self) -> Frame | FocalSeries:
        """What was analysed, as a whole."""
        return self.series or self.frame


class Recogniser:
    """A model, ready to run. Its engine takes one frame at a time; the other two stages may go on beside it.

    Args:
        package: The model.
        backend: A name of `daemon.recognition.backends.ENGINES`, or `auto`.
        tile_pixels: Largest side of the network's input that is run in one piece.

    Raises:
        BackendError: No engine can run the model.
        ModelError: The tiles are too small for the model.
    """

    def __init__(self, package: ModelPackage, backend: str = "auto", tile_pixels: int = TILE_PIXELS) -> None:
        self.manifest = package.manifest
        if tile_pixels <= 2 * (self.manifest.receptive_field_pixels + self.manifest.input_multiple):
            raise ModelError(f"Tiles of {tile_pixels} pixels are smaller than what {self.manifest.name} sees at once.")
        self._session = open_session(package.onnx_path, backend)
        self._tile_pixels = tile_pixels

    @property
    def backend(self) -> str:
        """Engine, device and precision."""
        return self._session.description

    def warm_up(self, shape: tuple[int, int], pixel_size_angstrom: float) -> None:
        """Recognise noise once, so that the first real frame of this shape does not pay for compilation and imports."""
        noise = np.random.default_rng(0).poisson(100, shape).astype(np.float32)
        frame = Frame(noise, "", "warm-up", Calibration(pixel_size_angstrom, CalibrationSource.OVERRIDE))
        if self.manifest.input_frames == 1:
            self.recognise(frame)
        else:
            over, middle, under = (replace(frame, acquisition=Acquisition(value)) for value in (-120.0, -80.0, -40.0))
            self.recognise(FocalSeries((over, middle, under), 0, "", "warm-up"))

    def recognise(self, subject: Frame | FocalSeries) -> Recognition:
        """Find the sites of a frame or of a focal series, whichever the model takes.

        Raises:
            ModelError: The model takes the other.
            FrameError: A frame is blank, or so finely or coarsely sampled that it cannot be resampled; or the frames of
                a series share no field.
            CalibrationError: It has no pixel size and its lattice does not tell one.
            BackendError: The engine failed.
        """
        return self.decode(self.infer(self.prepare(subject)))

    def prepare(self, subject: Frame | FocalSeries) -> Prepared:
        """Align a series, and bring frames to the network's sampling and contrast; any thread may.

        Raises:
            HrtemdError: See `recognise`.
        """
        self._check_kind(subject)
        latency_ms: dict[str, float] = {}
        frame = subject.reference
        warnings: list[str] = []
        with _timed(latency_ms, "prepare"):
            calibration = frame.calibration or self._estimate(frame)
            _check_size(frame.pixels.shape, calibration.pixel_size_angstrom, self.manifest)
        if isinstance(subject, FocalSeries):
            # Median filters need no interpreter, so they take none of the time of the drift's measurement.
            with ThreadPoolExecutor(1) as beside, _timed(latency_ms, "align"):
                images = beside.submit(despeckled, [frame.pixels for frame in subject.frames])
                warnings += choice_made(subject)
                subject, doubts = _aligned(subject, calibration.pixel_size_angstrom)
                warnings += doubts
            with _timed(latency_ms, "prepare"):
                network_input: PreparedFrame = self._series_input(subject, images.result(), calibration)
        else:
            warnings += subject.average.warnings if subject.average else []
            with _timed(latency_ms, "prepare"):
                network_input = prepare(
                    subject.pixels, calibration.pixel_size_angstrom, self.manifest.sampling_angstrom
                )
        return Prepared(subject, calibration, network_input, warnings, latency_ms)

    def infer(self, prepared: Prepared) -> Inferred:
        """Ask the network; by one thread at a time.

        Raises:
            BackendError: The engine failed.
        """
        latency_ms = dict(prepared.latency_ms)
        manifest = self.manifest
        with _timed(latency_ms, "infer"):
            heads = run_tiled(
                self._session,
                prepared.network_input.image,
                manifest.stride,
                manifest.input_multiple,
                manifest.receptive_field_pixels,
                self._tile_pixels,
            )
        return Inferred(prepared, heads, latency_ms)

    def decode(self, inferred: Inferred) -> Recognition:
        """Make an atom table of the network's answer, and judge it; any thread may."""
        latency_ms = dict(inferred.latency_ms)
        prepared = inferred.prepared
        subject, calibration = prepared.subject, prepared.calibration
        with _timed(latency_ms, "decode"):
            peaks = calibrate(self._find(inferred), calibration.pixel_size_angstrom, self.manifest)
            table = tabulate(peaks, calibration.pixel_size_angstrom, self.manifest)
            warnings = prepared.warnings + judge(subject, calibration, peaks, self.manifest)
        return Recognition(
            frame=subject.reference,
            calibration=calibration,
            table=table,
            peaks=peaks,
            warnings=warnings,
            latency_ms=latency_ms,
            model=self.manifest.name,
            model_sha256=self.manifest.onnx_sha256,
            backend=self.backend,
            series=subject if isinstance(subject, FocalSeries) else None,
        )

    def _check_kind(self, subject: Frame | FocalSeries) -> None:
        name = self.manifest.name
        if isinstance(subject, FocalSeries) and self.manifest.input_frames == 1:
            raise ModelError(
                f"{subject.name} is a focal series and the model {name} takes single frames; choose a model for "
                "series, or have the frames analysed one by one."
            )
        if isinstance(subject, Frame) and self.manifest.input_frames > 1:
            raise ModelError(
                f"{subject.name} is a single frame and the model {name} takes focal series of "
                f"{self.manifest.input_frames} frames; choose a model for single frames, or say which frames belong "
                "together."
            )

    def _estimate(self, frame: Frame) -> Calibration:
        if self.manifest.specimen != "graphene":
            raise CalibrationError(
                f"{frame.name} has no pixel size, and the model {self.manifest.name} cannot tell it from the lattice. "
                "Give it as pixel_size_angstrom in config.toml or in a .json file beside the image, of the same name, "
                "or to `hrtemd process` as --pixel-size."
            )
        return Calibration(estimate_graphene_pixel_size(frame.pixels), CalibrationSource.ESTIMATED)

    def _find(self, inferred: Inferred) -> Peaks:
        """Peaks, positions and sigma in acquired pixels, before calibration."""
        manifest, network_input = self.manifest, inferred.prepared.network_input
        peaks = find_peaks(inferred.heads, manifest.stride, LOWEST_RAW_PROBABILITY, manifest.deepest_column)
        return replace(
            peaks,
            positions=network_input.to_acquired(peaks.positions).astype(np.float32),
            sigma=peaks.sigma * np.float32(np.mean(network_input.scale)),
        )

    def _series_input(
        self, series: FocalSeries, images: list[NDArray[np.float32]], calibration: Calibration
    ) -> PreparedFrame:
        assert series.drift_angstrom is not None
        return prepare_series(
            images,
            calibration.pixel_size_angstrom,
            self.manifest.sampling_angstrom,
            series.drift_angstrom,
            series.defocus_angstrom if self.manifest.told_defocus else None,
        )


def _aligned(series: FocalSeries, pixel_size_angstrom: float) -> tuple[FocalSeries, list[str]]:
    """A series with its drift, measured where it is not known, and warnings where that is doubtful."""
    if series.drift_angstrom is not None:
        return series, []
    drift = measure_drift(series, pixel_size_angstrom)
    return replace(series, drift_angstrom=drift.drift_angstrom), drift.warnings


def _check_size(shape: tuple[int, ...], pixel_size_angstrom: float, manifest: Manifest) -> None:
    height, width = (extent * pixel_size_angstrom for extent in shape)
    extent = f"at {pixel_size_angstrom:g} Å per pixel the frame covers {width:.0f} × {height:.0f} Å"
    if min(height, width) < LEAST_FIELD_ANGSTROM:
        raise FrameError(f"{extent}, too little to hold a lattice; check the pixel size.")
    if height * width > MAX_INPUT_PIXELS * manifest.sampling_angstrom**2:
        raise FrameError(f"{extent}, too much to be seen atom by atom; check the pixel size.")


@contextmanager
def _timed(latency_ms: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        latency_ms[stage] = latency_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1e3
