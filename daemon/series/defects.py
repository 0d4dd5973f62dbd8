"""What single defects tell of the drift, where nothing larger does.

Sums over a whole frame, as correlations are, hold the noise of all of it, and a dozen vacancies in a flawless sheet
are lost in that. But each of them stands out of the noise where it is. So only what stands out is compared, and noise,
which seldom does in two frames at the same place, hardly counts.
"""

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from daemon.series.looks import Comparison
from daemon.series.shifts import ShiftMaps
from daemon.series.spectra import BAND, PAIRS, REACHES, WORKERS, cross_spectra

STANDS_OUT = 2.0
"""Standard deviations of noise."""

MOST_OUTSTANDING = 4.0
"""Standard deviations more; thick dirt and edges count no further."""

BORDER_ANGSTROM = 4.0
"""Of a frame, where it has faded out."""

NEAR = np.ones((3, 3), np.uint8)
"""Pixels of a map, 0.6 Å each. Defects choose between lattice vectors; where exactly these lie, the lattice tells."""

DEVIATIONS_OF_MEDIAN = 1.4826
"""Standard deviations of a normal distribution, in medians of its absolute values."""


def defect_agreement(comparison: Comparison, transfer: NDArray[np.float32]) -> ShiftMaps:
    """How well defects agree after each shift, in standard deviations of chance.

    Args:
        comparison: Of the frames.
        transfer: Shape (3, rings), what the lens makes of a phase object in each frame: it gives a defect the same sign
            in all of them.
    """
    grid = comparison.grid
    filters = (transfer * np.sqrt(BAND)).take(grid.ring, axis=1)
    images = grid.invert(comparison.frames_aperiodic * filters)
    inner = tuple(
        _inside(pixels * grid.frame_sampling_angstrom, step)
        for pixels, step in zip(grid.frame, grid.sampling_angstrom[::-1], strict=True)
    )
    outstanding = np.zeros_like(images)
    for image, target in zip(images, outstanding, strict=True):
        inside = image[inner]
        deviations = inside / max(DEVIATIONS_OF_MEDIAN * float(np.median(np.abs(inside))), 1e-20)
        target[inner] = np.sign(deviations) * np.clip(np.abs(deviations) - STANDS_OUT, 0, MOST_OUTSTANDING)
    spectra = scipy.fft.rfft2(outstanding, workers=WORKERS)
    agreement = grid.invert(cross_spectra(spectra))
    power = np.square(outstanding).sum(axis=(1, 2))
    maps = []
    for (one, other), each, times in zip(PAIRS, agreement, REACHES, strict=True):
        by_chance = np.sqrt(power[one] * power[other] / outstanding[0][inner].size)
        highest_near = cv2.dilate(comparison.around_zero(each, times), NEAR)
        maps.append(highest_near / np.float32(max(by_chance, 1e-20)))
    return ShiftMaps(*maps)


def _inside(length_angstrom: float, step_angstrom: float) -> slice:
    """The pixels of an axis that are not near its ends."""
    border = min(BORDER_ANGSTROM, length_angstrom / 4)
    return slice(int(border / step_angstrom), 1 + int((length_angstrom - border) / step_angstrom))
