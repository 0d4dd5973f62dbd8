"""How well species are told apart, and vacancies from sites that hold something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daemon.atoms import SUPPORT, VACANCY
from trainer.evaluation.reliability import Reliability, reliability_of
from trainer.evaluation.scores import NOTHING, UNNAMED, Outcome, names_found, numbers_in, ratio, species_confusion

Confusion = Mapping[str, Mapping[str, int]]
"""Sites by true species, then by the species found; see `species_confusion`."""


@dataclass(frozen=True)
class Detection:
    """How well sites of one species are picked out of all others; NaN where there is nothing to score.

    Attributes:
        true: Sites of the species.
        found: Sites that are called so.
        precision: Share of what is called so that is; a site that is none is not.
        recall: Share of the sites that are called so; one that is not found is not.
    """

    true: int
    found: int
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, NaN where either is."""
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)


@dataclass(frozen=True)
class SpeciesScores:
    """Scores of the species, pooled over frames.

    Attributes:
        right_share: Share of the sites found that have the right species, NaN where no site was found.
        by_species: Each species that stands in the frames or was found there, vacancies among them.
        calibration_error: Expected calibration error of `species_probability`, over the sites found.
    """

    right_share: float
    by_species: dict[str, Detection]
    calibration_error: float


def score_species(outcomes: Sequence[Outcome]) -> SpeciesScores:
    """Pool the outcomes of some frames (at least one) into scores."""
    confusion = species_confusion(outcomes)
    names = {*confusion, *(name for row in confusion.values() for name in row)} - {NOTHING, UNNAMED}
    return SpeciesScores(
        right_share=right_share(confusion),
        by_species={name: detection(confusion, name) for name in sorted(names)},
        calibration_error=species_reliability(outcomes).expected_calibration_error,
    )


def right_share(confusion: Confusion) -> float:
    """Share of the sites found that have the right species, NaN where no site was found."""
    cells = [(true, name, count) for true, row in confusion.items() for name, count in row.items()]
    right = sum(count for true, name, count in cells if _is_right(true, name))
    return ratio(right, sum(count for true, name, count in cells if NOTHING not in (true, name)))


def detection(confusion: Confusion, name: str) -> Detection:
    """How well one species is picked out."""
    hits = confusion.get(name, {}).get(name, 0)
    true = sum(confusion.get(name, {}).values())
    found = sum(row.get(name, 0) for row in confusion.values())
    return Detection(true, found, ratio(hits, found), ratio(hits, true))


def species_reliability(outcomes: Sequence[Outcome]) -> Reliability:
    """Reliability of `species_probability`: that a site that is there is what it is called."""
    stated, right = [], []
    for outcome in outcomes:
        pairs, true, found = outcome.matching.pairs, outcome.labelled.species, names_found(outcome.recognition)
        stated.append(numbers_in(outcome.recognition, "species_probability")[pairs[:, 0]])
        right.append(np.array([_is_right(true[j], found[i]) for i, j in pairs], dtype=bool))
    return reliability_of(stated, right)


def _is_right(true: str, found: str) -> bool:
    # A model that tells no element from another is right about each that it does not take for oxide.
    return true == found or (found == UNNAMED and true not in (SUPPORT, VACANCY, NOTHING))
