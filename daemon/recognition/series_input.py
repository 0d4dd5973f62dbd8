"""From three frames at different defocus to the network's input: despeckled, aligned, resampled, normalised.

The trainer feeds its simulated series through this same code, so whatever it does to noise and edges, the network has
seen it.

A local normalisation takes away how strong the contrast of a place is, which carries how thick the specimen is there
and how far out of focus the frame. So that the network can still read both, each frame comes with a plane of the
contrast it had.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.recognition.preprocess import (
    LEAST_FIELD_ANGSTROM,
    Normalised,
    PreparedFrame,
    despeckle,
    enlarge,
    normalise,
    resample,
)

SERIES_LENGTH = 3

CONTRAST_RANGE = (-3.0, 1.0)
"""Decimal logarithms of standard deviation over mean. A local mean of nothing or less counts as the upper end."""

DEFOCUS_UNIT_ANGSTROM = 100.0
"""What 1 means in the planes of defocus."""

TAPS = 8
"""Pixels along each axis that make a moved one. So many keep a lattice near the Nyquist limit, which a cubic blurs."""

PARALLEL_PIXELS = 2**19
"""Frames of fewer are not worth a thread each; the trainer's, of which processes prepare many at a time, have fewer."""
THREADS = 2


@dataclass(frozen=True)
class PreparedSeries(PreparedFrame):
    """The network's input and the way back to the frame acquired first.

    Attributes:
        image: Shape (channels, height, width), float32, all channels of the same field: the frames in order of defocus,
            each with local mean 0 and local standard deviation 1; then the decimal logarithm of the local contrast of
            each; then, where the network is told, the defocus of each in `DEFOCUS_UNIT_ANGSTROM`.
        scale: Acquired pixels per pixel of `image`, along x and along y.
        origin_px: Column and row, in the frame acquired first, of the top-left pixel of the field the frames share.
    """

    origin_px: tuple[int, int]

    def to_acquired(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map positions (n, 2) from `image` to the frame acquired first; both count from pixel centres."""
        return super().to_acquired(positions) + self.origin_px

    def from_acquired(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map positions (n, 2) from pixels of the frame acquired first to pixels of `image`."""
        return super().from_acquired(positions - np.asarray(self.origin_px))


def input_channels(told_defocus: bool) -> int:
    """Channels of the input of a network for series."""
    return SERIES_LENGTH * (3 if told_defocus else 2)


def despeckled(pixels: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The frames of a series, of any real type, without hot and dead pixels. Needs no drift, so both may go at once."""
    return [despeckle(frame.astype(np.float32)) for frame in pixels]


def prepare_series(
    images: Sequence[NDArray[np.float32]],
    pixel_size_angstrom: float,
    sampling_angstrom: float,
    drift_angstrom: NDArray[np.floating[Any]],
    defocus_angstrom: Sequence[float] | None,
) -> PreparedSeries:
    """Bring a focal series to the network's sampling and contrast, drift removed.

    Args:
        images: Three frames in order of defocus, each of shape (height, width), as `despeckled` makes them.
        pixel_size_angstrom: Of every frame.
        sampling_angstrom: Å per pixel the network wants.
        drift_angstrom: Shape (3, 2); see `daemon.frames.FocalSeries`. The row of the frame acquired first is zero.
        defocus_angstrom: Of each frame, for a network that is told; else None.

    Raises:
        FrameError: The frames share too small a field, or all pixels of one are alike.
    """
    height, width = images[0].shape
    drift_px = np.asarray(drift_angstrom, np.float64) / pixel_size_angstrom
    left, top, right, bottom = _shared_field(width, height, drift_px)
    crop = (right - left, bottom - top)
    if min(crop) * pixel_size_angstrom < LEAST_FIELD_ANGSTROM:
        farthest = float(np.hypot(*np.transpose(drift_angstrom)).max())
        raise FrameError(
            f"the frames of the series drifted by up to {farthest:.1f} Å and share no field of at least "
            f"{LEAST_FIELD_ANGSTROM:g} × {LEAST_FIELD_ANGSTROM:g} Å; check that they show the same area, and the pixel "
            "size."
        )

    def prepared(index: int) -> Normalised:
        moved = _move(images[index], np.add((left, top), drift_px[index]), crop)
        try:
            return normalise(resample(moved, pixel_size_angstrom / sampling_angstrom), sampling_angstrom)
        except FrameError as error:
            raise FrameError(f"frame {index + 1} of the series, in order of defocus: {error}") from error

    if height * width < PARALLEL_PIXELS:
        frames = [prepared(index) for index in range(SERIES_LENGTH)]
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            frames = list(pool.map(prepared, range(SERIES_LENGTH)))
    shape = frames[0].image.shape
    contrasts = [enlarge(_logarithm(frame.contrast), shape) for frame in frames]
    told = [np.full(shape, defocus / DEFOCUS_UNIT_ANGSTROM, np.float32) for defocus in defocus_angstrom or ()]
    image = np.stack([*(frame.image for frame in frames), *contrasts, *told])
    return PreparedSeries(image, (crop[0] / image.shape[2], crop[1] / image.shape[1]), (left, top))


def _shared_field(width: int, height: int, drift_px: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom border, in pixels of the frame acquired first, of what every frame covers."""
    if not np.isfinite(drift_px).all():
        return 0, 0, 0, 0
    left, top = np.ceil(-drift_px.min(axis=0)).astype(int).tolist()
    right, bottom = np.floor((width, height) - drift_px.max(axis=0)).astype(int).tolist()
    return left, top, right, bottom


def _move(image: NDArray[np.float32], corner_px: NDArray[np.float64], crop: tuple[int, int]) -> NDArray[np.float32]:
    """Cut out the rectangle of width and height `crop` whose top-left pixel stands at `corner_px`."""
    column, row = (math.floor(place) for place in corner_px)
    fractions = corner_px - (column, row)
    if fractions.any():
        across, along = (_weights(fraction) for fraction in fractions)
        anchor = (TAPS // 2 - 1, TAPS // 2 - 1)
        image = cv2.sepFilter2D(image, -1, across, along, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
    return image[row : row + crop[1], column : column + crop[0]]


def _weights(fraction: float) -> NDArray[np.float32]:
    """Lanczos weights of the pixels around a place this far beyond the first of the two middle ones."""
    distance = np.arange(TAPS) - (TAPS // 2 - 1) - fraction
    weights = np.sinc(distance) * np.sinc(distance / (TAPS // 2))
    return np.asarray(weights / weights.sum(), np.float32)


def _logarithm(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    lowest, highest = CONTRAST_RANGE
    positive = np.where(contrast > 0, contrast, np.float32(10**highest))
    logarithm: NDArray[np.float32] = np.clip(np.log10(positive), lowest, highest)
    return logarithm
