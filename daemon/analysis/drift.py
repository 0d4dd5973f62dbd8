"""How far the specimen drifted between two tables, from the sites themselves.

A perfect lattice looks the same after each of its own vectors. What tells them apart are edges, vacancies,
substitutions and heights, so every drift that lays lattice on lattice is tried, and that one is taken at which most
sites agree in what they are, not only in where they are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree

from daemon.analysis.matching import Matching, match
from daemon.analysis.sites import Sites
from daemon.errors import HrtemdError

LARGEST_DRIFT_ANGSTROM = 5.0

BIN_ANGSTROM = 0.2
SMOOTHING_BINS = 1.0
LEAST_SHARE_OF_VOTES = 0.3
"""A drift that fewer pairs of sites speak for, measured by that with the most, lays no lattice on another."""
DISTINCT_ANGSTROM = 0.5

LEAST_MATCHED = 0.5
"""Share of the smaller table's sites that have a partner; less is what chance and other areas give."""
LEAST_MARGIN_SITES = 3
MARGIN_IN_DEVIATIONS = 1.5
"""How many more sites must agree than at any other drift, in square roots of those that disagree at the best: errors
of recognition disagree too, and their number fluctuates. On 1,920 pairs of made-up sheets of 4 and 6 nm, drifted by
up to 4.7 Å, with up to 5 % of the sites missed or misread, this was certain of a wrong drift twice, and of the right
one in 98 % of those with one sulphur site in ten a vacancy, in 66 % of those with one in 27.
"""
ALIKE = 0.9
"""Share of agreeing sites, by that of the best drift, from which a smaller drift is as good as the best one: the margin
for being certain is more than all of a small table's sites."""


@dataclass(frozen=True)
class Drift:
    """A common translation of all sites.

    Attributes:
        drift_angstrom: x to the right and y down: where the point (0, 0) of the earlier frame stands in the later one.
        is_certain: False where another drift explains the tables as well, or where nothing could be compared. The
            smallest of such drifts is given.
    """

    drift_angstrom: tuple[float, float]
    is_certain: bool


@dataclass(frozen=True)
class _Candidate:
    drift: NDArray[np.float64]
    matching: Matching
    agreeing: int

    @property
    def share(self) -> float:
        return self.agreeing / max(self.matching.sites, 1)


def estimate_drift(before: Sites, after: Sites) -> Drift:
    """Find the drift between two tables of one area, up to `LARGEST_DRIFT_ANGSTROM`.

    Raises:
        HrtemdError: At no drift do half of the sites have a partner.
    """
    if not len(before) or not len(after):
        return Drift((0.0, 0.0), is_certain=False)
    candidates = [_refine(before, after, drift) for drift in _proposals(before, after)]
    best = max(candidates, key=lambda candidate: candidate.share, default=None)
    if best is None or not _is_one_area(best.matching):
        raise HrtemdError(
            f"The two tables have too few sites in common at any drift up to {LARGEST_DRIFT_ANGSTROM:g} Å; "
            "compare tables of one area, or give drift_angstrom if it drifted farther."
        )
    sites = best.matching.sites
    margin = max(LEAST_MARGIN_SITES, MARGIN_IN_DEVIATIONS * math.sqrt(sites - best.agreeing))
    rivals = [candidate for candidate in candidates if (best.share - candidate.share) * sites < margin]
    alike = [rival for rival in rivals if rival.share >= ALIKE * best.share]
    smallest = min(alike, key=lambda candidate: float(np.hypot(*candidate.drift)))
    is_certain = all(np.hypot(*(rival.drift - best.drift)) < DISTINCT_ANGSTROM for rival in rivals)
    x, y = smallest.drift
    return Drift((float(x), float(y)), is_certain)


def _proposals(before: Sites, after: Sites) -> NDArray[np.float64]:
    """Shape (k, 2), drifts that many pairs of sites speak for, to a bin's width."""
    near = cKDTree(before.positions_angstrom).sparse_distance_matrix(
        cKDTree(after.positions_angstrom), LARGEST_DRIFT_ANGSTROM, output_type="ndarray"
    )
    same = before.label[near["i"]] == after.label[near["j"]]
    apart = after.positions_angstrom[near["j"][same]] - before.positions_angstrom[near["i"][same]]
    half = round(LARGEST_DRIFT_ANGSTROM / BIN_ANGSTROM)
    votes = np.zeros((2 * half + 1, 2 * half + 1))
    np.add.at(votes, tuple(np.rint(apart.T / BIN_ANGSTROM).astype(int) + half), 1)
    votes = gaussian_filter(votes, SMOOTHING_BINS, mode="constant")
    peaks = (votes == maximum_filter(votes, size=3)) & (votes > LEAST_SHARE_OF_VOTES * votes.max())
    return np.asarray((np.argwhere(peaks) - half) * BIN_ANGSTROM, np.float64)


def _refine(before: Sites, after: Sites, drift: NDArray[np.float64]) -> _Candidate:
    matching = match(before, after, drift)
    for _ in range(2):
        earlier, later = matching.pairs.T
        if len(earlier):
            drift = np.median(after.positions_angstrom[later] - before.positions_angstrom[earlier], axis=0)
            matching = match(before, after, drift)
    earlier, later = matching.pairs.T
    same_height = np.equal(before.n_atoms[earlier], after.n_atoms[later]) | np.isnan(before.n_atoms[earlier])
    agreeing = (before.label[earlier] == after.label[later]) & same_height
    return _Candidate(drift, matching, int(agreeing.sum()))


def _is_one_area(matching: Matching) -> bool:
    fewer = len(matching.pairs) + min(len(matching.lost), len(matching.appeared))
    return len(matching.pairs) >= LEAST_MATCHED * fewer and len(matching.pairs) > 0
