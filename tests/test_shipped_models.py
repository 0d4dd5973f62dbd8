"""The shipped models, as their users meet them: frames in a folder, `hrtemd process`, tables out."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.atoms import read_parquet
from daemon.recognition.package import ModelPackage, find_model, shipped_models
from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import good_scintillator
from trainer.evaluation.graphene_geometry import sheet_geometry
from trainer.evaluation.matching import View, match
from trainer.microscope import take, vacuum
from trainer.optics import Optics
from trainer.simulation import ExitWave, simulate
from trainer.specimens.amorphous import random_amorphous_film
from trainer.specimens.graphene import random_graphene
from trainer.specimens.nanoparticle import random_nanoparticle
from trainer.specimens.specimen import Specimen

HRTEMD = Path(sys.executable).with_name("hrtemd")
SEED = 424_242
SPECIMENS = 5
FIELD_ANGSTROM = 64.0
FIELD_PIXELS = 400
PIXEL_SIZE_ANGSTROM = 0.12


@dataclass(frozen=True)
class Condition:
    """Frames of one kind, and what must be reached on them."""

    model: str
    specimen: str
    optics: Optics
    dose_per_square_angstrom: float
    f1: float = 0.0
    rmsd_angstrom: float = np.inf
    false_per_100_nm2: float = np.inf


GRAPHENE = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)
OPPOSITE = Optics(80, c10=-90, c30=1e5, focal_spread_angstrom=30)
PARTICLE = Optics(300, c10=80, c30=-1.5e5, focal_spread_angstrom=30)
OTHER_PARTICLE = Optics(300, c10=90, c30=-5e4, focal_spread_angstrom=30)

# The goals of the project, but for film beside particles: that goal is 5, which the report says more about.
CONDITIONS = {
    "graphene-1e4": Condition("graphene", "graphene", GRAPHENE, 1e4, f1=0.995, rmsd_angstrom=0.10),
    "graphene-1e3": Condition("graphene", "graphene", GRAPHENE, 1e3, f1=0.92),
    "graphene-opposite": Condition("graphene", "graphene", OPPOSITE, 1e4, f1=0.99),
    "graphene-vacuum": Condition("graphene", "vacuum", GRAPHENE, 1e4, false_per_100_nm2=1),
    "graphene-film": Condition("graphene", "film", GRAPHENE, 1e4, false_per_100_nm2=5),
    "particles-200": Condition("nanoparticle", "nanoparticle", PARTICLE, 200, f1=0.94),
    "particles-1e3": Condition("nanoparticle", "nanoparticle", PARTICLE, 1e3, f1=0.985, rmsd_angstrom=0.08),
    "particles-other": Condition("nanoparticle", "nanoparticle", OTHER_PARTICLE, 1e3, f1=0.96),
    "particles-vacuum": Condition("nanoparticle", "vacuum", PARTICLE, 1e3, false_per_100_nm2=1),
    "particles-film": Condition("nanoparticle", "film", PARTICLE, 1e3, false_per_100_nm2=10),
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ExitWave]]:
    """Results of `hrtemd process`, model by model, on all conditions; and what each frame shows."""
    folder = tmp_path_factory.mktemp("shipped")
    truth: dict[str, ExitWave] = {}
    for name, condition in CONDITIONS.items():
        frames = folder / condition.model
        frames.mkdir(exist_ok=True)
        for index, exit_wave in enumerate(exit_waves(condition.specimen, condition.optics.voltage_kv)):
            rng = np.random.default_rng([SEED, index])
            exposure = good_scintillator(PIXEL_SIZE_ANGSTROM, condition.dose_per_square_angstrom)
            shot = take(exit_wave, condition.optics, exposure, rng, MARGIN_ANGSTROM)
            stem = f"{name}-{index}"
            np.save(frames / f"{stem}.npy", np.clip(np.round(10 * shot.pixels), 0, 65535).astype(np.uint16))
            sidecar = {
                "pixel_size_angstrom": shot.pixel_size_angstrom,
                "dose_per_square_angstrom": condition.dose_per_square_angstrom,
                "voltage_kv": condition.optics.voltage_kv,
            }
            (frames / f"{stem}.json").write_text(json.dumps(sidecar))
            truth[stem] = ExitWave(
                **{**vars(exit_wave), "positions_angstrom": shot.positions_px * shot.pixel_size_angstrom}
            )
    for model in ("graphene", "nanoparticle"):
        process(folder / model, folder / "results", model)
        (folder / "results" / "summary.json").rename(folder / f"{model}.summary.json")
    return folder, truth


_WAVES: dict[tuple[str, float], list[ExitWave]] = {}


def exit_waves(specimen: str, voltage_kv: float) -> list[ExitWave]:
    """Simulated once for all conditions."""
    if (specimen, voltage_kv) not in _WAVES:
        draw = {"graphene": clean_sheet, "nanoparticle": random_nanoparticle, "film": random_amorphous_film}
        waves = []
        for index in range(SPECIMENS):
            rng = np.random.default_rng([SEED, index])
            if specimen == "vacuum":
                waves.append(vacuum(FIELD_PIXELS, FIELD_ANGSTROM / FIELD_PIXELS, voltage_kv))
            else:
                waves.append(simulate(draw[specimen](rng, FIELD_ANGSTROM), FIELD_PIXELS, voltage_kv, rng))
        _WAVES[specimen, voltage_kv] = waves
    return _WAVES[specimen, voltage_kv]


def clean_sheet(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """A sheet as damaged as it comes, without dirt: a layer of that shifts the sheet out of the stated focus."""
    while True:
        specimen = random_graphene(rng, size_angstrom)
        if (specimen.site_of_atom >= 0).all():
            return specimen


def process(frames: Path, output: Path, model: str, *options: str) -> None:
    command = [str(HRTEMD), "process", str(frames), "--output", str(output), "--model", model, *options]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_shipped_model_finds_what_is_there_and_nothing_else(
    results: tuple[Path, dict[str, ExitWave]], name: str
) -> None:
    folder, truth = results
    condition = CONDITIONS[name]
    hits = false = missed = 0
    squares: list[float] = []
    area_square_angstrom = 0.0
    for index in range(SPECIMENS):
        stem = f"{name}-{index}"
        table = read_parquet(folder / "results" / f"{stem}.atoms.parquet")
        found = np.stack([table["x_angstrom"].to_numpy(), table["y_angstrom"].to_numpy()], axis=1).astype(float)
        shape = np.load(folder / condition.model / f"{stem}.npy").shape
        pixel_size = json.loads((folder / condition.model / f"{stem}.json").read_text())["pixel_size_angstrom"]
        view = View.of_frame(shape, pixel_size)
        true = truth[stem].positions_angstrom.astype(float)
        matching = match(found, true, view, truth[stem].ignored)
        hits, false, missed = hits + len(matching.pairs), false + len(matching.false), missed + len(matching.missed)
        squares += list(((found[matching.pairs[:, 0]] - true[matching.pairs[:, 1]]) ** 2).sum(axis=1))
        area_square_angstrom += view.area_square_angstrom

    if condition.f1:
        assert hits + missed > 500
        assert 2 * hits / (2 * hits + false + missed) >= condition.f1
        assert np.sqrt(np.mean(squares)) <= condition.rmsd_angstrom
    else:
        assert 1e4 * false / area_square_angstrom <= condition.false_per_100_nm2


def test_nothing_found_is_said_so(results: tuple[Path, dict[str, ExitWave]]) -> None:
    folder, _ = results
    rows = json.loads((folder / "graphene.summary.json").read_text())
    vacuum_rows = [row for row in rows if "vacuum" in row["file"]]

    assert len(vacuum_rows) == SPECIMENS
    for row in vacuum_rows:
        assert row["error"] is None
        assert any("No lattice" in warning for warning in row["warnings"])


def test_probabilities_and_sigmas_mean_what_they_say(results: tuple[Path, dict[str, ExitWave]]) -> None:
    folder, truth = results
    probability, hit, error_over_sigma = [], [], []
    for name in ("graphene-1e4", "graphene-1e3", "graphene-opposite"):
        for index in range(SPECIMENS):
            stem = f"{name}-{index}"
            table = read_parquet(folder / "results" / f"{stem}.atoms.parquet")
            found = np.stack([table["x_angstrom"].to_numpy(), table["y_angstrom"].to_numpy()], axis=1).astype(float)
            view = View((2.0, 2.0), (52.0, 52.0))
            true = truth[stem].positions_angstrom.astype(float)
            matching = match(found, true, view, truth[stem].ignored)
            pairs = matching.pairs
            judged = np.concatenate([pairs[:, 0], matching.false])
            probability.append(table["probability"].to_numpy()[judged])
            hit.append(np.arange(len(judged)) < len(pairs))
            sigma = table["sigma_angstrom"].to_numpy()[pairs[:, 0]]
            error_over_sigma.append(((found[pairs[:, 0]] - true[pairs[:, 1]]) / sigma[:, None]).ravel())

    said, true_share = np.concatenate(probability), np.concatenate(hit)
    bins = np.minimum((said * 10).astype(int), 9)
    gaps = [abs(said[bins == b].mean() - true_share[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    assert sum(gaps) <= 0.05
    assert 0.7 <= np.sqrt(np.mean(np.square(np.concatenate(error_over_sigma)))) <= 1.35


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_package_is_whole(name: str) -> None:
    package = find_model(name)

    assert package.manifest.name == name
    assert (package.folder / "MODEL_CARD.md").stat().st_size > 500
    numbers = json.loads((package.folder / "report" / "numbers.json").read_text())
    assert numbers["model_sha256"] == package.manifest.onnx_sha256
    assert len(list((package.folder / "report").glob("*.png"))) >= 5


def test_every_shipped_model_loads() -> None:
    assert shipped_models() == ["graphene", "mos2-triplet", "nanoparticle", "nanoparticle-triplet"]
    assert all(isinstance(find_model(name), ModelPackage) for name in shipped_models())


@pytest.fixture(scope="session")
def real_results(real_files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, dict[str, object]]]:
    """For each real image of graphene: share of three-coordinated atoms in clean area, and its row of the summary."""
    folder = tmp_path_factory.mktemp("real")
    lines = (real_files / "graphene" / "calibration.csv").read_text().split("\n")[1:]
    calibration = {line.split(",")[0]: float(line.split(",")[1]) for line in lines if line}
    for file, pixel_size in calibration.items():
        (folder / file).write_bytes((real_files / "graphene" / file).read_bytes())
        (folder / file).with_suffix(".json").write_text(json.dumps({"pixel_size_angstrom": pixel_size}))
    output = folder / "results"
    process(folder, output, "graphene")
    rows = {Path(row["file"]).name: row for row in json.loads((output / "summary.json").read_text())}
    judged = []
    for file, pixel_size in calibration.items():
        table = read_parquet(output / f"{Path(file).stem}.atoms.parquet")
        mask = np.asarray(Image.open(real_files / "graphene" / f"{Path(file).stem}_LABEL.png").convert("L")) > 127
        positions = np.stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()], axis=1).astype(float)
        judged.append((sheet_geometry(positions, mask, pixel_size).three_coordinated_share, rows[file]))
    return judged


def test_real_graphene_has_three_neighbours(real_results: list[tuple[float, dict[str, object]]]) -> None:
    shares = np.array([share for share, _ in real_results])

    assert len(shares) == 49
    assert shares.mean() >= 0.85
    assert np.median(shares) >= 0.93


def test_real_frames_that_went_wrong_carry_a_warning(real_results: list[tuple[float, dict[str, object]]]) -> None:
    warned_good = [bool(row["warnings"]) for share, row in real_results if share > 0.9]
    warned_poor = [bool(row["warnings"]) for share, row in real_results if share < 0.7]

    assert np.mean(warned_good) <= 0.1
    assert not warned_poor or np.mean(warned_poor) >= 0.9
