"""Which found atom is which true site."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

TOLERANCE_ANGSTROM = 0.5
BORDER_ANGSTROM = 2.0

IGNORED_REACH_ANGSTROM = 0.8
"""Around an ignored site training leaves the answer free (`trainer.batches.IGNORED_RADIUS_CELLS`), so none is wrong."""


@dataclass(frozen=True)
class View:
    """The part of a frame in which atoms are counted: all of it but a border, where half an atom may be cut off.

    Attributes:
        low_angstrom: x and y of its top left corner, from the centre of the frame's top-left pixel.
        high_angstrom: x and y of its bottom right corner.
    """

    low_angstrom: tuple[float, float]
    high_angstrom: tuple[float, float]

    @classmethod
    def of_frame(
        cls, shape: tuple[int, ...], pixel_size_angstrom: float, border_angstrom: float = BORDER_ANGSTROM
    ) -> "View":
        """The view of a frame of this many rows and columns; pixels reach half a pixel beyond their centres."""
        height, width = shape
        low = border_angstrom - pixel_size_angstrom / 2
        return cls(
            (low, low),
            (
                (width - 0.5) * pixel_size_angstrom - border_angstrom,
                (height - 0.5) * pixel_size_angstrom - border_angstrom,
            ),
        )

    def shared(self, drift_angstrom: NDArray[np.float64] | None) -> "View":
        """The part of the view that stays in view while the specimen drifts.

        Args:
            drift_angstrom: Shape (frames, 2), how far everything has moved in each frame; None for a single frame.
        """
        if drift_angstrom is None:
            return self
        left, top = (self.low_angstrom - drift_angstrom).max(axis=0).tolist()
        right, bottom = (self.high_angstrom - drift_angstrom).min(axis=0).tolist()
        return View((left, top), (right, bottom))

    def holds(self, positions_angstrom: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Shape (n,), which of the positions, shape (n, 2), lie in the view."""
        inside = (positions_angstrom >= self.low_angstrom) & (positions_angstrom <= self.high_angstrom)
        return np.asarray(inside.all(axis=1))

    @property
    def area_square_angstrom(self) -> float:
        """What scores per area divide by."""
        width, height = np.subtract(self.high_angstrom, self.low_angstrom).clip(min=0)
        return float(width * height)


@dataclass(frozen=True)
class Matching:
    """The judgement of one frame, as indices into what was found and what is true.

    Attributes:
        pairs: Shape (k, 2), found atom and true site that are one and the same.
        false: Shape (f,), found atoms where no site is.
        missed: Shape (m,), true sites that were not found.
    """

    pairs: NDArray[np.intp]
    false: NDArray[np.intp]
    missed: NDArray[np.intp]


def match(
    found_angstrom: NDArray[np.float64],
    truth_angstrom: NDArray[np.float64],
    view: View,
    ignored: NDArray[np.bool_] | None = None,
    tolerance_angstrom: float = TOLERANCE_ANGSTROM,
) -> Matching:
    """Match found atoms and true sites one to one, nearest pairs first.

    Everything is matched, and only then is the border left out: a pair or a missed site counts where the true site
    lies in the view, a false atom where it does so itself. An atom that strays over the border thus stays a hit.

    Args:
        found_angstrom: Shape (m, 2).
        truth_angstrom: Shape (n, 2).
        view: Where atoms are counted.
        ignored: Shape (n,), sites that count neither found nor missed. A found atom nearest to such a site, or left
            over within `IGNORED_REACH_ANGSTROM` of one, counts neither as true nor as false.
        tolerance_angstrom: Largest distance of a pair.

    Returns:
        The pairs (nearest first), the false and the missed in the view.
    """
    pairs = _nearest_first(found_angstrom, truth_angstrom, tolerance_angstrom)
    unmatched = np.setdiff1d(np.arange(len(found_angstrom)), pairs[:, 0])
    missed = np.setdiff1d(np.arange(len(truth_angstrom)), pairs[:, 1])

    if ignored is not None and ignored.any():
        pairs = pairs[~ignored[pairs[:, 1]]]
        missed = missed[~ignored[missed]]
        distance, _ = cKDTree(truth_angstrom[ignored]).query(found_angstrom[unmatched])
        unmatched = unmatched[distance > IGNORED_REACH_ANGSTROM]

    site_counts = view.holds(truth_angstrom)
    return Matching(
        pairs=pairs[site_counts[pairs[:, 1]]],
        false=unmatched[view.holds(found_angstrom[unmatched])],
        missed=missed[site_counts[missed]],
    )


def _nearest_first(
    found: NDArray[np.float64], truth: NDArray[np.float64], tolerance_angstrom: float
) -> NDArray[np.intp]:
    """Shape (k, 2), pairs of indices: always the closest two of all that are still single."""
    close = cKDTree(found).sparse_distance_matrix(cKDTree(truth), tolerance_angstrom, output_type="coo_matrix")
    found_is_single = np.ones(len(found), dtype=bool)
    truth_is_single = np.ones(len(truth), dtype=bool)
    pairs = []
    for candidate in np.argsort(close.data, kind="stable"):
        i, j = close.row[candidate], close.col[candidate]
        if found_is_single[i] and truth_is_single[j]:
            found_is_single[i] = truth_is_single[j] = False
            pairs.append((i, j))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
