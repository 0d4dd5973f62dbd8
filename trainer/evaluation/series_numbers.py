"""What `numbers.json` holds of a model of focal series."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from trainer.evaluation.height_scores import height_reliability, heights_in, score_heights
from trainer.evaluation.limits import LimitCurve, TripletDetectability, dose_efficiency, error_rate
from trainer.evaluation.merits import COUNTED_DEPTH, MIDDLE, TRIPLET, Task, merits
from trainer.evaluation.reliability import Reliability
from trainer.evaluation.scores import Outcome, by_dose, ratio, reliability, score
from trainer.evaluation.species_scores import score_species, species_reliability

ByMethod = Mapping[str, Sequence[Outcome]]


def numbers_of(outcomes: Sequence[Outcome], task: Task) -> dict[str, Any]:
    """All scores of one method at one condition, over all doses and for each."""
    return {
        "all": _scores(outcomes, task),
        "by_dose": {_key(dose): _scores(group, task) for dose, group in by_dose(outcomes).items()},
    }


def reliabilities(outcomes: Sequence[Outcome], task: Task) -> dict[str, Reliability]:
    """Of every probability that the table holds, by its column."""
    told = {"probability": reliability(outcomes), "species_probability": species_reliability(outcomes)}
    if task == "heights":
        told["n_atoms_probability"] = height_reliability(heights_in(outcomes))
    return told


def limit_numbers(answers: Mapping[str, TripletDetectability], by_method: ByMethod) -> dict[str, Any]:
    """By question and method: d' and Φ(-d'/2) at each dose."""

    def at_every_dose(d_prime: float) -> dict[str, Any]:
        values = {dose: d_prime * float(np.sqrt(dose)) for dose in by_dose(by_method[TRIPLET])}
        return {_key(dose): {"d_prime": value, "error": float(error_rate(value))} for dose, value in values.items()}

    return {
        question: {TRIPLET: at_every_dose(answer.triplet), MIDDLE: at_every_dose(answer.middle)}
        for question, answer in answers.items()
    }


def dose_efficiencies(
    by_method: ByMethod, task: Task, limits: Mapping[str, Mapping[str, LimitCurve]]
) -> dict[str, Any]:
    """By method, dose and merit: what the ideal observer reaches who sees as much, and the share of the dose he needs.

    Args:
        by_method: At one condition.
        task: Which merits.
        limits: By merit, then by method.
    """
    numbers: dict[str, Any] = {}
    for method, outcomes in by_method.items():
        numbers[method] = {}
        for dose, group in by_dose(outcomes).items():
            numbers[method][_key(dose)] = {
                merit: {
                    "limit": 1 - limits[merit][method].error_at(dose),
                    "dose_efficiency": dose_efficiency(dose, 1 - share, limits[merit][method]),
                }
                for merit, share in merits(group, task).items()
                if merit in limits
            }
    return numbers


def errors_left(by_method: ByMethod, task: Task) -> dict[str, Any]:
    """By dose and merit: the triplet's wrong answers over those from its middle frame alone."""
    middle = by_dose(by_method[MIDDLE])
    numbers = {}
    for dose, group in by_dose(by_method[TRIPLET]).items():
        ours, others = merits(group, task), merits(middle[dose], task)
        numbers[_key(dose)] = {merit: ratio(1 - share, 1 - others[merit]) for merit, share in ours.items()}
    return numbers


def _scores(outcomes: Sequence[Outcome], task: Task) -> dict[str, Any]:
    scores = asdict(score(outcomes))
    scores["merits"] = merits(outcomes, task)
    scores["species"] = asdict(score_species(outcomes))
    if task == "heights":
        heights = heights_in(outcomes)
        scores["heights"] = {
            f"1 to {COUNTED_DEPTH}": asdict(score_heights(heights.up_to(COUNTED_DEPTH))),
            "all": asdict(score_heights(heights)),
        }
    scores["alignment"] = _alignment(outcomes)
    return scores


def _alignment(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """How far the measured drift of the later frames is from the true one."""
    errors = [np.zeros(0)]
    for outcome in outcomes:
        series, true = outcome.recognition.series, outcome.labelled.drift_angstrom
        if series is None or series.drift_angstrom is None or true is None:
            continue
        later = np.arange(len(true)) != series.first
        errors.append(np.linalg.norm(series.drift_angstrom - true, axis=1)[later])
    of_frames = np.concatenate(errors)
    median, most = np.percentile(of_frames, [50, 95]) if len(of_frames) else (np.nan, np.nan)
    return {"median_error_angstrom": float(median), "percentile_95_error_angstrom": float(most)}


def _key(dose: float) -> str:
    return f"{dose:.10g}"
