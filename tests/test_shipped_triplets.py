"""The shipped models of focal series, as their users meet them: stacks in a folder, `hrtemd process`, tables out."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.atoms import VACANCY, read_parquet, row_classes
from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import good_scintillator
from trainer.evaluation.matching import View, match
from trainer.optics import Optics
from trainer.simulation import ExitWave, simulate
from trainer.specimens.mos2 import random_mos2
from trainer.specimens.specimen import Specimen
from trainer.triplets import Triplet, defocused, take_triplet

HRTEMD = Path(sys.executable).with_name("hrtemd")
SEED = 424_243
SPECIMENS = 4
FIELD_ANGSTROM, FIELD_PIXELS = 80.0, 540
DRIFT_ANGSTROM = 4.0
DOSE = 1e3
STEP_ANGSTROM = 40.0
SHEET = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)


def defective_sheet(rng: np.random.Generator) -> Specimen:
    """A sheet without dirt that lacks some sulphur; perfect ones cannot be aligned for certain."""
    while True:
        specimen = random_mos2(rng, FIELD_ANGSTROM)
        species = Counter(specimen.site_species)
        if not specimen.site_ignored.any() and species["S"] >= 10 and species["substitution"] < 10:
            return specimen


def shoot(exit_wave: ExitWave, rng: np.random.Generator) -> Triplet:
    displacement = rng.uniform(-DRIFT_ANGSTROM, DRIFT_ANGSTROM, (3, 2))
    displacement[0] = 0.0
    exposure = good_scintillator(0.12, DOSE)
    margin = MARGIN_ANGSTROM + DRIFT_ANGSTROM
    return take_triplet(exit_wave, defocused(SHEET, STEP_ANGSTROM), exposure, displacement, np.arange(3), rng, margin)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[ExitWave, Triplet]]]:
    """Results of `hrtemd process --series stack`, and what each stack shows."""
    folder = tmp_path_factory.mktemp("triplets")
    frames = folder / "frames"
    frames.mkdir()
    truth = {}
    for index in range(SPECIMENS):
        rng = np.random.default_rng([SEED, index])
        exit_wave = simulate(defective_sheet(rng), FIELD_PIXELS, 80.0, rng)
        triplet = shoot(exit_wave, rng)
        stack = np.stack([shot.pixels for shot in triplet.shots])
        np.save(frames / f"sheet-{index}.npy", np.clip(np.round(10 * stack), 0, 65535).astype(np.uint16))
        sidecar = {
            "pixel_size_angstrom": triplet.reference.pixel_size_angstrom,
            "dose_per_square_angstrom": DOSE,
            "voltage_kv": 80,
            "defocus_angstrom": [-90 - STEP_ANGSTROM, -90, -90 + STEP_ANGSTROM],
        }
        (frames / f"sheet-{index}.json").write_text(json.dumps(sidecar))
        truth[f"sheet-{index}"] = exit_wave, triplet
    command = [
        HRTEMD,
        "process",
        frames,
        "--series",
        "stack",
        "--model",
        "mos2-triplet",
        "--output",
        folder / "results",
    ]
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr
    return folder / "results", truth


def pairs_of(stem: str, folder: Path, exit_wave: ExitWave, triplet: Triplet) -> tuple[list[tuple[str, str]], int, int]:
    """True and found name of each pair; how many are missed, and how many false."""
    table = read_parquet(folder / f"{stem}.atoms.parquet")
    found = np.stack([table["x_angstrom"].to_numpy(), table["y_angstrom"].to_numpy()], axis=1).astype(float)
    shot = triplet.reference
    true = shot.positions_px.astype(float) * shot.pixel_size_angstrom
    matching = match(found, true, View.of_frame(shot.pixels.shape, shot.pixel_size_angstrom), exit_wave.ignored)
    missed = matching.missed[in_all_frames(triplet)[matching.missed]]
    names = row_classes(table)
    pairs = [(exit_wave.species[site], names[row]) for row, site in matching.pairs]
    return pairs, len(missed), len(matching.false)


def in_all_frames(triplet: Triplet) -> NDArray[np.bool_]:
    """Sites that did not drift out of any frame: only what all of them show is analysed."""
    holds = [
        View.of_frame(shot.pixels.shape, shot.pixel_size_angstrom).holds(
            shot.positions_px.astype(float) * shot.pixel_size_angstrom
        )
        for shot in triplet.shots
    ]
    return np.logical_and.reduce(holds)


def test_mos2_triplet_finds_sites_their_species_and_what_they_lack(
    results: tuple[Path, dict[str, tuple[ExitWave, Triplet]]],
) -> None:
    folder, truth = results
    counted = [pairs_of(stem, folder, *shown) for stem, shown in truth.items()]
    pairs = [pair for named, _, _ in counted for pair in named]
    missed, false = (sum(numbers) for numbers in list(zip(*counted, strict=True))[1:])
    right = sum(true == found for true, found in pairs)
    lacking = [(true == "S", found == "S") for true, found in pairs]
    of_true, of_found, both = (
        sum(true for true, _ in lacking),
        sum(found for _, found in lacking),
        sum(true and found for true, found in lacking),
    )

    assert of_true >= 30
    # The goals of the project but for vacancies, whose goals are 0.95 and 0.95: the model card says where they stop.
    assert 2 * len(pairs) / (2 * len(pairs) + missed + false) >= 0.985
    assert right / len(pairs) >= 0.98
    assert both / of_found >= 0.9
    assert both / of_true >= 0.8


def test_vacancies_stand_in_the_table_as_what_is_not_there(
    results: tuple[Path, dict[str, tuple[ExitWave, Triplet]]],
) -> None:
    folder, truth = results
    for stem in truth:
        table = read_parquet(folder / f"{stem}.atoms.parquet").to_pylist()
        assert {row["kind"] for row in table} <= {"column", VACANCY}
        assert all(row["species"] is None for row in table if row["kind"] == VACANCY)
        assert all(0 < row["species_probability"] <= 1 for row in table if row["kind"] == "column")
