import json
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from daemon.atoms import SUPPORT, VACANCY, atom_table
from daemon.frames import Calibration, CalibrationSource, FocalSeries, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.limits import TripletDetectability, miscount_rate, selection_error_rate
from trainer.evaluation.merits import MIDDLE, TRIPLET, merit_limits
from trainer.evaluation.reference_limits import HEIGHT, SPECIES, WEAKEST_SITE
from trainer.evaluation.scores import judge
from trainer.evaluation.series_report import write_series_report
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame

PIXEL_SIZE = 0.2
SIDE = 240  # 48 Å
DOSES = (100.0, 1000.0)
CONDITION_NAME = "Cs -10 µm, C10 +50 +90 +130 Å"
DETECTABILITY = TripletDetectability(triplet=0.3, middle=0.2)
DRIFT = np.array([(0.0, 0.0), (2.0, -1.0), (3.0, 1.0)])


def series(seed, dose, condition=CONDITION_NAME, heights=False):
    """A square lattice of everything a model tells, in frames that show nothing but noise."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1.0, SIDE * PIXEL_SIZE, 2.2)
    positions = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)[: 0 if condition == "vacuum" else None]
    if heights:
        species = rng.choice(["Au", SUPPORT], len(positions), p=[0.9, 0.1])
    else:
        species = rng.choice(["Mo", "S2", "S", VACANCY, "substitution"], len(positions), p=[0.4, 0.45, 0.1, 0.04, 0.01])
    name = f"{condition}-{dose:g}-{seed}"
    calibration = Calibration(PIXEL_SIZE, CalibrationSource.SIDECAR)
    frames = tuple(
        Frame(rng.poisson(50, (SIDE, SIDE)).astype(np.float32), f"{name}-{index}", f"{name}-{index}", calibration)
        for index in range(3)
    )
    return LabelledFrame(
        FocalSeries(frames, 0, name, name),
        positions,
        tuple(species.tolist()),
        np.zeros(len(positions), bool),
        {CONDITION: condition, DOSE: dose},
        rng.integers(1, 25, len(positions)) if heights else None,
        DRIFT,
    )


class IdealObserver:
    """Finds every site, and tells S2 from S, or counts, as well as d' allows and knows how well that is."""

    def __init__(self, labelled_series, d_prime):
        self.truth = {labelled.subject.frame_id: labelled for labelled in labelled_series}
        self.d_prime = d_prime

    def recognise(self, subject):
        labelled = self.truth[subject.frame_id]
        rng = np.random.default_rng(zlib.crc32(subject.frame_id.encode()))
        d_prime = self.d_prime * np.sqrt(labelled.conditions[DOSE])
        sites = len(labelled.positions_angstrom)
        seen = rng.standard_normal(sites) / d_prime
        names = np.array(labelled.species, dtype=object)
        probability, counts, count_probability = np.ones(sites), None, None
        if labelled.atom_counts is None:
            in_doubt = np.isin(names, ["S2", "S"])
            names[in_doubt] = np.where(seen + (names == "S") > 0.5, "S", "S2")[in_doubt]
            probability = np.where(in_doubt, norm.cdf(d_prime / 2), 1.0)
        else:
            metal = names != SUPPORT
            counted = np.round(labelled.atom_counts + seen).astype(int)
            counts = [int(count) if told else None for count, told in zip(counted, metal, strict=True)]
            count_probability = [1 - float(miscount_rate(d_prime)) if told else None for told in metal]
        table = atom_table(
            labelled.positions_angstrom / PIXEL_SIZE,
            PIXEL_SIZE,
            [VACANCY if name == VACANCY else "column" for name in names],
            np.ones(sites),
            np.full(sites, 0.1),
            species=[None if name in (VACANCY, "Au") else name for name in names],
            species_probability=probability,
            n_atoms=counts,
            n_atoms_probability=count_probability,
        )
        frame = subject.reference
        measured = FocalSeries(subject.frames, 0, subject.frame_id, subject.name, DRIFT + [[0, 0], [0.3, 0], [0, 0.1]])
        return Recognition(frame, frame.calibration, table, [], {}, "oracle", "0" * 64, "none", series=measured)


def written(folder, heights):
    test_sets = {
        "reference": [series(seed, dose, heights=heights) for dose in DOSES for seed in range(3)],
        "range": [series(20 + seed, dose, "stated range", heights) for seed, dose in enumerate((150.0, 800.0))],
        "nothing": [series(30, 1000.0, "vacuum", heights)],
    }
    everything = [labelled for test_set in test_sets.values() for labelled in test_set]
    write_series_report(
        IdealObserver(everything, DETECTABILITY.triplet),
        test_sets,
        folder,
        "heights" if heights else "species",
        middle_alone=IdealObserver(everything, DETECTABILITY.middle),
        detectability={CONDITION_NAME: dict.fromkeys((WEAKEST_SITE, HEIGHT if heights else SPECIES), DETECTABILITY)},
    )

    def no_constants(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads((folder / "numbers.json").read_text(encoding="utf-8"), parse_constant=no_constants)


@pytest.fixture(scope="module")
def species_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("species")


@pytest.fixture(scope="module")
def species(species_folder):
    return written(species_folder, heights=False)


@pytest.fixture(scope="module")
def heights_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heights")


@pytest.fixture(scope="module")
def heights(heights_folder):
    return written(heights_folder, heights=True)


def test_the_worth_of_the_triplet_is_a_number(species, heights):
    for numbers, merit in ((species, "species_right"), (heights, "exact")):
        by_method = numbers["test_sets"]["reference"][CONDITION_NAME]
        triplet, middle = (by_method[name]["by_dose"]["100"]["merits"][merit] for name in (TRIPLET, MIDDLE))
        left = numbers["errors_left"][CONDITION_NAME]["100"][merit]
        assert triplet > middle
        assert left == pytest.approx((1 - triplet) / (1 - middle))


def test_limits_are_given_for_each_question(species):
    asked = species["limits"][CONDITION_NAME][SPECIES]
    assert asked[TRIPLET]["100"]["d_prime"] == pytest.approx(3.0)
    assert asked[MIDDLE]["100"]["error"] == pytest.approx(norm.cdf(-1.0))


def test_an_ideal_observer_has_a_dose_efficiency_of_one(heights):
    for method in (TRIPLET, MIDDLE):
        efficiency = heights["dose_efficiency"][CONDITION_NAME][method]["100"]["exact"]["dose_efficiency"]
        assert efficiency == pytest.approx(1, abs=0.25)


def test_a_limit_is_that_of_the_same_share_among_the_same_sites():
    labelled = series(1, 100.0)
    outcomes = judge(IdealObserver([labelled], 1.0), [labelled])
    limits = merit_limits(outcomes, "species", dict.fromkeys((WEAKEST_SITE, SPECIES), DETECTABILITY))
    judged = np.array(labelled.species)[labelled.view.holds(labelled.positions_angstrom)].tolist()
    single, pair = judged.count("S"), judged.count("S2")
    expected = selection_error_rate(3.0, single / (single + pair))
    assert limits["single_sulphur_recall"][TRIPLET].error_at(100.0) == pytest.approx(float(expected), rel=0.01)


def test_sites_of_which_there_are_none_have_no_limit():
    labelled = series(1, 100.0, "vacuum")
    outcomes = judge(IdealObserver([labelled], 1.0), [labelled])
    assert merit_limits(outcomes, "species", {}) == {}


def test_honest_probabilities_have_a_small_calibration_error(species, heights):
    scores = species["test_sets"]["reference"][CONDITION_NAME][TRIPLET]["all"]
    assert scores["species"]["calibration_error"] < 0.02
    scores = heights["test_sets"]["reference"][CONDITION_NAME][TRIPLET]["all"]
    assert scores["heights"]["1 to 14"]["calibration_error"] < 0.03
    assert set(heights["reliability"]["range"]) == {"probability", "species_probability", "n_atoms_probability"}


def test_what_alignment_leaves_is_measured(species):
    alignment = species["test_sets"]["reference"][CONDITION_NAME][TRIPLET]["all"]["alignment"]
    assert alignment["median_error_angstrom"] == pytest.approx(0.2)
    assert alignment["percentile_95_error_angstrom"] == pytest.approx(0.3)


def test_scores_that_single_frames_have_too_are_where_their_readers_look(species):
    scores = species["test_sets"]["reference"][CONDITION_NAME][TRIPLET]["by_dose"]["1000"]
    assert scores["f1"] == 1
    assert scores["species_confusion"]["Mo"].keys() == {"Mo"}
    assert species["test_sets"]["nothing"]["vacuum"][TRIPLET]["all"]["false_per_100_nm2"] == 0
    assert species["model"] == "oracle"


@pytest.mark.parametrize("task", ["species", "heights"])
def test_the_figures_are_there_and_show_something(task, request):
    request.getfixturevalue(task)
    folder = request.getfixturevalue(f"{task}_folder")
    stems = ("reference_cs_-10_m_c10_+50_+90_+130", "range_stated_range")
    wanted = {f"{stem}{end}.png" for stem in stems for end in ("", "_sites", "_species")}
    wanted |= {"reliability.png", "reliability_species.png", "error_over_sigma.png", "false_positives.png"}
    wanted |= {"overlays.png"}
    if task == "heights":
        wanted |= {f"{stem}_heights.png" for stem in stems} | {"reliability_heights.png"}
    assert {path.name for path in folder.glob("*.png")} == wanted
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200, path.name
        assert pixels.std() > 5, path.name


def test_a_model_without_its_middle_frame_alone_and_without_limits_has_a_report_too(tmp_path):
    test_sets = {"reference": [series(seed, 100.0) for seed in range(2)]}
    numbers = write_series_report(IdealObserver(test_sets["reference"], 1.0), test_sets, tmp_path, "species")
    assert numbers["limits"] == numbers["dose_efficiency"] == {}
    assert "errors_left" not in numbers
    assert list(numbers["test_sets"]["reference"][CONDITION_NAME]) == [TRIPLET]
