"""The evaluation of a model of focal series: species or heights, from a triplet and from its middle frame alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from daemon.atoms import VACANCY
from trainer.evaluation import figures, series_figures
from trainer.evaluation.height_scores import DEEPEST, heights_in, score_heights
from trainer.evaluation.limits import LimitCurve, TripletDetectability
from trainer.evaluation.merits import LABELS, MIDDLE, TRIPLET, Task, merit_limits, merits
from trainer.evaluation.reliability import Reliability
from trainer.evaluation.report import (
    NOTHING,
    RANGE,
    REFERENCE,
    OutcomesByMethod,
    conditions_of,
    examples,
    provenance,
    slug,
    write_numbers,
)
from trainer.evaluation.scores import NOTHING as NO_SITE
from trainer.evaluation.scores import Outcome, by_dose, judge, score, species_confusion
from trainer.evaluation.series_numbers import (
    dose_efficiencies,
    errors_left,
    limit_numbers,
    numbers_of,
    reliabilities,
)
from trainer.evaluation.truth import LabelledFrame, Recogniser

DOSES_IN_CONFUSIONS = 3

FIRST_NAMES = ("Mo", "S2", "S", VACANCY)
"""Of the confusion matrix; others follow in alphabetical order, and what was missed or is false at the end."""

PROBABILITIES = {
    "probability": ("Share that is there", "reliability.png"),
    "species_probability": ("Share of this species", "reliability_species.png"),
    "n_atoms_probability": ("Share of this count", "reliability_heights.png"),
}
"""By column of the atom table: what is shown of it, and where."""


def write_series_report(
    recogniser: Recogniser,
    test_sets: Mapping[str, Sequence[LabelledFrame]],
    folder: Path,
    task: Task,
    middle_alone: Recogniser | None = None,
    detectability: Mapping[str, Mapping[str, TripletDetectability]] | None = None,
) -> dict[str, Any]:
    """Evaluate a model of focal series, and what the triplet is worth, on the same series with the same scoring.

    Args:
        recogniser: The model, as the daemon runs it.
        test_sets: Any of `REFERENCE`, `RANGE` and `NOTHING`, of series. Every one's conditions name a `CONDITION`;
            those of the first two also a `DOSE`, and for heights their truth tells atom counts.
        folder: Where the report goes; made where it is missing.
        task: What the model tells of a site.
        middle_alone: A network trained alike that sees nothing of a series but its middle frame.
        detectability: What `reference_limits.triplet_limits` gives, by `CONDITION`.

    Returns:
        What `numbers.json` holds. Methods are `TRIPLET` and `MIDDLE`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    networks = {TRIPLET: recogniser} | ({MIDDLE: middle_alone} if middle_alone is not None else {})
    outcomes = {
        name: {
            method: judge(network, tqdm(subjects, f"{name}: {method}", disable=None))
            for method, network in networks.items()
        }
        for name, subjects in test_sets.items()
    }
    by_condition = {name: conditions_of(by_method) for name, by_method in outcomes.items()}
    reference = by_condition.get(REFERENCE, {})
    known = {condition: answers for condition, answers in (detectability or {}).items() if condition in reference}
    limits = {
        condition: merit_limits(reference[condition][TRIPLET], task, answers) for condition, answers in known.items()
    }

    numbers: dict[str, Any] = provenance(next(iter(outcomes.values()))[TRIPLET][0].recognition)
    numbers["test_sets"] = {
        name: {
            condition: {method: numbers_of(group, task) for method, group in by_method.items()}
            for condition, by_method in conditions.items()
        }
        for name, conditions in by_condition.items()
    }
    with_sites = [name for name in (REFERENCE, RANGE) if name in outcomes]
    told = {name: reliabilities(outcomes[name][TRIPLET], task) for name in with_sites}
    numbers["reliability"] = {
        name: {column: asdict(of_column) for column, of_column in columns.items()} for name, columns in told.items()
    }
    numbers["limits"] = {name: limit_numbers(answers, reference[name]) for name, answers in known.items()}
    numbers["dose_efficiency"] = {
        condition: dose_efficiencies(reference[condition], task, limit) for condition, limit in limits.items()
    }
    if middle_alone is not None:
        numbers["errors_left"] = {name: errors_left(by_method, task) for name, by_method in reference.items()}

    for name in with_sites:
        for condition, by_method in by_condition[name].items():
            stem = folder / f"{name}_{slug(condition)}"
            _draw_condition(by_method, task, limits.get(condition, {}), condition, stem)
    _draw_calibration({name: outcomes[name][TRIPLET] for name in with_sites}, told, folder)
    if NOTHING in outcomes:
        rates = {
            condition: {method: score(group).false_per_100_nm2 for method, group in by_method.items()}
            for condition, by_method in by_condition[NOTHING].items()
        }
        figures.draw_false_positives(rates, folder / "false_positives.png")
    figures.draw_overlays([examples(by_method[TRIPLET]) for by_method in outcomes.values()], folder / "overlays.png")
    return write_numbers(numbers, folder)


def _draw_condition(
    by_method: OutcomesByMethod,
    task: Task,
    limits: Mapping[str, Mapping[str, LimitCurve]],
    condition: str,
    stem: Path,
) -> None:
    """Everything against dose at one condition, into files whose names begin alike."""
    doses = {method: by_dose(outcomes) for method, outcomes in by_method.items()}
    curves = {method: {dose: merits(group, task) for dose, group in groups.items()} for method, groups in doses.items()}
    series_figures.draw_merit_curves(curves, limits, LABELS, condition, Path(f"{stem}.png"))
    sites = {method: {dose: score(group) for dose, group in groups.items()} for method, groups in doses.items()}
    figures.draw_dose_curves(sites, None, condition, Path(f"{stem}_sites.png"))

    names = _names(by_method)
    species = [_titled(method, groups, partial(_species_matrix, names=names)) for method, groups in doses.items()]
    series_figures.draw_confusions(species, names, "Species", Path(f"{stem}_species.png"))
    if task == "heights":
        depths = ["none", *map(str, range(1, DEEPEST)), f"≥ {DEEPEST}"]
        heights = [_titled(method, groups, _height_matrix) for method, groups in doses.items()]
        series_figures.draw_confusions(heights, depths, "Atoms", Path(f"{stem}_heights.png"))


def _titled(
    method: str,
    groups: Mapping[float, Sequence[Outcome]],
    matrix_of: Callable[[Sequence[Outcome]], NDArray[np.int64]],
) -> dict[str, NDArray[np.int64]]:
    """Confusion matrices of one method at a few doses, spread over all there are."""
    doses = sorted(groups)
    spread = np.linspace(0, len(doses) - 1, DOSES_IN_CONFUSIONS).round().astype(int)
    return {f"{method}, {doses[i]:g} e/Å²": matrix_of(groups[doses[i]]) for i in np.unique(spread)}


def _names(by_method: OutcomesByMethod) -> list[str]:
    """What occurs anywhere, in the order in which confusion matrices show it."""
    confusions = [species_confusion(outcomes) for outcomes in by_method.values()]
    names = {name for confusion in confusions for true, row in confusion.items() for name in (true, *row)}
    first = [name for name in FIRST_NAMES if name in names]
    return [*first, *sorted(names - {*first, NO_SITE}), NO_SITE]


def _species_matrix(outcomes: Sequence[Outcome], names: Sequence[str]) -> NDArray[np.int64]:
    confusion = species_confusion(outcomes)
    return np.array([[confusion.get(true, {}).get(found, 0) for found in names] for true in names])


def _height_matrix(outcomes: Sequence[Outcome]) -> NDArray[np.int64]:
    return score_heights(heights_in(outcomes)).confusion


def _draw_calibration(
    outcomes: Mapping[str, Sequence[Outcome]], told: Mapping[str, Mapping[str, Reliability]], folder: Path
) -> None:
    """Whether probabilities and sigmas are what they say, a panel for each test set."""
    for column, (share_label, file_name) in PROBABILITIES.items():
        of_sets = {name: columns[column] for name, columns in told.items() if column in columns}
        if of_sets:
            figures.draw_reliability(of_sets, folder / file_name, share_label)
    if outcomes:
        spreads = {name: np.concatenate([o.errors_over_sigma for o in group]) for name, group in outcomes.items()}
        figures.draw_error_over_sigma(spreads, folder / "error_over_sigma.png")
