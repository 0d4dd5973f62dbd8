"""The shipped models of focal series, as their users meet them: stacks in a folder, `hrtemd process`, tables out."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from daemon.atoms import SUPPORT, VACANCY, read_parquet, row_classes
from daemon.recognition.package import Range
from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import good_scintillator
from trainer.evaluation.matching import Matching, View, match
from trainer.optics import Optics
from trainer.recipe import COLD_TO_HOT, ThermalMotion
from trainer.samples import ROOM_TEMPERATURE
from trainer.simulation import ExitWave, simulate
from trainer.specimens.mos2 import random_mos2
from trainer.specimens.nanoparticle import random_gold
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
PARTICLE = Optics(300, c10=80, c30=-1.5e5, focal_spread_angstrom=30)
DEEPEST_GOALS_ARE_FOR = 14

Shown = dict[str, tuple[ExitWave, Triplet]]
"""By stem, what a stack shows."""


def defective_sheet(rng: np.random.Generator) -> Specimen:
    """A sheet without dirt that lacks some sulphur; perfect ones cannot be aligned for certain."""
    while True:
        specimen = random_mos2(rng, FIELD_ANGSTROM)
        species = Counter(specimen.site_species)
        if not specimen.site_ignored.any() and species["S"] >= 10 and species["substitution"] < 10:
            return specimen


def thin_gold(rng: np.random.Generator) -> Specimen:
    """Particles on their zone axis, on film or on nothing, none of whose columns is deeper than the goals are for."""
    while True:
        specimen = random_gold(rng, FIELD_ANGSTROM)
        counts = specimen.site_atom_counts
        if (
            len(counts) >= 80
            and counts.max() <= DEEPEST_GOALS_ARE_FOR
            and not specimen.site_ignored.any()
            and SUPPORT not in specimen.site_species
        ):
            return specimen


def shoot(exit_wave: ExitWave, lens: Optics, rng: np.random.Generator) -> Triplet:
    displacement = rng.uniform(-DRIFT_ANGSTROM, DRIFT_ANGSTROM, (3, 2))
    displacement[0] = 0.0
    exposure = good_scintillator(0.12, DOSE)
    margin = MARGIN_ANGSTROM + DRIFT_ANGSTROM
    return take_triplet(exit_wave, defocused(lens, STEP_ANGSTROM), exposure, displacement, np.arange(3), rng, margin)


def process_stacks(
    folder: Path,
    model: str,
    lens: Optics,
    draw: Callable[[np.random.Generator], Specimen],
    thermal_motion: ThermalMotion = "snapshot",
    thermal_strength: Range = COLD_TO_HOT,
) -> tuple[Path, Shown]:
    """Results of `hrtemd process --series stack`, and what each stack shows."""
    frames = folder / "frames"
    frames.mkdir()
    shown = {}
    for index in range(SPECIMENS):
        rng = np.random.default_rng([SEED, index])
        exit_wave = simulate(
            draw(rng),
            FIELD_PIXELS,
            lens.voltage_kv,
            rng,
            thermal_motion=thermal_motion,
            thermal_strength=thermal_strength,
        )
        triplet = shoot(exit_wave, lens, rng)
        stack = np.stack([shot.pixels for shot in triplet.shots])
        np.save(frames / f"stack-{index}.npy", np.clip(np.round(10 * stack), 0, 65535).astype(np.uint16))
        sidecar = {
            "pixel_size_angstrom": triplet.reference.pixel_size_angstrom,
            "dose_per_square_angstrom": DOSE,
            "voltage_kv": lens.voltage_kv,
            "defocus_angstrom": [-lens.c10 - STEP_ANGSTROM, -lens.c10, -lens.c10 + STEP_ANGSTROM],
        }
        (frames / f"stack-{index}.json").write_text(json.dumps(sidecar))
        shown[f"stack-{index}"] = exit_wave, triplet
    command = [HRTEMD, "process", frames, "--series", "stack", "--model", model, "--output", folder / "results"]
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr
    return folder / "results", shown


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shown]:
    return process_stacks(tmp_path_factory.mktemp("sheets"), "mos2-triplet", SHEET, defective_sheet)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shown]:
    folder = tmp_path_factory.mktemp("particles")
    return process_stacks(folder, "nanoparticle-triplet", PARTICLE, thin_gold, "averaged", ROOM_TEMPERATURE)


def matched(stem: str, folder: Path, exit_wave: ExitWave, triplet: Triplet) -> tuple[pa.Table, Matching, int]:
    """The table of a stack, how its rows match the true sites, and how many of these are missed."""
    table = read_parquet(folder / f"{stem}.atoms.parquet")
    found = np.stack([table["x_angstrom"].to_numpy(), table["y_angstrom"].to_numpy()], axis=1).astype(float)
    shot = triplet.reference
    true = shot.positions_px.astype(float) * shot.pixel_size_angstrom
    matching = match(found, true, View.of_frame(shot.pixels.shape, shot.pixel_size_angstrom), exit_wave.ignored)
    return table, matching, int(in_all_frames(triplet)[matching.missed].sum())


def pairs_of(stem: str, folder: Path, exit_wave: ExitWave, triplet: Triplet) -> tuple[list[tuple[str, str]], int, int]:
    """True and found name of each pair; how many are missed, and how many false."""
    table, matching, missed = matched(stem, folder, exit_wave, triplet)
    names = row_classes(table)
    pairs = [(exit_wave.species[site], names[row]) for row, site in matching.pairs]
    return pairs, missed, len(matching.false)


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
    sheets: tuple[Path, Shown],
) -> None:
    folder, truth = sheets
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
    # The project's goals but for the precision of vacancies, 0.95: the model card tells 0.90, here it is 63 of 70.
    assert 2 * len(pairs) / (2 * len(pairs) + missed + false) >= 0.985
    assert right / len(pairs) >= 0.98
    assert both / of_found >= 0.88
    assert both / of_true >= 0.95


def test_vacancies_stand_in_the_table_as_what_is_not_there(
    sheets: tuple[Path, Shown],
) -> None:
    folder, truth = sheets
    for stem in truth:
        table = read_parquet(folder / f"{stem}.atoms.parquet").to_pylist()
        assert {row["kind"] for row in table} <= {"column", VACANCY}
        assert all(row["species"] is None for row in table if row["kind"] == VACANCY)
        assert all(0 < row["species_probability"] <= 1 for row in table if row["kind"] == "column")


def test_nanoparticle_triplet_finds_columns_and_counts_their_atoms(particles: tuple[Path, Shown]) -> None:
    folder, shown = particles
    errors, missed, false = [], 0, 0
    for stem, (exit_wave, triplet) in shown.items():
        table, matching, missed_here = matched(stem, folder, exit_wave, triplet)
        rows, sites = matching.pairs.T
        assert set(table["species"].to_pylist()) <= {"Au", SUPPORT}
        errors.append(table["n_atoms"].to_numpy()[rows] - exit_wave.atom_counts[sites])
        missed, false = missed + missed_here, false + len(matching.false)
    off = np.concatenate(errors)

    assert len(off) >= 350
    # The project's goals are 0.985, 0.95 and 0.998: the model card says where it stops, and one of these four is of the
    # kind it counts worst.
    assert 2 * len(off) / (2 * len(off) + missed + false) >= 0.97
    assert (off == 0).mean() >= 0.7
    assert (np.abs(off) <= 1).mean() >= 0.97
