"""How far stated probabilities can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RELIABILITY_BINS = 15


@dataclass(frozen=True)
class Reliability:
    """How often answers of a given probability are right.

    Attributes:
        probability: Shape (bins,), mean probability of the atoms in each bin, NaN where there is none.
        true_share: Shape (bins,), share of them that are right, NaN where there is none.
        atoms: Shape (bins,), how many.
    """

    probability: NDArray[np.float64]
    true_share: NDArray[np.float64]
    atoms: NDArray[np.int64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of probability and true share over all atoms (Naeini et al., AAAI 2015)."""
        used = self.atoms > 0
        if not used.any():
            return float("nan")
        return float(np.average(np.abs(self.probability - self.true_share)[used], weights=self.atoms[used]))


def reliability_of(probability: Sequence[NDArray[np.floating[Any]]], right: Sequence[NDArray[np.bool_]]) -> Reliability:
    """Reliability in bins of equal width; answers without a probability are left out.

    Args:
        probability: One array a frame, NaN where the table does not tell.
        right: The same, whether what the probability speaks of is so.
    """
    stated, true = np.concatenate([np.zeros(0), *probability]), np.concatenate([np.zeros(0), *right])
    stated, true = stated[np.isfinite(stated)], true[np.isfinite(stated)]
    bins = np.minimum((stated * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    atoms = np.bincount(bins, minlength=RELIABILITY_BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            probability=np.bincount(bins, stated, RELIABILITY_BINS) / atoms,
            true_share=np.bincount(bins, true, RELIABILITY_BINS) / atoms,
            atoms=atoms,
        )
