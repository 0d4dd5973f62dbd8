"""The drift between the frames of a focal series, whose contrast changes and inverts with defocus.

Two frames are compared by the product of their spectra. Its sign at each spatial frequency is predicted from defocus
and voltage, averaged over what is not known of the lens. Once a drift is found, the lens that fits it best is taken and
the drift looked for again. All three pairs of frames decide together.

A lattice fits itself at every lattice vector. So the search brings its spots down to the level of noise, and follows
vacancies, edges, dirt and outlines. What is found is then refined with the lattice at its full strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from daemon.frames import FocalSeries
from daemon.series.shifts import Fit, Map, ShiftMaps, find_fits, subpixel
from daemon.series.spectra import RINGS, Grid, Spectrum, coarse, cross_spectra, possible_contrasts, whiten

LARGEST_DRIFT_ANGSTROM = 20.0
SEARCHED_ANGSTROM = 23.0

LEAST_FRAME_ANGSTROM = 30.0
"""After the largest drift, smaller frames have less than a third of their area in common."""

UNLIKELY_PER_ANGSTROM = 0.05
"""By so many standard deviations a larger drift must fit better. It decides only where nothing else does: of shifts by
lattice vectors that fit equally well, the smallest wins."""

OTHER_FIT_ANGSTROM = 1.0
"""A fit farther from the best is another answer, not the best one's flank."""

LEAST_FIT = 22.0
"""Standard deviations of noise. Frames of noise alone reach 19 or 20."""

LARGEST_SECOND = 0.8
"""Of the best fit. What is left of a perfect lattice leads to 0.8 to 1, since in frames that end, fewer of its cells
meet the larger the shift."""

LARGEST_CONTRADICTION = 5.0
"""Standard deviations of noise, by which two frames fit better where all three together do not."""

FINE_STEP_ANGSTROM = 0.1
FINE_STEPS = 7
LOOKS = 2


@dataclass(frozen=True)
class Drift:
    """How the specimen moved.

    Attributes:
        drift_angstrom: Shape (3, 2): where the point that stands at (0, 0) in the first frame in time stands in each
            frame, x to the right and y down.
        warnings: Why it may be wrong; one sentence each.
    """

    drift_angstrom: NDArray[np.float64]
    warnings: list[str]


def measure_drift(series: FocalSeries, pixel_size_angstrom: float) -> Drift:
    """Measure the drift between the frames of a series, up to `LARGEST_DRIFT_ANGSTROM` from the first to each other.

    Args:
        series: Its frames are of one size and hold something.
        pixel_size_angstrom: Of the frames.
    """
    order = [series.first, *(index for index in range(3) if index != series.first)]
    images = [coarse(series.frames[index].pixels, pixel_size_angstrom) for index in order]
    (height, width), (rows, columns) = series.reference.pixels.shape, images[0].shape
    sampling = (pixel_size_angstrom * width / columns, pixel_size_angstrom * height / rows)
    grid = Grid.around((rows, columns), sampling, SEARCHED_ANGSTROM)
    ring = grid.ring()
    whitened = [whiten(image, grid, ring) for image in images]
    aperiodic = cross_spectra([spectra.aperiodic for spectra in whitened])
    complete = cross_spectra([spectra.complete for spectra in whitened])
    lenses = possible_contrasts(
        [series.defocus_angstrom[index] for index in order], series.reference.acquisition.voltage_kv
    )

    contrast = lenses.mean(axis=0)
    for _ in range(LOOKS):
        maps = _search(aperiodic, contrast[:, ring], grid)
        fits = find_fits(maps)
        shifts = subpixel(fits[0], maps) * grid.sampling_angstrom
        contrast = _fitting_lens(lenses, aperiodic, shifts, grid, ring)
    fine_maps = _look_closely(complete, contrast[:, ring], grid, shifts)
    shifts = shifts + subpixel(find_fits(fine_maps)[0], fine_maps) * FINE_STEP_ANGSTROM

    drift = np.zeros((3, 2))
    drift[order[1:]] = shifts
    warnings = _doubts(maps, fits, drift, grid)
    if (extent := min(height, width) * pixel_size_angstrom) < LEAST_FRAME_ANGSTROM:
        warnings.insert(0, f"Alignment is doubtful: frames of {extent:.0f} Å are too small to follow a drift.")
    return Drift(drift, warnings)


def _search(cross: Sequence[Spectrum], contrast: NDArray[np.float32], grid: Grid) -> ShiftMaps:
    """How well all shifts within `SEARCHED_ANGSTROM` fit, in standard deviations of noise."""
    steps_x, steps_y = (int(SEARCHED_ANGSTROM / sampling) for sampling in grid.sampling_angstrom)
    x = np.arange(-steps_x, steps_x + 1) * grid.sampling_angstrom[0]
    y = np.arange(-steps_y, steps_y + 1) * grid.sampling_angstrom[1]
    unlikely = (UNLIKELY_PER_ANGSTROM * np.hypot(x[None, :], y[:, None])).astype(np.float32)
    maps = []
    for spectrum, sign, reach in zip(cross, contrast, (1, 1, 2), strict=True):
        weighted = spectrum * sign
        correlation = scipy.fft.irfft2(weighted, s=grid.shape, workers=1)
        noise = np.sqrt(2 * np.vdot(weighted, weighted).real) / correlation.size
        middle = np.roll(correlation, (reach * steps_y, reach * steps_x), axis=(0, 1))
        maps.append(middle[: 2 * reach * steps_y + 1, : 2 * reach * steps_x + 1] / noise)
    return ShiftMaps(maps[0] - unlikely, maps[1] - unlikely, maps[2])


def _fitting_lens(
    lenses: NDArray[np.float32],
    cross: Sequence[Spectrum],
    shifts_angstrom: NDArray[np.float64],
    grid: Grid,
    ring: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Shape (3, rings): the contrasts of the lens that fits frames best which are shifted by so much."""
    of_pairs = _of_pairs(shifts_angstrom)
    signal, noise = [], []
    for spectrum, (x, y) in zip(cross, of_pairs, strict=True):
        shifted = spectrum * np.exp(2j * np.pi * grid.y * y)[:, None] * np.exp(2j * np.pi * grid.x * x)
        signal.append(np.bincount(ring.ravel(), shifted.real.ravel(), RINGS + 1))
        noise.append(np.bincount(ring.ravel(), np.square(np.abs(spectrum)).ravel(), RINGS + 1))
    fit = np.einsum("lpr,pr->lp", lenses, signal) / np.sqrt(np.einsum("lpr,pr->lp", lenses**2, noise))
    best: NDArray[np.float32] = lenses[fit.sum(axis=1).argmax()]
    return best


def _look_closely(
    cross: Sequence[Spectrum], contrast: NDArray[np.float32], grid: Grid, shifts_angstrom: NDArray[np.float64]
) -> ShiftMaps:
    """How well shifts fit in fine steps around those found."""
    maps: list[Map] = []
    for spectrum, sign, (x, y), reach in zip(cross, contrast, _of_pairs(shifts_angstrom), (1, 1, 2), strict=True):
        steps = np.arange(-reach * FINE_STEPS, reach * FINE_STEPS + 1) * FINE_STEP_ANGSTROM
        along_x = np.exp(2j * np.pi * np.outer(grid.x, x + steps)).astype(np.complex64)
        along_y = np.exp(2j * np.pi * np.outer(y + steps, grid.y)).astype(np.complex64)
        maps.append((along_y @ ((spectrum * sign) @ along_x)).real)
    return ShiftMaps(*maps)


def _of_pairs(shifts_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (3, 2): from the shifts of two frames those of all pairs."""
    one, other = shifts_angstrom
    return np.stack([one, other, other - one])


def _doubts(maps: ShiftMaps, fits: Sequence[Fit], drift_angstrom: NDArray[np.float64], grid: Grid) -> list[str]:
    best = fits[0]
    warnings = []
    largest = float(np.linalg.norm(drift_angstrom, axis=1).max())
    if largest > LARGEST_DRIFT_ANGSTROM:
        warnings.append(
            f"Alignment is doubtful: a drift of {largest:.0f} Å was found, and up to {LARGEST_DRIFT_ANGSTROM:.0f} Å is "
            "looked for. Let the stage settle, or take the frames faster."
        )
    second = next((fit for fit in fits if _distance_angstrom(fit, best, grid) > OTHER_FIT_ANGSTROM), None)
    if best.score < LEAST_FIT:
        warnings.append(
            "Alignment is doubtful: the frames have too little in common. More dose, or an area with an edge, defects "
            "or dirt in it, would help."
        )
    elif second is not None and second.score > LARGEST_SECOND * best.score:
        apart = _distance_angstrom(second, best, grid)
        warnings.append(
            f"Alignment is doubtful: a drift that differs by {apart:.1f} Å fits nearly as well. A perfect lattice "
            "looks the same after a shift by a lattice vector; an area with an edge, defects or dirt would help."
        )
    elif max(float(each.max()) - value for each, value in zip(maps, maps.values(best), strict=True)) > (
        LARGEST_CONTRADICTION
    ):
        warnings.append(
            "Alignment is doubtful: the drifts between the three pairs of frames contradict each other. The specimen "
            "may have changed between the frames, or one frame shows another area."
        )
    return warnings


def _distance_angstrom(fit: Fit, other: Fit, grid: Grid) -> float:
    apart = np.subtract([fit.one, fit.other], [other.one, other.other]) * grid.sampling_angstrom[::-1]
    return float(np.linalg.norm(apart, axis=1).max())
