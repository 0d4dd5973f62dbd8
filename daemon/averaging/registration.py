"""Where a frame that is nearly noise lies on the average of the frames before it.

The frame's spectrum is compared with the average's, both with the noise evened out (see `daemon.series.spectra`), and
each frequency counts by how far the average stands out of noise there. So the few spots of a lattice are heard among
thousands of frequencies of noise, and edges, dirt and defects the better the longer the average is.

A lattice fits itself at every lattice vector. Where enough of what breaks it is seen, that decides; else the smallest
step wins, so on a perfect lattice a drift of up to half of its period from frame to frame is followed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.series.shifts import Map, Place, highest, top
from daemon.series.spectra import BAND, Grid, Spectrum, coarse, grid_around, whiten

LARGEST_STEP_ANGSTROM = 10.0
"""Looked for, from one frame to the next; what moves farther is another area."""

STEP_ANGSTROM = 0.15
"""Of the shifts that are tried; a parabola finds the place between them."""

UNLIKELY_PER_ANGSTROM = 1.5
"""By so many standard deviations of noise a larger step must fit better, where a lattice decides."""

NEAR_ANGSTROM = 0.7
"""Half of the shortest period of graphene and less: so near, a lattice fits at one place only."""

LEAST_FIT = 5.5
LEAST_FIT_IN_PLACE = 4.0
"""Standard deviations. Frames of noise alone reach 4 at the best of all shifts, and hardly ever 3 at a small one: so
between none and a larger one, the fit that is needed rises by `UNLIKELY_PER_ANGSTROM`."""

SPOT_PIXELS = 3
"""Across which power is averaged: the width of a lattice's spot on the padded grid."""

NOISE_POWER = 2.0
"""Of the mean power of noise; what does not exceed it counts as noise."""

LEAST_WEIGHT = 0.05
"""What seems to be noise still counts so much: the faint frequencies of all that is no lattice are many."""


@dataclass(frozen=True)
class Shift:
    """Where the point at (0, 0) of one image stands in another one.

    Attributes:
        pixels: Shape (2,), x to the right and y down.
        fit: How well it fits, in standard deviations of noise.
        needed: What it must reach to be more than chance.
    """

    pixels: NDArray[np.float64]
    fit: float
    needed: float

    @property
    def is_significant(self) -> bool:
        """Whether the two images surely show the same."""
        return self.fit >= self.needed


def find_shift(average: NDArray[np.float32], frame: NDArray[np.float32], pixel_size_angstrom: float) -> Shift:
    """Find the shift of a frame from the average of earlier ones, up to `LARGEST_STEP_ANGSTROM`.

    Args:
        average: Shape (height, width).
        frame: Of the same shape.
        pixel_size_angstrom: Of both.
    """
    if not average.std() or not frame.std():
        return Shift(np.zeros(2), fit=0.0, needed=LEAST_FIT)
    (first, sampling_angstrom), (second, _) = (coarse(image, pixel_size_angstrom) for image in (average, frame))
    grid = grid_around(first.shape, sampling_angstrom, LARGEST_STEP_ANGSTROM)
    averaged, found = whiten(first, grid), whiten(second, grid)
    band = BAND[grid.ring]

    search = _Search(grid)
    aperiodic = search.fits(averaged.aperiodic * band, found.aperiodic)
    power = cv2.blur(np.square(np.abs(averaged.complete)), (SPOT_PIXELS, SPOT_PIXELS))
    weight = np.maximum(1 - NOISE_POWER / np.maximum(power, 1e-6), LEAST_WEIGHT) * band
    complete = search.fits(averaged.complete * weight, found.complete)

    if aperiodic.max() >= LEAST_FIT:
        sure = highest(aperiodic)
        is_near = search.distance_from(sure) <= NEAR_ANGSTROM
        best = highest(np.where(is_near, complete, np.float32(-np.inf)))
        fit, needed = float(aperiodic[sure]), LEAST_FIT
    else:
        distance = search.distance_from(search.middle)
        best = highest(complete - np.float32(UNLIKELY_PER_ANGSTROM) * distance)
        fit = float(complete[best])
        needed = min(LEAST_FIT, LEAST_FIT_IN_PLACE + UNLIKELY_PER_ANGSTROM * float(distance[best]))
    shift_angstrom = (np.array(top(complete, best)) - search.middle) * STEP_ANGSTROM
    return Shift(shift_angstrom / pixel_size_angstrom, fit, needed)


class _Search:
    """Tries all shifts up to `LARGEST_STEP_ANGSTROM`, by rows and columns of a map of `STEP_ANGSTROM`.

    Args:
        grid: Of the spectra that are compared.
    """

    def __init__(self, grid: Grid) -> None:
        reach = round(LARGEST_STEP_ANGSTROM / STEP_ANGSTROM)
        self.middle = (reach, reach)
        self._steps = np.arange(-reach, reach + 1) * STEP_ANGSTROM
        self._along_x = np.exp(2j * np.pi * np.outer(grid.x, self._steps)).astype(np.complex64)
        self._along_y = np.exp(2j * np.pi * np.outer(self._steps, grid.y)).astype(np.complex64)
        # Neighbouring frequencies of a padded and tapered image vary together.
        light = np.square(grid.window)
        self._together = grid.padded[0] * grid.padded[1] * float(np.square(light).sum() / light.sum() ** 2)

    def fits(self, expected: Spectrum, found: Spectrum) -> Map:
        """How well `found`, whose noise has a power of 1, is `expected` shifted, in standard deviations of noise."""
        fits = (self._along_y @ ((expected.conj() * found) @ self._along_x)).real
        # Half of the noise is along the expected phase.
        noise = np.sqrt(self._together * np.vdot(expected, expected).real / 2)
        return np.asarray(fits / noise, np.float32)

    def distance_from(self, place: Place) -> Map:
        """Å from there, for each place on the map."""
        row, column = place
        down, right = self._steps - self._steps[row], self._steps - self._steps[column]
        return np.asarray(np.hypot(down[:, None], right[None, :]), np.float32)
