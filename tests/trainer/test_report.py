import json
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.atoms import atom_table
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.figures import draw_dose_curves, draw_real_graphene
from trainer.evaluation.graphene_geometry import RealImage, SheetGeometry, summarise
from trainer.evaluation.limits import PhysicalLimits
from trainer.evaluation.report import NETWORK, NOTHING, PEAK_FINDING, RANGE, REFERENCE, write_report
from trainer.evaluation.scores import Scores
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame

PIXEL_SIZE = 0.2
SIDE = 128
DOSES = (100.0, 1000.0, 10000.0)


def spots(seed, dose, condition):
    """Spots on a jittered square lattice, and nothing at all for noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(0.5, SIDE * PIXEL_SIZE, 2.2)
    positions = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    positions = positions + rng.normal(0, 0.1, positions.shape)
    positions = positions[: 0 if condition == "noise" else len(positions)]
    y, x = np.indices((SIDE, SIDE)) * PIXEL_SIZE
    image = np.ones((SIDE, SIDE))
    for column, row in positions:
        image += 0.4 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 0.5**2))
    counts = rng.poisson(dose * PIXEL_SIZE**2 * image).astype(np.float32)
    name = f"{condition}-{dose:.0f}-{seed}"
    frame = Frame(counts, name, name, Calibration(PIXEL_SIZE, CalibrationSource.SIDECAR))
    ignored = np.zeros(len(positions), bool)
    return LabelledFrame(frame, positions, ("C",) * len(positions), ignored, {CONDITION: condition, DOSE: dose})


class KnowsTheTruth:
    """Finds sites as well as the dose allows, and knows how well that is."""

    def __init__(self, frames):
        self.truth = {labelled.frame.frame_id: labelled for labelled in frames}

    def recognise(self, frame):
        labelled = self.truth[frame.frame_id]
        rng = np.random.default_rng(zlib.crc32(frame.frame_id.encode()))
        sites = len(labelled.positions_angstrom)
        sigma = rng.uniform(0.8, 1.2, sites) * 6.0 / np.sqrt(labelled.conditions[DOSE])
        probability = rng.uniform(0, 1, sites) ** (3 / np.sqrt(labelled.conditions[DOSE]))
        # With the stated probability a site is found at its place, else between the sites.
        astray = rng.random(sites) > probability
        positions = labelled.positions_angstrom + rng.normal(size=(sites, 2)) * sigma[:, None] + 1.1 * astray[:, None]
        table = atom_table(positions / PIXEL_SIZE, PIXEL_SIZE, "atom", probability, sigma)
        return Recognition(frame, frame.calibration, table, [], {}, "oracle", "0" * 64, "none")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "report"
    range_doses = np.geomspace(100, 10000, 14).round()
    test_sets = {
        REFERENCE: [spots(seed, dose, "Cs -10 µm, C10 +90 Å") for dose in DOSES for seed in range(3)],
        RANGE: [spots(seed, dose, "stated range") for seed, dose in enumerate(range_doses)],
        NOTHING: [spots(seed, 1000.0, "noise") for seed in range(2)],
    }
    frames = [labelled for test_set in test_sets.values() for labelled in test_set]
    write_report(
        KnowsTheTruth(frames),
        test_sets,
        folder,
        tuning_frames=[spots(100, dose, "Cs -10 µm, C10 +90 Å") for dose in DOSES],
        others={"reference U-Net": KnowsTheTruth(frames)},
        limits={"Cs -10 µm, C10 +90 Å": PhysicalLimits.from_unit_dose(5.0, 0.3, 0.5)},
    )
    return folder


@pytest.fixture
def numbers(report):
    def no_constants(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((report / "numbers.json").read_text(encoding="utf-8"), parse_constant=no_constants)


def test_every_method_is_scored_on_every_set_and_dose(numbers):
    methods = {NETWORK, "reference U-Net", *PEAK_FINDING.values()}
    reference = numbers["test_sets"][REFERENCE]["Cs -10 µm, C10 +90 Å"]
    assert set(reference) == methods
    assert list(reference[NETWORK]["by_dose"]) == ["100", "1000", "10000"]
    # Doses drawn from a range are put together in half decades.
    assert list(numbers["test_sets"][RANGE]["stated range"][NETWORK]["by_dose"]) == [
        "100", "300", "1000", "3000", "10000",
    ]  # fmt: skip


def test_every_score_comes_with_its_sample_size_and_interval(numbers):
    scores = numbers["test_sets"][REFERENCE]["Cs -10 µm, C10 +90 Å"][NETWORK]["by_dose"]["10000"]
    assert scores["frames"] == 3
    assert scores["sites"] > 200
    low, high = scores["f1_interval"]
    assert low <= scores["f1"] <= high


def test_what_cannot_be_computed_is_null(numbers):
    noise = numbers["test_sets"][NOTHING]["noise"]
    assert noise[NETWORK]["all"]["recall"] is None
    assert noise[NETWORK]["all"]["false_per_100_nm2"] == 0


def test_peak_finding_is_compared_where_it_can_be_tuned(numbers):
    assert set(PEAK_FINDING.values()) <= set(numbers["test_sets"][REFERENCE]["Cs -10 µm, C10 +90 Å"])
    for condition in numbers["test_sets"][NOTHING].values():
        assert not set(PEAK_FINDING.values()) & set(condition)


def test_dose_efficiency_is_reported_for_each_method(numbers):
    efficiency = numbers["dose_efficiency"]["Cs -10 µm, C10 +90 Å"][NETWORK]["10000"]
    # Displacement is √2 · 6 Å where physics allows 5 Å at unit dose.
    assert efficiency["displacement"] == pytest.approx((5 / (6 * np.sqrt(2))) ** 2, rel=0.2)
    assert efficiency["displacement_limit_angstrom"] == pytest.approx(0.05, rel=0.01)


def test_the_figures_are_there_and_show_something(report):
    names = {path.name for path in report.glob("*.png")}
    assert names == {
        "reference_cs_-10_m_c10_+90.png",
        "range_stated_range.png",
        "reliability.png",
        "error_over_sigma.png",
        "false_positives.png",
        "overlays.png",
    }
    for path in report.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 300, path.name
        assert pixels.std() > 5, path.name


def test_real_images_have_a_figure_of_their_own(tmp_path):
    shares = np.linspace(0.3, 1.0, 49)
    images = [
        RealImage(f"{share}.png", SheetGeometry(500, 1500.0, share, 1.42), ("no lattice",) if share < 0.75 else ())
        for share in shares
    ]
    draw_real_graphene(summarise(images), tmp_path / "real_graphene.png")
    assert np.asarray(Image.open(tmp_path / "real_graphene.png").convert("L")).std() > 5


def test_reliability_is_kept_bin_by_bin(numbers):
    bins = numbers["reliability"][REFERENCE]
    assert len(bins["probability"]) == len(bins["true_share"]) == len(bins["atoms"]) == 15


def test_the_report_says_which_network_on_which_engine(numbers):
    assert (numbers["model"], numbers["model_sha256"], numbers["backend"]) == ("oracle", "0" * 64, "none")
    assert (numbers["tolerance_angstrom"], numbers["border_angstrom"]) == (0.5, 2.0)


def test_a_network_that_finds_nothing_is_drawn_too(tmp_path: Path) -> None:
    nothing = {field.name: float("nan") for field in fields(Scores)}
    nothing |= {"frames": 1, "sites": 0, "f1_interval": (float("nan"), float("nan")), "species_confusion": {}}
    scores = Scores(**nothing)

    draw_dose_curves({NETWORK: {100.0: scores, 1000.0: scores}}, None, "nothing", tmp_path / "nothing.png")

    assert (tmp_path / "nothing.png").stat().st_size > 10_000
