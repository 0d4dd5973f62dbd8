"""Frame in, atom table out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.atoms import atom_table
from daemon.errors import CalibrationError, FrameError, ModelError
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.backends import open_session
from daemon.recognition.judgement import judge
from daemon.recognition.package import Manifest, ModelPackage
from daemon.recognition.peaks import Peaks, find_peaks
from daemon.recognition.preprocess import prepare
from daemon.recognition.scale import estimate_graphene_pixel_size
from daemon.recognition.tiling import TILE_PIXELS, run_tiled

LOWEST_RAW_PROBABILITY = 0.02
"""Candidates below this are dropped before calibration; no calibration lifts them to anything of use."""

LEAST_FIELD_ANGSTROM = 5.0

MAX_INPUT_PIXELS = 16384**2
"""Of the network's input: a gigabyte before the first layer."""


@dataclass(frozen=True)
class Recognition:
    """What was found in one frame.

    Attributes:
        frame: The frame as acquired.
        calibration: The pixel size used: the frame's own, or one estimated from its lattice.
        table: The atom table (see `daemon.atoms`).
        warnings: Sentences for the operator: why these atoms may deserve less trust than their probabilities say.
        latency_ms: Milliseconds by stage: `prepare`, `infer`, `decode`.
        model: Name of the model.
        model_sha256: Hash of its network.
        backend: Engine, device and precision, such as `openvino CPU bf16`.
    """

    frame: Frame
    calibration: Calibration
    table: pa.Table
    warnings: list[str]
    latency_ms: dict[str, float]
    model: str
    model_sha256: str
    backend: str


class Recogniser:
    """A model, ready to run. Not to be used by two threads at once.

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
        self.recognise(Frame(noise, "", "warm-up", Calibration(pixel_size_angstrom, CalibrationSource.OVERRIDE)))

    def recognise(self, frame: Frame) -> Recognition:
        """Find the sites of a frame.

        Raises:
            FrameError: The frame is blank, or so finely or coarsely sampled that it cannot be resampled.
            CalibrationError: It has no pixel size and its lattice does not tell one.
            BackendError: The engine failed.
        """
        latency_ms: dict[str, float] = {}
        with _timed(latency_ms, "prepare"):
            calibration = frame.calibration or self._estimate(frame)
        peaks = self._run(frame.pixels, calibration.pixel_size_angstrom, latency_ms)
        with _timed(latency_ms, "decode"):
            peaks = _calibrate(peaks, calibration.pixel_size_angstrom, self.manifest)
            table = _table(peaks, calibration.pixel_size_angstrom, self.manifest)
            warnings = judge(frame, calibration, peaks, self.manifest)
        return Recognition(
            frame=frame,
            calibration=calibration,
            table=table,
            warnings=warnings,
            latency_ms=latency_ms,
            model=self.manifest.name,
            model_sha256=self.manifest.onnx_sha256,
            backend=self.backend,
        )

    def _estimate(self, frame: Frame) -> Calibration:
        if self.manifest.specimen != "graphene":
            raise CalibrationError(
                f"{frame.name} has no pixel size, and the model {self.manifest.name} cannot tell it from the lattice. "
                "Give it as pixel_size_angstrom in config.toml or in a .json file beside the image, of the same name, "
                "or to `hrtemd process` as --pixel-size."
            )
        return Calibration(estimate_graphene_pixel_size(frame.pixels), CalibrationSource.ESTIMATED)

    def _run(self, pixels: np.ndarray, pixel_size_angstrom: float, latency_ms: dict[str, float]) -> Peaks:
        """Peaks of a frame, positions and sigma in acquired pixels, before calibration."""
        manifest = self.manifest
        with _timed(latency_ms, "prepare"):
            _check_size(pixels.shape, pixel_size_angstrom, manifest)
            prepared = prepare(pixels, pixel_size_angstrom, manifest.sampling_angstrom)
        with _timed(latency_ms, "infer"):
            heads = run_tiled(
                self._session,
                prepared.image,
                manifest.stride,
                manifest.input_multiple,
                manifest.receptive_field_pixels,
                self._tile_pixels,
            )
        with _timed(latency_ms, "decode"):
            peaks = find_peaks(heads, manifest.stride, LOWEST_RAW_PROBABILITY)
            return Peaks(
                positions=prepared.to_acquired(peaks.positions).astype(np.float32),
                probability=peaks.probability,
                sigma=peaks.sigma * np.float32(np.mean(prepared.scale)),
                class_probability=peaks.class_probability,
            )


def _check_size(shape: tuple[int, ...], pixel_size_angstrom: float, manifest: Manifest) -> None:
    height, width = (extent * pixel_size_angstrom for extent in shape)
    extent = f"at {pixel_size_angstrom:g} Å per pixel the frame covers {width:.0f} × {height:.0f} Å"
    if min(height, width) < LEAST_FIELD_ANGSTROM:
        raise FrameError(f"{extent}, too little to hold a lattice; check the pixel size.")
    if height * width > MAX_INPUT_PIXELS * manifest.sampling_angstrom**2:
        raise FrameError(f"{extent}, too much to be seen atom by atom; check the pixel size.")


def _calibrate(peaks: Peaks, pixel_size_angstrom: float, manifest: Manifest) -> Peaks:
    """Apply the manifest's calibration and threshold."""
    calibration = manifest.calibration
    logit, log_sigma = calibration_features(peaks.probability, peaks.sigma * pixel_size_angstrom)
    logit = (
        calibration.probability_slope * logit
        + calibration.probability_sigma_slope * log_sigma
        + calibration.probability_offset
    )
    probability = 1 / (1 + np.exp(-logit))
    kept = probability >= manifest.probability_threshold
    return Peaks(
        positions=peaks.positions[kept],
        probability=probability[kept].astype(np.float32),
        sigma=peaks.sigma[kept] * np.float32(calibration.sigma_scale),
        class_probability=peaks.class_probability[kept],
    )


def calibration_features(
    probability: NDArray[np.floating[Any]], sigma_angstrom: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """What the calibrated probability is a function of, from the network's own; see `daemon.recognition.package`."""
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped)), np.log(sigma_angstrom / 0.2)


def _table(peaks: Peaks, pixel_size_angstrom: float, manifest: Manifest) -> pa.Table:
    """The atom table, species named where the model tells them."""
    best = peaks.class_probability.argmax(axis=1)
    # `metal` is what a model says that tells no element.
    names = [None if name == "metal" else name for name in manifest.classes]
    told = len(names) > 1
    return atom_table(
        peaks.positions,
        pixel_size_angstrom,
        manifest.kind,
        peaks.probability,
        peaks.sigma * pixel_size_angstrom,
        species=[names[index] for index in best],
        species_probability=peaks.class_probability.max(axis=1, initial=0.0) if told else None,
    )


@contextmanager
def _timed(latency_ms: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        latency_ms[stage] = latency_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1e3
