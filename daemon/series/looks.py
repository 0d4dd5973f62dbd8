"""How well shifts of three frames fit, as seen through one lens or another."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.series.lenses import Contrasts
from daemon.series.overlap import shared_contrast
from daemon.series.shifts import Fit, Map, ShiftMaps, find_fits, subpixel
from daemon.series.spectra import REACHES, Grid, Image, Spectrum, coarse, cross_spectra, grid_around, whiten

SEARCHED_ANGSTROM = 23.0

UNLIKELY_PER_ANGSTROM = 0.05
"""By so many standard deviations a larger drift must fit better. It decides only where nothing else does: of shifts by
lattice vectors that fit equally well, the smallest wins."""

LATTICE_WEIGHT = 0.5
"""Of the spectra with their lattice against those without. What speaks for one lattice vector rather than another is in
these, and in the outlines of particles in those; that a shift is a lattice vector at all, in those alone."""

FINE_STEP_ANGSTROM = 0.1
FINE_STEPS = 4


@dataclass(frozen=True)
class Comparison:
    """The spectra of three frames, pair by pair.

    Attributes:
        grid: Their frequencies.
        frames: Shape (3, rows, columns), complete, of the frames.
        frames_aperiodic: The same with lattices brought down.
        complete: Shape (3, rows, columns), the products of `daemon.series.spectra.PAIRS`.
        aperiodic: The same with lattices brought down.
        complete_power: Shape (3, rings), of `complete`.
        aperiodic_power: Shape (3, rings), of `aperiodic`.
    """

    grid: Grid
    frames: Spectrum
    frames_aperiodic: Spectrum
    complete: Spectrum
    aperiodic: Spectrum
    complete_power: NDArray[np.float64]
    aperiodic_power: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Sequence[NDArray[Any]], pixel_size_angstrom: float) -> "Comparison":
        """Compare frames of one size, the first in time first."""
        (first, sampling_angstrom), *others = (coarse(pixels, pixel_size_angstrom) for pixels in frames)
        grid = grid_around(first.shape, sampling_angstrom, SEARCHED_ANGSTROM)
        whitened = [whiten(image, grid) for image in (first, *(image for image, _ in others))]
        spectra = np.stack([each.complete for each in whitened]), np.stack([each.aperiodic for each in whitened])
        complete, aperiodic = (cross_spectra(each) for each in spectra)
        powers = (grid.sum_over_rings(_power(each)) for each in (complete, aperiodic))
        return cls(grid, *spectra, complete, aperiodic, *powers)

    @cached_property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of the largest shift that is looked for."""
        across, down = (int(SEARCHED_ANGSTROM / sampling) for sampling in self.grid.sampling_angstrom)
        return down, across

    def around_zero(self, periodic: Map, times: int) -> Map:
        """A map with zero shift in its middle, of shifts up to so many times `reach`, from one that begins with it."""
        rows, columns = (np.arange(-times * most, times * most + 1) for most in self.reach)
        return periodic[np.ix_(rows, columns)]

    @cached_property
    def unlikely(self) -> Map:
        """What every shift from the first frame is marked down by."""
        y, x = (np.arange(-most, most + 1) for most in self.reach)
        across, down = self.grid.sampling_angstrom
        distance = np.hypot(x[None, :] * across, y[:, None] * down)
        return np.asarray(UNLIKELY_PER_ANGSTROM * distance, np.float32)

    def shared(self, lenses: Contrasts) -> list[Image]:
        """See `daemon.series.overlap.shared_contrast`."""
        return shared_contrast(self.frames, np.abs(lenses).mean(axis=(0, 1)), self.grid, self.reach)


@dataclass(frozen=True)
class Look:
    """What was found through a lens.

    Attributes:
        maps: How well all shifts fit, in standard deviations of noise.
        fits: The best shifts, best first.
        shifts_angstrom: Shape (2, 2), those of the best: x and y of two frames from the first.
    """

    maps: ShiftMaps
    fits: list[Fit]
    shifts_angstrom: NDArray[np.float64]

    def told(self, more: ShiftMaps, least_score: float, grid: Grid) -> "Look | None":
        """What is found if other maps have a say among the fits of at least this score here; None if there are none."""
        maps = self.maps.plus(more)
        fits = sorted((fit for fit in find_fits(maps) if sum(self.maps.values(fit)) >= least_score), reverse=True)
        return Look(maps, fits, subpixel(fits[0], maps) * grid.sampling_angstrom) if fits else None


def look(comparison: Comparison, contrasts: NDArray[np.float32], shared: Sequence[Image]) -> list[Look]:
    """Look through some lenses for shifts up to `SEARCHED_ANGSTROM` where frames agree.

    Args:
        comparison: Of the frames.
        contrasts: Shape (lenses, 3, rings), what each lens gives to each product.
        shared: See `daemon.series.overlap`.
    """
    weights = contrasts.take(comparison.grid.ring, axis=2)
    of_defects = _correlations(comparison, comparison.aperiodic * weights, comparison.aperiodic_power, contrasts)
    of_lattice = _correlations(comparison, comparison.complete * weights, comparison.complete_power, contrasts)
    return [_look(comparison, *correlations, shared) for correlations in zip(of_defects, of_lattice, strict=True)]


def _look(comparison: Comparison, of_defects: list[Map], of_lattice: list[Map], shared: Sequence[Image]) -> Look:
    one, other, between = (
        defects + LATTICE_WEIGHT * lattice / share
        for defects, lattice, share in zip(of_defects, of_lattice, shared, strict=True)
    )
    maps = ShiftMaps(one - comparison.unlikely, other - comparison.unlikely, between)
    fits = find_fits(maps)
    return Look(maps, fits, subpixel(fits[0], maps) * comparison.grid.sampling_angstrom)


def _correlations(
    comparison: Comparison, weighted: Spectrum, power: NDArray[np.float64], contrasts: NDArray[np.float32]
) -> list[list[Map]]:
    """For each lens three maps, in standard deviations of what random phases give; zero shift in the middle of each."""
    correlations = comparison.grid.invert(weighted)
    noise = np.sqrt(2 * np.einsum("lpr,pr->lp", contrasts**2, power)) / correlations[0, 0].size
    places = [np.ix_(*(np.arange(-times * most, times * most + 1) for most in comparison.reach)) for times in REACHES]
    return [
        [
            correlation[place] / np.float32(max(deviation, 1e-20))
            for correlation, deviation, place in zip(*of_lens, places, strict=True)
        ]
        for of_lens in zip(correlations, noise, strict=True)
    ]


def fitting_lens(lenses: Contrasts, comparison: Comparison, shifts_angstrom: NDArray[np.float64]) -> int:
    """Which of lenses, shape (lenses, 3, rings), fits frames best that are shifted by so much."""
    grid, of_pairs = comparison.grid, _of_pairs(shifts_angstrom)
    phases = np.stack([np.outer(_waves(grid.y, y), _waves(grid.x, x)) for x, y in of_pairs])
    fit = np.zeros(len(lenses))
    for spectra, power in (
        (comparison.complete, comparison.complete_power),
        (comparison.aperiodic, comparison.aperiodic_power),
    ):
        signal = grid.sum_over_rings((spectra * phases).real)
        noise = np.sqrt(np.maximum(np.einsum("lpr,pr->lp", lenses**2, power), 1e-20))
        fit += (np.einsum("lpr,pr->lp", lenses, signal) / noise).sum(axis=1)
    return int(fit.argmax())


def look_closely(
    comparison: Comparison, contrast: NDArray[np.float32], shifts_angstrom: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The shifts near these that fit best, lattices at their full strength."""
    grid, maps = comparison.grid, []
    weighted = comparison.complete * contrast.take(grid.ring, axis=1)
    for spectrum, (x, y), times in zip(weighted, _of_pairs(shifts_angstrom), REACHES, strict=True):
        steps = np.arange(-times * FINE_STEPS, times * FINE_STEPS + 1) * FINE_STEP_ANGSTROM
        along_x, along_y = _waves(np.asarray(grid.x), x + steps[:, None]), _waves(grid.y, y + steps[:, None])
        maps.append((along_y @ (spectrum @ along_x.T)).real)
    fine = ShiftMaps(*maps)
    return shifts_angstrom + subpixel(find_fits(fine)[0], fine) * FINE_STEP_ANGSTROM


def _of_pairs(shifts_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (3, 2): from the shifts of two frames those of all pairs."""
    one, other = shifts_angstrom
    return np.stack([one, other, other - one])


def _waves(frequency: NDArray[np.float64], shift_angstrom: Any) -> Spectrum:
    return np.asarray(np.exp(2j * np.pi * frequency * shift_angstrom), np.complex64)


def _power(spectra: Spectrum) -> NDArray[np.float32]:
    return np.square(spectra.real) + np.square(spectra.imag)
