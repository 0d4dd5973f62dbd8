import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.atoms import SUPPORT, VACANCY, atom_table
from daemon.frames import Calibration, CalibrationSource, FocalSeries, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.height_scores import DEEPEST, height_reliability, heights_in, score_heights
from trainer.evaluation.merits import merits
from trainer.evaluation.scores import judge, outcome_of, score, species_confusion
from trainer.evaluation.species_scores import score_species, species_reliability
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame

PIXEL_SIZE = 0.2
SIDE = 200  # 40 Å
NO_DRIFT = np.zeros((3, 2))


def labelled_series(positions, species, atom_counts=None, drift=NO_DRIFT, first=0):
    calibration = Calibration(PIXEL_SIZE, CalibrationSource.SIDECAR)
    frames = tuple(Frame(np.zeros((SIDE, SIDE), np.float32), f"{i}", f"{i}", calibration) for i in range(3))
    positions = np.asarray(positions, dtype=float).reshape(-1, 2)
    return LabelledFrame(
        FocalSeries(frames, first, "series", "series"),
        positions,
        tuple(species),
        np.zeros(len(positions), bool),
        {CONDITION: "test", DOSE: 1000.0},
        None if atom_counts is None else np.asarray(atom_counts),
        np.asarray(drift, dtype=float),
    )


def sites(count):
    """Places 3 Å apart, all in view."""
    return [(4 + 3 * (k % 10), 4 + 3 * (k // 10)) for k in range(count)]


def recognition_of(labelled, positions, names, probability=None, counts=None, count_probability=None):
    positions = np.asarray(positions, dtype=float).reshape(-1, 2)
    known = np.full(len(positions), 0.9)
    table = atom_table(
        positions / PIXEL_SIZE,
        PIXEL_SIZE,
        [VACANCY if name == VACANCY else "column" for name in names],
        known,
        known,
        species=[None if name == VACANCY else name for name in names],
        species_probability=known if probability is None else np.asarray(probability, dtype=float),
        n_atoms=counts,
        n_atoms_probability=count_probability,
    )
    frame = labelled.frame
    return Recognition(frame, frame.calibration, table, [], {}, "fake", "0" * 64, "none", series=labelled.subject)


def outcome(labelled, positions, names, **table):
    return outcome_of(recognition_of(labelled, positions, names, **table), labelled)


SHEET = ["Mo"] * 10 + ["S2"] * 16 + ["S"] * 3 + [VACANCY]


def test_who_is_right_about_everything_scores_one():
    labelled = labelled_series(sites(30), SHEET)
    perfect = outcome(labelled, sites(30), SHEET)
    assert set(merits([perfect], "species").values()) == {1.0}
    scores = score_species([perfect])
    assert scores.by_species.keys() == set(SHEET)
    assert scores.calibration_error == pytest.approx(0.1)  # all right, and only 0.9 sure of it


def test_who_calls_all_the_same_is_right_about_as_many_and_finds_no_vacancy():
    class CallsAllPairs:
        def recognise(self, subject):
            assert isinstance(subject, FocalSeries)
            return recognition_of(labelled, sites(30), ["S2"] * 30)

    labelled = labelled_series(sites(30), SHEET)
    shares = merits(judge(CallsAllPairs(), [labelled]), "species")
    assert shares["sites_f1"] == 1
    assert shares["species_right"] == pytest.approx(16 / 30)
    assert shares["single_sulphur_recall"] == shares["vacancy_recall"] == 0
    assert np.isnan(shares["single_sulphur_precision"])


def test_a_vacancy_missed_and_one_made_up_count_against_recall_and_precision():
    labelled = labelled_series(sites(4), ["S", "S", VACANCY, "S2"])
    # The second S and the vacancy are missed, the S2 is taken for an S, one S and one vacancy are made up.
    found = outcome(labelled, [sites(4)[0], sites(4)[3], (20, 20), (25, 20)], ["S", "S", "S", VACANCY])
    scores = score_species([found])
    single, empty = scores.by_species["S"], scores.by_species[VACANCY]
    assert (single.true, single.found) == (2, 3)
    assert (single.precision, single.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert (empty.precision, empty.recall) == (0, 0)
    assert scores.right_share == pytest.approx(1 / 2)
    assert species_confusion([found]) == {
        "S": {"S": 1, "nothing": 1},
        VACANCY: {"nothing": 1},
        "S2": {"S": 1},
        "nothing": {"S": 1, VACANCY: 1},
    }


def test_empty_sites_are_sites_like_any_other():
    labelled = labelled_series(sites(4), [VACANCY] * 4)
    assert score([outcome(labelled, sites(2), [VACANCY] * 2)]).recall == 0.5


def test_a_model_that_tells_no_element_is_right_about_metal_and_wrong_about_oxide():
    labelled = labelled_series(sites(3), ["Au", "Pt", SUPPORT])
    assert score_species([outcome(labelled, sites(3), [None, None, SUPPORT])]).right_share == 1
    assert score_species([outcome(labelled, sites(3), [None, SUPPORT, None])]).right_share == pytest.approx(1 / 3)


@given(
    st.lists(st.sampled_from(["Mo", "S2", "S", VACANCY]), min_size=1, max_size=40), st.randoms(use_true_random=False)
)
def test_every_site_is_in_the_confusion_matrix_once(species, random):
    called = [random.choice(["Mo", "S2", "S", VACANCY, None]) for _ in species]
    labelled = labelled_series(sites(len(species)), species)
    places = [place for place, name in zip(sites(len(species)), called, strict=True) if name]
    found = outcome(labelled, places, [name for name in called if name])
    confusion = species_confusion([found])
    assert sum(count for row in confusion.values() for count in row.values()) == len(species)
    right = sum(true == name for true, name in zip(species, called, strict=True))
    scores = score_species([found])
    if places:
        assert scores.right_share == pytest.approx(right / len(places))
    for name, one in scores.by_species.items():
        assert one.true == species.count(name)
        assert one.found == called.count(name)


def test_honest_species_probabilities_are_recognised_as_such():
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(60):
        probability = rng.uniform(0.5, 1, 100)
        right = rng.random(100) < probability
        labelled = labelled_series(sites(100), ["S2"] * 100)
        outcomes.append(outcome(labelled, sites(100), np.where(right, "S2", "S").tolist(), probability=probability))
    assert score_species(outcomes).calibration_error < 0.02
    assert species_reliability(outcomes).atoms.sum() == 6000


# Heights


def columns(true, found, probability=None, species=None):
    """Series with columns of these true counts, of which those are found that are given a count."""
    labelled = labelled_series(sites(len(true)), species or ["Au"] * len(true), true)
    kept = [k for k, count in enumerate(found) if count is not None]
    return outcome(
        labelled,
        [sites(len(true))[k] for k in kept],
        [None] * len(kept),
        counts=[found[k] for k in kept],
        count_probability=[0.9] * len(kept) if probability is None else [float(probability[k]) for k in kept],
    )


def test_counts_are_exact_within_one_or_wrong():
    scores = score_heights(heights_in([columns([5, 5, 5, 5], [5, 6, 4, 8])]))
    assert (scores.columns, scores.f1) == (4, 1)
    assert scores.exact_share == 1 / 4
    assert scores.within_one_share == 3 / 4
    assert scores.mean_error == pytest.approx((0 + 1 - 1 + 3) / 4)
    assert scores.confusion[5].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 1] + [0] * (DEEPEST - 8)


def test_a_column_that_is_missed_has_no_count_and_lowers_f1():
    scores = score_heights(heights_in([columns([5, 7, 9], [5, None, 9])]))
    assert scores.exact_share == 1
    assert scores.f1 == pytest.approx(4 / 5)
    assert scores.confusion[7, 0] == 1


def test_deep_columns_are_left_out_of_the_goals_and_false_ones_are_not():
    labelled = labelled_series(sites(2), ["Au", "Au"], [3, 20])
    found = outcome(labelled, [*sites(2), (30, 30)], [None] * 3, counts=[3, 17, 1], count_probability=[0.9] * 3)
    heights = heights_in([found])
    assert score_heights(heights).exact_share == 1 / 2
    shallow = score_heights(heights.up_to(14))
    assert (shallow.columns, shallow.exact_share) == (1, 1)
    assert shallow.f1 == pytest.approx(2 / 3)
    assert merits([found], "heights") == {"columns_f1": shallow.f1, "exact": 1, "within_one": 1}


def test_columns_of_oxide_are_not_counted():
    labelled = labelled_series(sites(4), ["Au", "Au", SUPPORT, SUPPORT], [4, 4, 6, 6])
    found = outcome(
        labelled,
        sites(4),
        [None, SUPPORT, SUPPORT, None],
        counts=[4, None, None, 6],
        count_probability=[0.9, None, None, 0.9],
    )
    scores = score_heights(heights_in([found]))
    # One column of gold found, one taken for oxide; one of oxide taken for gold.
    assert (scores.columns, scores.exact_share, scores.f1) == (2, 1, pytest.approx(1 / 2))


def test_columns_deeper_than_the_matrix_are_in_its_last_row():
    scores = score_heights(heights_in([columns([30], [29])]))
    assert scores.confusion[DEEPEST, DEEPEST] == 1
    assert (scores.exact_share, scores.within_one_share) == (0, 1)


def test_honest_count_probabilities_are_recognised_as_such():
    rng = np.random.default_rng(2)
    probability = rng.uniform(0.3, 1, (60, 100))
    found = np.where(rng.random(probability.shape) < probability, 7, 8)
    outcomes = [columns([7] * 100, row.tolist(), p) for row, p in zip(found, probability, strict=True)]
    assert height_reliability(heights_in(outcomes)).expected_calibration_error < 0.02
    boast = [columns([7] * 100, row.tolist(), np.ones(100)) for row in found]
    assert score_heights(heights_in(boast)).calibration_error == pytest.approx((found == 8).mean())


@given(st.lists(st.tuples(st.integers(1, 30), st.none() | st.integers(1, 24)), min_size=1, max_size=60))
def test_every_column_is_in_the_confusion_matrix_once(pairs):
    true, found = zip(*pairs, strict=True)
    scores = score_heights(heights_in([columns(true, found)]))
    assert scores.confusion.sum() == scores.columns == len(pairs)
    assert scores.confusion[:, 0].sum() == found.count(None)
    if any(found):
        assert scores.exact_share <= scores.within_one_share <= 1


def test_heights_need_a_truth_that_counts():
    labelled = labelled_series(sites(1), ["Au"])
    with pytest.raises(ValueError, match="how many atoms"):
        heights_in([outcome(labelled, sites(1), [None])])


# Series


def test_only_what_every_frame_shows_is_judged():
    drift = [(0, 0), (6, 0), (0, -5)]
    # Everything moves right by 6 Å in one frame and up by 5 Å in the other.
    places = {"left": (3, 20), "right": (33, 20), "top": (20, 6), "bottom": (20, 37), "middle": (20, 20)}
    labelled = labelled_series(list(places.values()), ["Mo"] * 5, drift=drift)
    held = dict(zip(places, labelled.view.holds(labelled.positions_angstrom).tolist(), strict=True))
    assert held == {"left": True, "right": False, "top": False, "bottom": True, "middle": True}
    # Nothing is held against a recogniser that finds only what stays in view.
    kept = [places[name] for name in ("left", "bottom", "middle")]
    assert score([outcome(labelled, kept, ["Mo"] * 3)]).f1 == 1


@given(st.lists(st.tuples(st.floats(-15, 15), st.floats(-15, 15)), min_size=2, max_size=2))
def test_the_view_of_a_series_is_in_view_in_every_frame(later):
    drift = np.array([(0.0, 0.0), *later])
    labelled = labelled_series([], [], drift=drift)
    alone = labelled_series([], []).view
    view = labelled.view
    corners = np.array([view.low_angstrom, view.high_angstrom])
    if view.area_square_angstrom > 0:
        for moved in drift:
            assert (corners + moved >= np.array(alone.low_angstrom) - 1e-9).all()
            assert (corners + moved <= np.array(alone.high_angstrom) + 1e-9).all()


def test_positions_refer_to_the_first_frame_in_time():
    labelled = labelled_series([(5, 5)], ["Mo"], first=2)
    assert labelled.frame is labelled.subject.frames[2]


def test_a_series_without_its_drift_is_refused():
    labelled = labelled_series([(5, 5)], ["Mo"])
    with pytest.raises(ValueError, match="true drift"):
        LabelledFrame(labelled.subject, labelled.positions_angstrom, ("Mo",), np.zeros(1, bool), {})


def test_counts_of_other_sites_are_refused():
    with pytest.raises(ValueError, match="counts"):
        labelled_series(sites(2), ["Au", "Au"], [1, 2, 3])
