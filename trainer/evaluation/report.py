"""The evaluation of a model: every figure of merit into `numbers.json`, and the figures into PNGs beside it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from daemon.recognition.recogniser import Recognition
from trainer.evaluation import figures
from trainer.evaluation.baselines import Method, PeakFinder, tune
from trainer.evaluation.graphene_geometry import RealGraphene, judge_real_graphene
from trainer.evaluation.limits import PhysicalLimits, dose_efficiency
from trainer.evaluation.matching import BORDER_ANGSTROM, TOLERANCE_ANGSTROM
from trainer.evaluation.scores import Outcome, Scores, by_dose, grouped, judge, reliability, score
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame, Recogniser

REFERENCE, RANGE, NOTHING = "reference", "range", "nothing"
"""Names of the test sets: the reference conditions dose by dose, the whole stated range, frames full of nothing."""

NETWORK = "hrtemd"
PEAK_FINDING: dict[Method, str] = {"gaussian": "Gaussian filter + peaks", "laplacian": "Laplacian of Gaussian + peaks"}

EXAMPLES_PER_SET = 3

OutcomesByMethod = dict[str, list[Outcome]]


def write_report(
    recogniser: Recogniser,
    test_sets: Mapping[str, Sequence[LabelledFrame]],
    folder: Path,
    tuning_frames: Sequence[LabelledFrame] = (),
    others: Mapping[str, Recogniser] | None = None,
    limits: Mapping[str, PhysicalLimits] | None = None,
    real_graphene: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model, and what it is compared with, on the same frames with the same scoring.

    Args:
        recogniser: The model, as the daemon runs it.
        test_sets: Any of `REFERENCE`, `RANGE` and `NOTHING`. Every frame's conditions name a `CONDITION`; frames of
            the first two also a `DOSE`.
        folder: Where the report goes; made where it is missing.
        tuning_frames: Frames like those of `REFERENCE`, to tune peak finding on; without any it is left out.
        others: More recognisers for the side-by-side, by the name they have in the figures.
        limits: Physical limits by `CONDITION`.
        real_graphene: The folder of `judge_real_graphene`.

    Returns:
        What `numbers.json` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    networks = {NETWORK: recogniser, **(others or {})}
    # Peak finding is tuned for each reference condition; a range of conditions is nothing it could be tuned for.
    tuning = {REFERENCE: tuning_frames}
    outcomes = {name: _judge_all(name, networks, frames, tuning.get(name, ())) for name, frames in test_sets.items()}
    by_condition = {name: conditions_of(by_method) for name, by_method in outcomes.items()}

    numbers: dict[str, Any] = provenance(next(iter(outcomes.values()))[NETWORK][0].recognition)
    numbers["test_sets"] = {
        name: {condition: _numbers_of(by_method) for condition, by_method in conditions.items()}
        for name, conditions in by_condition.items()
    }
    numbers["reliability"] = {name: asdict(reliability(by_method[NETWORK])) for name, by_method in outcomes.items()}
    numbers["dose_efficiency"] = {
        condition: _dose_efficiencies(by_condition.get(REFERENCE, {})[condition], limit)
        for condition, limit in (limits or {}).items()
        if condition in by_condition.get(REFERENCE, {})
    }
    if real_graphene is not None:
        real = judge_real_graphene(recogniser, real_graphene)
        numbers["real_graphene"] = _real_numbers(real)
        figures.draw_real_graphene(real, folder / "real_graphene.png")
    _draw(outcomes, by_condition, limits or {}, folder)

    return write_numbers(numbers, folder)


def write_numbers(numbers: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write `numbers.json`, and return what it holds."""
    plain: dict[str, Any] = _plain(numbers)
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "numbers.json").write_text(text + "\n", encoding="utf-8")
    return plain


def _judge_all(
    set_name: str,
    networks: Mapping[str, Recogniser],
    frames: Sequence[LabelledFrame],
    tuning_frames: Sequence[LabelledFrame],
) -> OutcomesByMethod:
    outcomes = {
        method: judge(recogniser, tqdm(frames, f"{set_name}: {method}", disable=None))
        for method, recogniser in networks.items()
    }
    if tuning_frames:
        for method, name in PEAK_FINDING.items():
            outcomes[name] = _judge_peak_finding(method, frames, tuning_frames)
    return outcomes


def _judge_peak_finding(
    method: Method, frames: Sequence[LabelledFrame], tuning_frames: Sequence[LabelledFrame]
) -> list[Outcome]:
    """Peak finding, tuned for each condition and dose that the tuning frames know, else on all of them."""
    alike: dict[_Kind | None, list[LabelledFrame]] = {None: list(tuning_frames)}
    for labelled in tuning_frames:
        alike.setdefault(_kind(labelled), []).append(labelled)
    finders: dict[_Kind | None, PeakFinder] = {}
    outcomes = []
    for labelled in frames:
        kind = _kind(labelled) if _kind(labelled) in alike else None
        if kind not in finders:
            finders[kind] = tune(method, alike[kind])
        outcomes += judge(finders[kind], [labelled])
    return outcomes


_Kind = tuple[float | str, float | str | None]


def _kind(labelled: LabelledFrame) -> _Kind:
    """Condition and dose."""
    return labelled.conditions[CONDITION], labelled.conditions.get(DOSE)


def conditions_of(by_method: OutcomesByMethod) -> dict[str, OutcomesByMethod]:
    """The same outcomes by condition, then by method."""
    conditions: dict[str, OutcomesByMethod] = {}
    for method, outcomes in by_method.items():
        for condition, group in grouped(outcomes, CONDITION).items():
            conditions.setdefault(condition, {})[method] = group
    return conditions


def _scores_by_dose(outcomes: Sequence[Outcome]) -> dict[float, Scores]:
    return {dose: score(group) for dose, group in by_dose(outcomes).items()}


def provenance(recognition: Recognition) -> dict[str, Any]:
    """Which network, on which engine, was scored how."""
    return {
        "model": recognition.model,
        "model_sha256": recognition.model_sha256,
        "backend": recognition.backend,
        "tolerance_angstrom": TOLERANCE_ANGSTROM,
        "border_angstrom": BORDER_ANGSTROM,
    }


def _numbers_of(by_method: OutcomesByMethod) -> dict[str, Any]:
    """All scores of one condition, by method, over all doses and for each."""
    return {
        method: {
            "all": asdict(score(outcomes)),
            "by_dose": {f"{dose:.10g}": asdict(scores) for dose, scores in _scores_by_dose(outcomes).items()},
        }
        for method, outcomes in by_method.items()
    }


def _dose_efficiencies(by_method: OutcomesByMethod, limit: PhysicalLimits) -> dict[str, Any]:
    """The limits at each dose, and what share of the dose each method makes use of."""
    numbers: dict[str, Any] = {}
    for method, outcomes in by_method.items():
        numbers[method] = {
            f"{dose:.10g}": {
                "displacement_limit_angstrom": limit.displacement.error_at(dose),
                "displacement": dose_efficiency(dose, scores.rmsd_angstrom, limit.displacement),
                "detection_limit": limit.detection.error_at(dose),
                "detection": dose_efficiency(dose, 1 - scores.f1, limit.detection),
            }
            for dose, scores in _scores_by_dose(outcomes).items()
        }
    return numbers


def _real_numbers(real: RealGraphene) -> dict[str, Any]:
    numbers = asdict(real)
    for row, image in zip(numbers["images"], real.images, strict=True):
        row["geometry"]["density_per_square_angstrom"] = image.geometry.density_per_square_angstrom
    return numbers


def _draw(
    outcomes: Mapping[str, OutcomesByMethod],
    by_condition: Mapping[str, Mapping[str, OutcomesByMethod]],
    limits: Mapping[str, PhysicalLimits],
    folder: Path,
) -> None:
    """Every figure that the test sets allow."""
    with_sites = [name for name in (REFERENCE, RANGE) if name in outcomes]
    for set_name in with_sites:
        for condition, by_method in by_condition[set_name].items():
            curves = {method: _scores_by_dose(group) for method, group in by_method.items()}
            path = folder / f"{set_name}_{slug(condition)}.png"
            figures.draw_dose_curves(curves, limits.get(condition), condition, path)
    if with_sites:
        networks = {name: outcomes[name][NETWORK] for name in with_sites}
        figures.draw_reliability({k: reliability(v) for k, v in networks.items()}, folder / "reliability.png")
        spreads = {name: np.concatenate([o.errors_over_sigma for o in group]) for name, group in networks.items()}
        figures.draw_error_over_sigma(spreads, folder / "error_over_sigma.png")
    if NOTHING in outcomes:
        rates = {
            condition: {method: score(group).false_in_empty_per_100_nm2 for method, group in by_method.items()}
            for condition, by_method in by_condition[NOTHING].items()
        }
        figures.draw_false_positives(rates, folder / "false_positives.png")
    figures.draw_overlays([examples(by_method[NETWORK]) for by_method in outcomes.values()], folder / "overlays.png")


def examples(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first frame of some conditions and doses, spread over all there are, to be drawn."""
    first: dict[_Kind, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda outcome: str(outcome.labelled.conditions[CONDITION])):
        first.setdefault(_kind(outcome.labelled), outcome)
    kinds = list(first.values())
    chosen = np.unique(np.linspace(0, len(kinds) - 1, EXAMPLES_PER_SET).round().astype(int))
    return [kinds[index] for index in chosen]


def slug(name: str) -> str:
    """A name as a part of a file's name."""
    return re.sub(r"[^a-z0-9.+-]+", "_", name.lower()).strip("_")


def _plain(value: Any) -> Any:
    """The same as JSON can hold it: what could not be computed is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
