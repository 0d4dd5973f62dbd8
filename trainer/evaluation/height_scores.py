"""How well the atoms of each column are counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.atoms import SUPPORT
from trainer.evaluation.reliability import Reliability, reliability_of
from trainer.evaluation.scores import Outcome, names_found, numbers_in, ratio

DEEPEST = 24
"""Rows and columns of the confusion matrix, besides those of nothing."""


@dataclass(frozen=True)
class Heights:
    """The columns of metal that are judged, true and found; columns of oxide are not counted, by anyone.

    Attributes:
        true: Shape (columns,), atoms in each; 0 where a column was found that is none, or one of oxide.
        found: Shape (columns,), atoms given to it; 0 where it was missed or taken for oxide, NaN where it was found
            and the table does not tell.
        probability: Shape (columns,), `n_atoms_probability`, NaN where the table does not tell.
    """

    true: NDArray[np.float64]
    found: NDArray[np.float64]
    probability: NDArray[np.float64]

    @property
    def both(self) -> NDArray[np.bool_]:
        """Shape (columns,), which are there and were found."""
        return np.asarray((self.true > 0) & (self.found != 0))

    def up_to(self, deepest: float) -> "Heights":
        """Without the columns that are truly deeper. Those that are none stay: nobody knows how deep they are."""
        kept = self.true <= deepest
        return Heights(self.true[kept], self.found[kept], self.probability[kept])


@dataclass(frozen=True)
class HeightScores:
    """Scores of the counts, pooled over frames; NaN where there is nothing to score.

    Attributes:
        columns: True columns of metal that are judged.
        f1: Harmonic mean of precision and recall of columns of metal.
        exact_share: Share of the columns found whose count is right.
        within_one_share: Share of them whose count is wrong by one at the most.
        mean_error: Found minus true atoms, on average.
        calibration_error: Expected calibration error of `n_atoms_probability`, over the columns found.
        confusion: Columns by true count (rows) and by the count found, both from 0 to `DEEPEST` and with all that are
            deeper in the last; 0 stands for nothing there or nothing found.
    """

    columns: int
    f1: float
    exact_share: float
    within_one_share: float
    mean_error: float
    calibration_error: float
    confusion: NDArray[np.int64]


def heights_in(outcomes: Sequence[Outcome]) -> Heights:
    """The columns of metal of some frames (at least one), all of whose truths tell atom counts.

    Raises:
        ValueError: One of them does not.
    """
    parts = [_of_frame(outcome) for outcome in outcomes]
    return Heights(*np.concatenate(parts, axis=1))


def score_heights(heights: Heights) -> HeightScores:
    """Score the counts of columns."""
    both = heights.both
    error = (heights.found - heights.true)[both]
    told = np.isfinite(error)
    hits, missed = int(both.sum()), int((heights.found == 0).sum())
    false = len(both) - hits - missed
    return HeightScores(
        columns=hits + missed,
        f1=ratio(2 * hits, 2 * hits + missed + false),
        exact_share=ratio((error == 0).sum(), hits),
        within_one_share=ratio((np.abs(error) <= 1).sum(), hits),
        mean_error=ratio(error[told].sum(), told.sum()),
        calibration_error=height_reliability(heights).expected_calibration_error,
        confusion=_confusion(heights),
    )


def height_reliability(heights: Heights) -> Reliability:
    """Reliability of `n_atoms_probability`: that a column that is there has as many atoms as stated."""
    both = heights.both
    return reliability_of([heights.probability[both]], [(heights.found == heights.true)[both]])


def _of_frame(outcome: Outcome) -> NDArray[np.float64]:
    """Shape (3, columns): true, found and probability, as `Heights` has them."""
    labelled, matching = outcome.labelled, outcome.matching
    if labelled.atom_counts is None:
        raise ValueError(f"{labelled.subject.name}: its truth does not tell how many atoms the columns have")
    true_metal = np.array([name != SUPPORT for name in labelled.species], dtype=bool)
    found_metal = np.array([name != SUPPORT for name in names_found(outcome.recognition)], dtype=bool)
    true = np.where(true_metal, labelled.atom_counts, 0)
    found = np.where(found_metal, numbers_in(outcome.recognition, "n_atoms"), 0)
    probability = numbers_in(outcome.recognition, "n_atoms_probability")

    i, j = matching.pairs.T
    nothing_true, nothing_found = np.zeros(len(matching.false)), np.zeros(len(matching.missed))
    unknown = np.full(len(matching.missed), np.nan)
    columns = np.stack(
        [
            np.concatenate([true[j], nothing_true, true[matching.missed]]),
            np.concatenate([found[i], found[matching.false], nothing_found]),
            np.concatenate([probability[i], probability[matching.false], unknown]),
        ]
    )
    # Oxide that was missed or taken for what it is.
    return columns[:, (columns[0] != 0) | (columns[1] != 0)]


def _confusion(heights: Heights) -> NDArray[np.int64]:
    told = np.isfinite(heights.found)
    side = DEEPEST + 1
    rows, columns = (np.minimum(counts[told], DEEPEST).astype(int) for counts in (heights.true, heights.found))
    return np.bincount(rows * side + columns, minlength=side**2).reshape(side, side)
