"""The shares of right answers that series models are judged by, and what physics allows for each of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from daemon.atoms import VACANCY
from trainer.evaluation.height_scores import heights_in, score_heights
from trainer.evaluation.limits import (
    LimitCurve,
    TripletDetectability,
    error_rate,
    least_error_rate,
    miscount_rate,
    selection_error_rate,
)
from trainer.evaluation.reference_limits import HEIGHT, SPECIES, WEAKEST_SITE
from trainer.evaluation.scores import NOTHING, Outcome, ratio, species_confusion
from trainer.evaluation.species_scores import detection, right_share

Task = Literal["species", "heights"]

TRIPLET, MIDDLE = "triplet", "middle frame alone"
"""Who answers: a network, or an ideal observer, who sees all three frames or only the middle one."""

COUNTED_DEPTH = 14
"""Atoms in the deepest column that the shares are over; scores over all columns are given beside them."""

PAIR, SINGLE = "S2", "S"

LABELS = {
    "sites_f1": "Sites found, F1",
    "species_right": "Species right",
    "single_sulphur_precision": "Single S vacancies, precision",
    "single_sulphur_recall": "Single S vacancies, recall",
    "vacancy_precision": "Empty sites, precision",
    "vacancy_recall": "Empty sites, recall",
    "columns_f1": f"Columns of 1 to {COUNTED_DEPTH}, F1",
    "exact": "Count exact",
    "within_one": "Count within one",
}


def merits(outcomes: Sequence[Outcome], task: Task) -> dict[str, float]:
    """The shares of right answers over some frames (at least one), by the keys of `LABELS`; NaN where nothing is."""
    if task == "heights":
        heights = score_heights(heights_in(outcomes).up_to(COUNTED_DEPTH))
        return {"columns_f1": heights.f1, "exact": heights.exact_share, "within_one": heights.within_one_share}
    hits, false, missed = (
        sum(len(getattr(outcome.matching, part)) for outcome in outcomes) for part in ("pairs", "false", "missed")
    )
    confusion = species_confusion(outcomes)
    single, empty = detection(confusion, SINGLE), detection(confusion, VACANCY)
    return {
        "sites_f1": ratio(2 * hits, 2 * hits + false + missed),
        "species_right": right_share(confusion),
        "single_sulphur_precision": single.precision,
        "single_sulphur_recall": single.recall,
        "vacancy_precision": empty.precision,
        "vacancy_recall": empty.recall,
    }


def merit_limits(
    outcomes: Sequence[Outcome], task: Task, detectability: Mapping[str, TripletDetectability]
) -> dict[str, dict[str, LimitCurve]]:
    """What lacks to 1 in each share where ideal observers answer, for the sites that stand in some frames.

    The observer knows how often each case occurs. Where only some sites are in doubt, the others are right: all but
    the weakest are always found, and metal is never taken for sulphur. Of precision and recall neither is a limit by
    itself: he calls as many sites vacancies as there are, and who calls more misses fewer of them.

    Args:
        outcomes: Frames of one condition; only their truth matters.
        task: Which shares.
        detectability: By question, see `reference_limits.triplet_limits`.

    Returns:
        By share, then by `TRIPLET` and `MIDDLE`; without the shares of cases that do not occur.
    """
    errors = _height_errors(outcomes) if task == "heights" else _species_errors(outcomes)
    return {
        merit: {
            TRIPLET: LimitCurve.of_detection(detectability[question].triplet, error_of),
            MIDDLE: LimitCurve.of_detection(detectability[question].middle, error_of),
        }
        for merit, (question, error_of) in errors.items()
    }


_ErrorOf = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Share of wrong answers by d'."""


def _species_errors(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, _ErrorOf]]:
    """By share: the question that decides it, and how many of all sites are wrong."""
    counts = {true: sum(row.values()) for true, row in species_confusion(outcomes).items() if true != NOTHING}
    pair, single, empty = (counts.get(name, 0) for name in (PAIR, SINGLE, VACANCY))
    sites = sum(counts.values())
    errors: dict[str, tuple[str, _ErrorOf]] = {}
    if single:
        errors["sites_f1"] = WEAKEST_SITE, _among(error_rate, single / sites)
    if single and pair:
        share = single / (pair + single)
        guess = _among(partial(least_error_rate, share=share), (pair + single) / sites)
        errors["species_right"] = SPECIES, guess
        for merit in ("single_sulphur_precision", "single_sulphur_recall"):
            errors[merit] = SPECIES, partial(selection_error_rate, share=share)
    if single and empty:
        for merit in ("vacancy_precision", "vacancy_recall"):
            errors[merit] = WEAKEST_SITE, partial(selection_error_rate, share=empty / (single + empty))
    return errors


def _height_errors(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, _ErrorOf]]:
    """By share: the question that decides it, and how many of all columns are wrong."""
    true = heights_in(outcomes).up_to(COUNTED_DEPTH).true
    columns = true[true > 0]
    errors: dict[str, tuple[str, _ErrorOf]] = {
        "exact": (HEIGHT, miscount_rate),
        "within_one": (HEIGHT, partial(miscount_rate, tolerance=1)),
    }
    if (columns == 1).any():
        errors["columns_f1"] = WEAKEST_SITE, _among(error_rate, float((columns == 1).mean()))
    return errors


def _among(error_of: _ErrorOf, doubtful: float) -> _ErrorOf:
    """The error over all sites where only a share of them is in doubt."""
    return lambda d_prime: doubtful * error_of(d_prime)
