"""What travels through the pipeline: a frame or a focal series, its calibration, and how it was acquired."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError


class CalibrationSource(StrEnum):
    """Where a pixel size came from, most trusted first."""

    OVERRIDE = "override"
    SIDECAR = "sidecar"
    METADATA = "metadata"
    ESTIMATED = "estimated"


@dataclass(frozen=True)
class Calibration:
    """The size of a square pixel in Å, and who says so."""

    pixel_size_angstrom: float
    source: CalibrationSource


@dataclass(frozen=True)
class Acquisition:
    """How a frame was taken, as far as its file, sidecar or sender tells; None where nobody does.

    `defocus_angstrom` is positive for underfocus (minus C10). `dose_per_square_angstrom` is in electrons.
    """

    defocus_angstrom: float | None = None
    dose_per_square_angstrom: float | None = None
    voltage_kv: float | None = None
    exposure_seconds: float | None = None
    series_id: str | None = None
    series_index: int | None = None
    series_length: int | None = None


@dataclass(frozen=True)
class Average:
    """What a frame's pixels are the mean of, where they are the mean of several frames.

    Attributes:
        members: Frame ids, the oldest first; the last is the frame itself, in whose coordinates the mean is.
        drift_angstrom: Shape (members, 2): where the point that stands at (0, 0) in the frame stands in each member, x
            to the right and y down.
        seconds: From the first member to the last; None where it is not known.
        dose_per_square_angstrom: The dose of one frame as noisy as the mean: that of all members together, less where
            their weights differ. None where one of them does not tell.
        warnings: Sentences for the operator.
    """

    members: tuple[str, ...]
    drift_angstrom: NDArray[np.float64]
    seconds: float | None
    dose_per_square_angstrom: float | None
    warnings: tuple[str, ...] = ()

    @property
    def last_step_angstrom(self) -> float | None:
        """How far the specimen moved to the newest frame from the one before; None where there is none."""
        return float(np.hypot(*self.drift_angstrom[-2])) if len(self.members) > 1 else None

    @property
    def drift_angstrom_per_second(self) -> float | None:
        """Speed of the specimen from the first member to the last; None where it is not known."""
        return float(np.hypot(*self.drift_angstrom[0])) / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Frame:
    """One image as acquired.

    Attributes:
        pixels: Shape (height, width), read-only, in the camera's own type.
        frame_id: The same for the same image after a restart: source, series, index and content hash.
        name: What the operator knows the frame by, and the stem of its result files.
        calibration: None where nothing gives a pixel size; recognition may then estimate one.
        acquisition: See `Acquisition`.
        images_in_file: How many images its file holds, 1 for an image that came on its own.
        acquired_at: When the camera took it, where known.
        received_at: When hrtemd first had all of it.
        average: What the pixels are the mean of; None for an image as it came.
    """

    pixels: NDArray[Any]
    frame_id: str
    name: str
    calibration: Calibration | None = None
    acquisition: Acquisition = field(default_factory=Acquisition)
    images_in_file: int = 1
    acquired_at: datetime | None = None
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    average: Average | None = None

    @property
    def frames(self) -> tuple["Frame"]:
        """Itself, as the only one of its kind; see `FocalSeries`."""
        return (self,)

    @property
    def reference(self) -> "Frame":
        """Itself; see `FocalSeries`."""
        return self


@dataclass(frozen=True)
class FocalSeries:
    """Three frames of one area at different defocus.

    Attributes:
        frames: In order of defocus, from the most overfocused (smallest `defocus_angstrom`) to the most underfocused;
            of one size and one pixel size.
        first: Index in `frames` of the one acquired first; positions in the atom table refer to it.
        frame_id: The same for the same three images after a restart.
        name: What the operator knows the series by, and the stem of its result files.
        drift_angstrom: Shape (3, 2): where the point that stands at (0, 0) in the first frame stands in each frame, x
            to the right and y down; None until it is measured. The row of the first frame is zero.
        offered: Names of all frames of the series as taken one after the other, where these are three of more.
    """

    frames: tuple[Frame, Frame, Frame]
    first: int
    frame_id: str
    name: str
    drift_angstrom: NDArray[np.float64] | None = None
    offered: tuple[str, ...] = ()

    @property
    def reference(self) -> Frame:
        """The frame that was acquired first."""
        return self.frames[self.first]

    @property
    def defocus_angstrom(self) -> tuple[float, ...]:
        """Of each frame; grouping lets no series through in which one is missing."""
        return tuple(frame.acquisition.defocus_angstrom or 0.0 for frame in self.frames)


def make_frame_id(source: str, series: str | None, index: int, pixels: NDArray[Any]) -> str:
    """Name a frame so that the same image has the same name in every run."""
    digest = hashlib.sha256()  # processors have instructions for it, and half of the way in is this
    digest.update(f"{pixels.dtype.str}{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"{source}/{series or '-'}/{index}/{digest.hexdigest()[:16]}"


def validate_pixels(pixels: NDArray[Any], where: str) -> NDArray[Any]:
    """Return `pixels` read-only, or say why they are not a frame.

    Raises:
        FrameError: They are not two-dimensional, not real numbers, too small, not finite.
    """
    if pixels.ndim != 2:
        raise FrameError(f"{where}: a frame has two dimensions, this array has shape {pixels.shape}.")
    if pixels.dtype.kind == "c":
        raise FrameError(f"{where}: the pixels are complex numbers; export the image (intensity) instead.")
    if pixels.dtype.kind not in "uif" or pixels.dtype.itemsize > 8:
        raise FrameError(f"{where}: pixels of type {pixels.dtype} are not intensities.")
    if min(pixels.shape) < MIN_FRAME_PIXELS:
        height, width = pixels.shape
        raise FrameError(
            f"{where}: {width} × {height} pixels are too few to hold a lattice; "
            f"at least {MIN_FRAME_PIXELS} × {MIN_FRAME_PIXELS} are needed."
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        bad = int(pixels.size - np.isfinite(pixels).sum())
        raise FrameError(f"{where}: {bad} pixels are NaN or infinite; check the export or gain correction.")
    pixels = pixels.view()
    pixels.flags.writeable = False
    return pixels


MIN_FRAME_PIXELS = 32
