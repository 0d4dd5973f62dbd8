"""The model card: what a microscopist must know before trusting a model, in one page of Markdown."""

import json
from typing import Any

from daemon.recognition.package import Manifest, ModelPackage
from trainer.recipe import Recipe

NETWORK = "hrtemd"


def write_card(package: ModelPackage, recipe: Recipe) -> None:
    """Write `MODEL_CARD.md` from the manifest, the recipe and `report/numbers.json`."""
    numbers = json.loads((package.folder / "report" / "numbers.json").read_text(encoding="utf-8"))
    parts = [
        _head(package.manifest),
        _ranges(package.manifest),
        _reference(numbers, recipe),
        _nothing(numbers),
        _real(numbers),
        _origin(package.manifest, recipe),
    ]
    (package.folder / "MODEL_CARD.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _head(manifest: Manifest) -> str:
    target = "every carbon atom of graphene" if manifest.specimen == "graphene" else "every column of fcc metals"
    classes = ", ".join(f"`{name}`" for name in manifest.classes)
    return (
        f"# {manifest.name} {manifest.version}\n\n"
        f"Finds {target} in one frame. Classes: {classes}. Frames are resampled to "
        f"{manifest.sampling_angstrom:g} Å per pixel. What has a calibrated probability of {manifest.probability_threshold:g} or more is reported.\n"
    )


def _ranges(manifest: Manifest) -> str:
    ranges = manifest.ranges
    rows = (
        ("pixel size, Å", ranges.pixel_size_angstrom),
        ("dose, e/Å²", ranges.dose_per_square_angstrom),
        ("voltage, kV", ranges.voltage_kv),
        ("Cs, µm", ranges.spherical_aberration_um),
        ("defocus, Å (underfocus positive)", ranges.defocus_angstrom),
    )
    lines = [f"| {name} | {low:g} | {high:g} |" for name, (low, high) in rows]
    return (
        "## Trained for\n\n| | from | to |\n|---|---|---|\n" + "\n".join(lines) + "\n\n"
        "Residual aberrations to third order, partial coherence, drift, camera transfer and noise were drawn at random; "
        "the recipe lists their ranges. Left out on purpose: a lens whose astigmatism inverts the lattice's contrast along some "
        "direction. It shows a perfect lattice in the wrong place, and nothing in a single frame tells.\n"
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
    pixel_size = recipe.evaluation.pixel_size_angstrom
    return (
        "## Measured on held-out simulations\n\n"
        f"One to one within {numbers['tolerance_angstrom']:g} Å, a border of {numbers['border_angstrom']:g} Å left out, "
        f"focal spread {recipe.evaluation.focal_spread_angstrom:g} Å, {pixel_size:g} Å per pixel, scintillator camera; "
        "specimens of the same kinds as in training, damage and contamination included, from other seeds. Through the daemon's own "
        f"code on {numbers['backend']}.\n\n" + "\n".join(sections)
    )


def _nothing(numbers: dict[str, Any]) -> str:
    scores = {condition: by_method[NETWORK]["all"] for condition, by_method in numbers["test_sets"]["nothing"].items()}
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
