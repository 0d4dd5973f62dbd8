"""Which site of one table is which site of a later one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.analysis.sites import Sites

TOLERANCE_ANGSTROM = 0.5


@dataclass(frozen=True)
class Matching:
    """Rows of two tables, of which only those count that stand where both frames looked.

    Attributes:
        pairs: Shape (k, 2), row before and row after of the same site.
        lost: Shape (l,), rows before of sites that are no more.
        appeared: Shape (m,), rows after of sites that were not.
    """

    pairs: NDArray[np.intp]
    lost: NDArray[np.intp]
    appeared: NDArray[np.intp]

    @property
    def sites(self) -> int:
        """How many different sites there are in both."""
        return len(self.pairs) + len(self.lost) + len(self.appeared)


def match(before: Sites, after: Sites, drift_angstrom: NDArray[np.float64]) -> Matching:
    """Match sites that are each other's nearest, within `TOLERANCE_ANGSTROM`.

    Everything is matched, and only then is left out what one of the two frames could not see: a site that strays over
    the border of a frame is neither lost nor new.

    Args:
        before: Of the earlier table.
        after: Of the later one.
        drift_angstrom: Shape (2,), where the point (0, 0) of the earlier frame stands in the later one.
    """
    pairs = mutual_nearest(before.positions_angstrom + drift_angstrom, after.positions_angstrom)
    lost = np.setdiff1d(np.arange(len(before)), pairs[:, 0])
    appeared = np.setdiff1d(np.arange(len(after)), pairs[:, 1])

    low = np.maximum(before.view_angstrom[0], after.view_angstrom[0] - drift_angstrom)
    high = np.minimum(before.view_angstrom[1], after.view_angstrom[1] - drift_angstrom)

    def seen(positions_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(((positions_angstrom >= low) & (positions_angstrom <= high)).all(axis=1))

    before_seen = seen(before.positions_angstrom)
    return Matching(
        pairs=pairs[before_seen[pairs[:, 0]]],
        lost=lost[before_seen[lost]],
        appeared=appeared[seen(after.positions_angstrom[appeared] - drift_angstrom)],
    )


def mutual_nearest(before_angstrom: NDArray[np.float64], after_angstrom: NDArray[np.float64]) -> NDArray[np.intp]:
    """Shape (k, 2), indices of points, shapes (m, 2) and (n, 2), that are each other's nearest within tolerance."""
    if not len(before_angstrom) or not len(after_angstrom):
        return np.zeros((0, 2), np.intp)
    distance, nearest_after = cKDTree(after_angstrom).query(before_angstrom)
    _, nearest_before = cKDTree(before_angstrom).query(after_angstrom)
    index = np.arange(len(before_angstrom))
    mutual = (nearest_before[nearest_after] == index) & (distance <= TOLERANCE_ANGSTROM)
    return np.stack([index[mutual], nearest_after[mutual]], axis=1)
