"""The drift between the frames of a focal series, whose contrast changes and inverts with defocus.

Two frames are compared by the product of their spectra. Its sign at each spatial frequency is predicted from defocus
and voltage, for a few kinds of lenses and specimens that stand for what is not known of them. The best drift tells
which lens fits best, and with that the drift is looked for again. All three pairs of frames decide together.

A lattice fits itself at every lattice vector. So two things are asked of a drift: that it fits what is left where the
spots of the lattice are brought down to the level of noise (vacancies, edges, dirt), and that frames agree where they
overlap, lattice included. The first tells one lattice vector from another; the second allows nothing but lattice
vectors, and holds particles by their outlines. What is found is then refined with the lattice at its full strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.frames import FocalSeries
from daemon.series.defects import defect_agreement
from daemon.series.lenses import kinds_of_lenses, possible_contrasts, possible_transfers
from daemon.series.looks import Comparison, Look, fitting_lens, look, look_closely
from daemon.series.shifts import Fit
from daemon.series.spectra import Grid

LARGEST_DRIFT_ANGSTROM = 20.0

LEAST_FRAME_ANGSTROM = 30.0
"""After the largest drift, smaller frames have less than a third of their area in common."""

OTHER_FIT_ANGSTROM = 1.0
"""A fit farther from the best is another answer, not the best one's flank."""

LEAST_LEAD = 8.0
"""Standard deviations of noise, by which the best fit must be better than another answer. Those of noise lead by 0 to
3, those that are off by more than 0.3 Å by 0 to 8, seldom by more."""


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
    told = tuple(series.defocus_angstrom[index] for index in order), series.reference.acquisition.voltage_kv
    lenses = possible_contrasts(*told)
    comparison = Comparison.of([series.frames[index].pixels for index in order], pixel_size_angstrom)
    shared = comparison.shared(lenses)
    looks = look(comparison, kinds_of_lenses(*told), shared)
    lens = fitting_lens(lenses, comparison, _best(looks).shifts_angstrom)
    looks += look(comparison, lenses[lens][None], shared)
    second = _second(looks, comparison.grid)
    if second.lead < LEAST_LEAD:
        agreement = defect_agreement(comparison, possible_transfers(*told)[lens])
        # Chance strays far where there are few defects or none, and must not put one sublattice on the other.
        possible = _best(looks).fits[0].score - LEAST_LEAD
        chosen = [each.told(agreement, possible, comparison.grid) for each in looks]
        looks = [each for each in chosen if each is not None] or looks
        second = _second(looks, comparison.grid)
    shifts = _best(looks).shifts_angstrom
    lens = fitting_lens(lenses, comparison, shifts)
    drift = np.zeros((3, 2))
    drift[order[1:]] = look_closely(comparison, lenses[lens], shifts)

    warnings = _doubts(second, drift)
    if (extent := min(series.reference.pixels.shape) * pixel_size_angstrom) < LEAST_FRAME_ANGSTROM:
        warnings.insert(0, f"Alignment is doubtful: frames of {extent:.0f} Å are too small to follow a drift.")
    return Drift(drift, warnings)


def _best(looks: Sequence[Look]) -> Look:
    return max(looks, key=lambda each: each.fits[0].score)


class _Second(NamedTuple):
    """The best of the fits that are another answer than the best one.

    Attributes:
        lead: Of the best over it.
        apart_angstrom: How far they are apart.
    """

    lead: float
    apart_angstrom: float


def _second(looks: Sequence[Look], grid: Grid) -> _Second:
    best = _best(looks).fits[0]
    others = (fit for each in looks for fit in each.fits if _distance_angstrom(fit, best, grid) > OTHER_FIT_ANGSTROM)
    second = max(others, default=None)
    if second is None:
        return _Second(np.inf, 0.0)
    return _Second(best.score - second.score, _distance_angstrom(second, best, grid))


def _doubts(second: _Second, drift_angstrom: NDArray[np.float64]) -> list[str]:
    warnings = []
    largest = float(np.linalg.norm(drift_angstrom, axis=1).max())
    if largest > LARGEST_DRIFT_ANGSTROM:
        warnings.append(
            f"Alignment is doubtful: a drift of {largest:.0f} Å was found, and up to {LARGEST_DRIFT_ANGSTROM:.0f} Å is "
            "looked for. Let the stage settle, or take the frames faster."
        )
    if second.lead < LEAST_LEAD:
        warnings.append(
            f"Alignment is doubtful: a drift that differs by {second.apart_angstrom:.1f} Å fits nearly as well. "
            "More dose, or an area with an edge, defects or dirt in it, would help: a perfect lattice looks the same "
            "after a shift by a lattice vector. Or the specimen changed between the frames, or one shows another area."
        )
    return warnings


def _distance_angstrom(fit: Fit, other: Fit, grid: Grid) -> float:
    apart = np.subtract([fit.one, fit.other], [other.one, other.other]) * grid.sampling_angstrom[::-1]
    return float(np.linalg.norm(apart, axis=1).max())
