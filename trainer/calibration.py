"""What a network says of itself against what is true, in held-out frames: its calibration."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from daemon.atoms import SUPPORT
from daemon.recognition.calibrate import calibration_features
from daemon.recognition.package import Calibration, ModelPackage
from daemon.recognition.recogniser import Recogniser
from trainer.evaluation.matching import TOLERANCE_ANGSTROM
from trainer.evaluation.scores import NORMAL_MEDIAN_DEVIATION, Outcome, outcome_of
from trainer.evaluation.truth import LabelledFrame


def fit_calibration(uncalibrated: ModelPackage, frames: Iterable[LabelledFrame]) -> Calibration:
    """Fit what the network says of itself to held-out frames or series, through the daemon's own recogniser.

    Probability by logistic regression of "was there a site" on the network's probability and sigma; sigma by the ratio
    of true errors to those stated; temperatures and offsets by the likelihood of the true classes and atoms. Series
    that the aligner got wrong are left out: sites that the network is sure of stand elsewhere there, which says nothing
    of the network, and a few such series would make its probability count for nothing.
    """
    recogniser = Recogniser(uncalibrated)
    probabilities, sigmas, hits, errors, species, atoms = [], [], [], [], [], []
    for labelled in frames:
        outcome = outcome_of(recogniser.recognise(labelled.subject), labelled)
        if _is_misaligned(outcome):
            continue
        found, false = outcome.matching.pairs[:, 0], outcome.matching.false
        judged = np.concatenate([found, false])
        table = outcome.recognition.table
        probabilities.append(table.column("probability").to_numpy()[judged])
        sigmas.append(table.column("sigma_angstrom").to_numpy()[judged])
        hits.append(np.arange(len(judged)) < len(found))
        errors.append(outcome.errors_over_sigma.ravel())
        species.append(_said_of_true_species(outcome, uncalibrated.manifest.classes))
        atoms.append(_said_of_true_counts(outcome, uncalibrated.manifest.deepest_column))
    if not any(hit.any() for hit in hits):  # after a smoke run, say: there is nothing to fit
        return Calibration()
    slope, sigma_slope, offset = _logistic_regression(
        *calibration_features(np.concatenate(probabilities), np.concatenate(sigmas)), np.concatenate(hits)
    )
    # The median ignores the few matches by chance that a mean of squares would follow.
    scale = float(np.median(np.abs(np.concatenate(errors))) / NORMAL_MEDIAN_DEVIATION)
    species_offsets, species_temperature = offsets_and_temperature(species)
    return Calibration(
        probability_slope=slope,
        probability_sigma_slope=sigma_slope,
        probability_offset=offset,
        sigma_scale=scale,
        species_offsets=species_offsets,
        species_temperature=species_temperature,
        atoms_temperature=_temperature(atoms),
    )


def _is_misaligned(outcome: Outcome) -> bool:
    series, true = outcome.recognition.series, outcome.labelled.drift_angstrom
    if series is None or series.drift_angstrom is None or true is None:
        return False
    return bool(np.linalg.norm(series.drift_angstrom - true, axis=1).max() > TOLERANCE_ANGSTROM)


Answers = tuple[NDArray[np.floating[Any]], NDArray[np.int64]]
"""What the network said, shape (n, answers), probabilities that add up to 1; and which answer was right, shape (n,)."""


def _said_of_true_species(outcome: Outcome, classes: tuple[str, ...]) -> Answers:
    found, true = outcome.matching.pairs.T
    # A model that tells no element calls each of them metal.
    names = [name if name in classes else "metal" for name in np.array(outcome.labelled.species)[true].tolist()]
    assert outcome.recognition.peaks is not None
    return outcome.recognition.peaks.class_probability[found], np.array([classes.index(name) for name in names], int)


def _said_of_true_counts(outcome: Outcome, deepest_column: int) -> Answers:
    assert outcome.recognition.peaks is not None
    said, counts = outcome.recognition.peaks.atoms_probability, outcome.labelled.atom_counts
    if said is None or counts is None:
        return np.zeros((0, 1)), np.zeros(0, int)
    found, true = outcome.matching.pairs.T
    counted = np.array(outcome.labelled.species)[true] != SUPPORT
    return said[found[counted]], np.minimum(counts[true[counted]], deepest_column).astype(int) - 1


def _joined(answers: Sequence[Answers]) -> Answers:
    """All answers in one, and of what was said the logarithm."""
    said = np.log(np.clip(np.concatenate([said for said, _ in answers]), 1e-9, None))
    return said, np.concatenate([right for _, right in answers])


def _temperature(answers: Sequence[Answers]) -> float:
    """The temperature under which the right answers are most probable, see `daemon.recognition.package.Calibration`."""
    said, right = _joined(answers)
    if said.shape[1] < 2 or not len(right):
        return 1.0

    def surprise(log_temperature: float) -> float:
        cooled = said * np.exp(-log_temperature)
        return float((logsumexp(cooled, axis=1) - cooled[np.arange(len(right)), right]).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-2.0, 2.0), method="bounded").x))


def offsets_and_temperature(answers: Sequence[Answers]) -> tuple[tuple[float, ...], float]:
    """The offsets and the temperature under which the right answers are most probable.

    A weak belief that there is nothing to correct holds those of classes that hardly occur.
    """
    said, right = _joined(answers)
    kinds = said.shape[1]
    if kinds < 2 or not len(right):
        return (), 1.0

    def surprise(parameters: NDArray[np.float64]) -> float:
        shifted = (said + parameters[:kinds]) * np.exp(-parameters[kinds])
        likelihood = (shifted[np.arange(len(right)), right] - logsumexp(shifted, axis=1)).sum()
        return float(np.square(parameters).sum() / 2 - likelihood) / len(right)

    best = minimize(surprise, np.zeros(kinds + 1)).x
    return tuple(best[:kinds].tolist()), float(np.exp(best[kinds]))


def _logistic_regression(
    logit: NDArray[np.floating[Any]], log_sigma: NDArray[np.floating[Any]], hit: NDArray[np.bool_]
) -> tuple[float, float, float]:
    features = np.stack([logit, log_sigma, np.ones(len(logit))], axis=1)
    sign = np.where(hit, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -sign * (features @ weights)).mean())

    slope, sigma_slope, offset = minimize(loss, np.array([1.0, 0.0, 0.0])).x
    return float(slope), float(sigma_slope), float(offset)
