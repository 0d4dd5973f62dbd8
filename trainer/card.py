"""The model card: what a microscopist must know before trusting a model, in one page of Markdown."""

import json
from collections.abc import Callable
from typing import Any

from daemon.recognition.package import Manifest, ModelPackage
from trainer.evaluation.merits import COUNTED_DEPTH, LABELS, MIDDLE, TRIPLET
from trainer.evaluation.report import NETWORK
from trainer.recipe import Recipe

TARGETS = {
    ("graphene", "positions"): "every carbon atom of graphene in one frame",
    ("nanoparticle", "positions"): "every column of fcc metals in one frame",
    (
        "nanoparticle",
        "heights",
    ): "every column of gold particles, and counts its atoms, in three frames at different defocus",
    (
        "mos2",
        "species",
    ): "every site of an MoS2 sheet, and what stands there or lacks, in three frames at different defocus",
}
"""By specimen and task."""


def write_card(package: ModelPackage, recipe: Recipe) -> None:
    """Write `MODEL_CARD.md` from the manifest, the recipe and `report/numbers.json`."""
    numbers = json.loads((package.folder / "report" / "numbers.json").read_text(encoding="utf-8"))
    parts = [
        _head(package.manifest),
        _ranges(package.manifest),
        _reference(numbers, recipe) if recipe.series is None else _series_reference(numbers, recipe),
        _nothing(numbers, NETWORK if recipe.series is None else TRIPLET),
        f"## Where it stops\n\n{recipe.remarks}" if recipe.remarks else "",
        _real(numbers),
        _origin(package.manifest, recipe),
    ]
    (package.folder / "MODEL_CARD.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _head(manifest: Manifest) -> str:
    target = TARGETS[manifest.specimen, manifest.task]
    classes = ", ".join(f"`{name}`" for name in manifest.classes)
    return (
        f"# {manifest.name} {manifest.version}\n\n"
        f"Finds {target}. Classes: {classes}. Frames are resampled to "
        f"{manifest.sampling_angstrom:g} Å per pixel. What has a calibrated probability of {manifest.probability_threshold:g} or more is reported.\n"
    )


def _ranges(manifest: Manifest) -> str:
    ranges = manifest.ranges
    rows = [
        ("pixel size, Å", ranges.pixel_size_angstrom),
        ("dose, e/Å²", ranges.dose_per_square_angstrom),
        ("voltage, kV", ranges.voltage_kv),
        ("Cs, µm", ranges.spherical_aberration_um),
        ("defocus, Å (underfocus positive)", ranges.defocus_angstrom),
    ]
    if ranges.defocus_step_angstrom is not None:
        rows[-1] = ("defocus of the middle frame, Å (underfocus positive)", ranges.defocus_angstrom)
        rows.append(("step of defocus, Å", ranges.defocus_step_angstrom))
    left_out = (
        " Left out on purpose: a lens whose astigmatism inverts the lattice's contrast along some direction. It shows a "
        "perfect lattice in the wrong place, and nothing in a single frame tells."
    )
    lines = [f"| {name} | {low:g} | {high:g} |" for name, (low, high) in rows]
    return (
        "## Trained for\n\n| | from | to |\n|---|---|---|\n" + "\n".join(lines) + "\n\n"
        "Residual aberrations to third order, partial coherence, drift, camera transfer and noise were drawn at random; "
        f"the recipe lists their ranges.{left_out if manifest.input_frames == 1 else ''}\n"
    )


def _reference(numbers: dict[str, Any], recipe: Recipe) -> str:
    sections = []
    for condition, by_method in numbers["test_sets"]["reference"].items():
        lines = [
            f"| {float(dose):g} | {_number(s['precision'], 4)} | {_number(s['recall'], 4)} | {_number(s['f1'], 4)} "
            f"| {_number(s['rmsd_angstrom'], 3)} | {_number(s['calibration_error'], 3)} "
            f"| {_number(s['error_over_sigma'], 2)} | {s['sites']} |"
            for dose, s in by_method[NETWORK]["by_dose"].items()
        ]
        sections.append(
            f"### {condition}\n\n"
            "| dose, e/Å² | precision | recall | F1 | RMSD, Å | calibration error | error/sigma | sites |\n"
            "|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
        )
    return _conditions(numbers, recipe) + "\n".join(sections)


def _series_reference(numbers: dict[str, Any], recipe: Recipe) -> str:
    """Shares of right answers dose by dose: of the triplet, then of its middle frame alone, then of an ideal observer."""
    sections = []
    for condition, by_method in numbers["test_sets"]["reference"].items():
        triplet, middle = (by_method[method]["by_dose"] for method in (TRIPLET, MIDDLE))
        efficiency = numbers["dose_efficiency"].get(condition, {}).get(TRIPLET, {})
        lines = []
        for merit in next(iter(triplet.values()))["merits"]:
            rows = {
                "triplet": [scores["merits"][merit] for scores in triplet.values()],
                "middle frame alone": [scores["merits"][merit] for scores in middle.values()],
                "ideal observer": [efficiency.get(dose, {}).get(merit, {}).get("limit") for dose in triplet],
                "dose efficiency": [efficiency.get(dose, {}).get(merit, {}).get("dose_efficiency") for dose in triplet],
            }
            lines += [
                f"| {LABELS[merit]} | {name} | " + " | ".join(_number(value, 4) for value in values) + " |"
                for name, values in rows.items()
            ]
        lines += [
            f"| {label} | triplet | " + " | ".join(_number(read(scores), 3) for scores in triplet.values()) + " |"
            for label, read in (SERIES_SCORES | TASK_SCORES[recipe.task]).items()
        ]
        doses = " | ".join(f"{float(dose):g}" for dose in triplet)
        sections.append(
            f"### {condition}\n\n| | dose of each frame, e/Å² | {doses} |\n|---|---|{'---|' * len(triplet)}\n"
            + "\n".join(lines) + "\n"
        )  # fmt: skip
    return _conditions(numbers, recipe) + "\n".join(sections)


SERIES_SCORES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "RMSD, Å": lambda scores: scores["rmsd_angstrom"],
    "error/sigma": lambda scores: scores["error_over_sigma"],
    "calibration error of the probability": lambda scores: scores["calibration_error"],
    "calibration error of the species": lambda scores: scores["species"]["calibration_error"],
    "alignment, median error, Å": lambda scores: scores["alignment"]["median_error_angstrom"],
    "alignment, 95th percentile, Å": lambda scores: scores["alignment"]["percentile_95_error_angstrom"],
}

TASK_SCORES: dict[str, dict[str, Callable[[dict[str, Any]], float | None]]] = {
    "species": {},
    "heights": {
        f"calibration error of the count, columns of 1 to {COUNTED_DEPTH}": lambda scores: scores["heights"][
            f"1 to {COUNTED_DEPTH}"
        ]["calibration_error"],
        "count exact, columns of any depth": lambda scores: scores["heights"]["all"]["exact_share"],
        "count within one, columns of any depth": lambda scores: scores["heights"]["all"]["within_one_share"],
        "count minus truth, atoms": lambda scores: scores["heights"]["all"]["mean_error"],
    },
}


def _conditions(numbers: dict[str, Any], recipe: Recipe) -> str:
    series = recipe.evaluation.series
    drift = f"steps of {series.defocus_step_angstrom:g} Å, drift to {series.drift_angstrom:g} Å, " if series else ""
    return (
        "## Measured on held-out simulations\n\n"
        f"One to one within {numbers['tolerance_angstrom']:g} Å, a border of {numbers['border_angstrom']:g} Å left out, "
        f"focal spread {recipe.evaluation.focal_spread_angstrom:g} Å, {recipe.evaluation.pixel_size_angstrom:g} Å per "
        f"pixel, {drift}scintillator camera; specimens of the same kinds as in training, damage and contamination "
        f"included, from other seeds. Through the daemon's own code on {numbers['backend']}.\n\n"
    )


def _nothing(numbers: dict[str, Any], method: str) -> str:
    scores = {condition: by_method[method]["all"] for condition, by_method in numbers["test_sets"]["nothing"].items()}
    lines = [f"| {name} | {_number(s['false_per_100_nm2'], 2)} | {s['frames']} |" for name, s in scores.items()]
    return "## Where nothing is\n\n| | found per 100 nm² | frames |\n|---|---|---|\n" + "\n".join(lines) + "\n"


def _real(numbers: dict[str, Any]) -> str:
    real = numbers.get("real_graphene")
    if real is None:
        return ""
    return (
        "## On real images\n\n"
        f"{len(real['images'])} experimental images of graphene (Sadre, Ophus, Butko and Weber, LBNL), judged by geometry: "
        f"the share of three-coordinated atoms in clean area is {_number(real['mean_share'], 3)} in the mean and "
        f"{_number(real['median_share'], 3)} in the median. Of images below 0.7, {_number(real['warned_among_poor'], 2)} "
        f"carry a warning; of those above 0.9, {_number(real['warned_among_good'], 2)}.\n"
    )


def _origin(manifest: Manifest, recipe: Recipe) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.package_versions.items())
    return (
        "## How it was made\n\n"
        f"Recipe `{manifest.recipe}`, seed {manifest.seed}: {manifest.dataset_specimens} simulated specimens of "
        f"{recipe.simulation.field_angstrom:g} × {recipe.simulation.field_angstrom:g} Å, {recipe.training.steps} steps of "
        f"{recipe.training.batch} patches, {manifest.training_seconds / 60:.0f} minutes. {versions}.\n\n"
        f"Make it again with `hrtemd-train rebuild {manifest.recipe}`. Every figure and number is in `report/`.\n"
    )


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
