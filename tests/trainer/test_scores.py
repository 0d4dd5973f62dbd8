import numpy as np
import pytest

from daemon.atoms import atom_table
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.scores import grouped, half_decade, judge, outcome_of, reliability, score
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame

PIXEL_SIZE = 0.1
SIDE = 240  # 24 Å, of which 20 Å × 20 Å = 4 nm² are in view


def labelled_frame(positions, species=None, ignored=None, **conditions):
    frame = Frame(
        np.zeros((SIDE, SIDE), np.float32), "test", "test", Calibration(PIXEL_SIZE, CalibrationSource.SIDECAR)
    )
    positions = np.asarray(positions, dtype=float).reshape(-1, 2)
    return LabelledFrame(
        frame,
        positions,
        species or ("C",) * len(positions),
        np.zeros(len(positions), bool) if ignored is None else np.asarray(ignored),
        {CONDITION: "test", DOSE: 1000.0, **conditions},
    )


def recognition_of(frame, positions_angstrom, probability=0.9, sigma=0.1, species=None, warnings=()):
    positions = np.asarray(positions_angstrom, dtype=float).reshape(-1, 2)
    count = len(positions)
    table = atom_table(
        positions / PIXEL_SIZE,
        frame.calibration.pixel_size_angstrom,
        "atom",
        np.broadcast_to(probability, count),
        np.broadcast_to(sigma, count),
        species,
    )
    return Recognition(frame, frame.calibration, table, list(warnings), {}, "fake", "0" * 64, "none")


def outcome(labelled, found, **table):
    return outcome_of(recognition_of(labelled.frame, found, **table), labelled)


def lattice(step=2.0):
    steps = np.arange(3.0, 21.0, step)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def test_frames_are_pooled_atom_by_atom():
    one = outcome(labelled_frame([(5, 5), (10, 10), (15, 15)]), [(5, 5), (10, 10), (15, 15)])
    other = outcome(labelled_frame([(5, 5)]), [(8, 8)])
    scores = score([one, other])
    assert (scores.frames, scores.sites) == (2, 4)
    assert scores.precision == pytest.approx(3 / 4)
    assert scores.recall == pytest.approx(3 / 4)
    assert scores.f1 == pytest.approx(6 / 8)


def test_displacement_is_two_dimensional():
    scores = score([outcome(labelled_frame([(5, 5), (10, 10)]), [(5.3, 5), (10, 9.6)])])
    assert scores.rmsd_angstrom == pytest.approx(np.sqrt((0.3**2 + 0.4**2) / 2), rel=1e-5)


def test_false_positives_are_counted_per_100_square_nanometres():
    # One false atom near a site, one far away from it, on the 4 nm² in view.
    scores = score([outcome(labelled_frame([(5, 5)]), [(5, 5), (7, 5), (18, 18)])])
    assert scores.false_per_100_nm2 == pytest.approx(2 * 100 / 4)
    assert scores.empty_area_nm2 == pytest.approx(4 - 0.58, abs=0.05)  # a 5 Å disc, cut by the border
    assert scores.false_in_empty_per_100_nm2 == pytest.approx(100 / scores.empty_area_nm2)


def test_a_frame_with_no_site_has_false_positives_and_no_recall():
    scores = score([outcome(labelled_frame([]), [(5, 5)])])
    assert scores.false_per_100_nm2 == scores.false_in_empty_per_100_nm2 == pytest.approx(25)
    assert np.isnan(scores.recall)
    assert np.isnan(scores.rmsd_angstrom)
    silent = score([outcome(labelled_frame([]), [])] * 2)
    assert silent.false_per_100_nm2 == 0
    assert np.isnan(silent.f1)
    assert np.isnan(silent.calibration_error)


def test_positions_are_judged_in_pixels_whatever_scale_was_estimated():
    labelled = labelled_frame([(5, 5), (20, 20)])
    guessed = Frame(labelled.frame.pixels, "test", "test", Calibration(0.11, CalibrationSource.ESTIMATED))
    assert score([outcome_of(recognition_of(guessed, [(5, 5), (20, 20)]), labelled)]).f1 == 1


def test_honest_probabilities_and_sigmas_are_recognised_as_such():
    rng = np.random.default_rng(1)
    outcomes = []
    for _ in range(200):
        truth = lattice()
        sigma = rng.uniform(0.02, 0.1, len(truth))
        probability = rng.uniform(0, 1, len(truth))
        there = rng.random(len(truth)) < probability
        found = truth + rng.normal(size=truth.shape) * sigma[:, None]
        outcomes.append(outcome(labelled_frame(truth[there]), found, probability=probability, sigma=sigma))
    scores = score(outcomes)
    assert scores.calibration_error < 0.015
    assert scores.error_over_sigma == pytest.approx(1, abs=0.02)
    assert scores.error_over_sigma_robust == pytest.approx(1, abs=0.02)
    assert reliability(outcomes).atoms.sum() == 200 * len(lattice())


def test_boasting_shows_as_calibration_error_and_spread():
    truth = lattice()
    found = truth + np.random.default_rng(2).normal(0, 0.1, truth.shape)
    boast = outcome(labelled_frame(truth[::2]), found, probability=1.0, sigma=0.05)
    scores = score([boast])
    assert scores.calibration_error == pytest.approx(1 - scores.precision)
    assert scores.error_over_sigma == pytest.approx(2, rel=0.2)


def test_one_wild_atom_does_not_move_the_robust_spread():
    truth = lattice()
    found = truth + np.random.default_rng(3).normal(0, 0.05, truth.shape)
    found[0] = truth[0] + 0.35
    sigma = np.full(len(truth), 0.05)
    sigma[0] = 0.005
    scores = score([outcome(labelled_frame(truth), found, sigma=sigma)])
    assert scores.error_over_sigma > 3
    assert scores.error_over_sigma_robust == pytest.approx(1, abs=0.2)


def test_species_are_confused_only_where_they_are():
    labelled = labelled_frame([(4, 4), (8, 8), (12, 12), (16, 16)], species=("Au", "Au", "support", "Au"))
    found = outcome(labelled, [(4, 4), (8, 8), (12, 12), (19, 4)], species=[None, "support", "support", None])
    assert score([found]).species_confusion == {
        "Au": {"unnamed": 1, "support": 1, "nothing": 1},
        "support": {"support": 1},
        "nothing": {"unnamed": 1},
    }


def test_the_interval_of_f1_holds_f1_and_shrinks_with_more_frames():
    rng = np.random.default_rng(4)
    truth = lattice()
    outcomes = [outcome(labelled_frame(truth), truth[rng.random(len(truth)) < rng.uniform(0.5, 1)]) for _ in range(64)]
    few, many = score(outcomes[:8]), score(outcomes)
    assert few.f1_interval[0] < few.f1 < few.f1_interval[1]
    assert np.diff(many.f1_interval) < np.diff(few.f1_interval)
    assert np.isnan(score(outcomes[:1]).f1_interval).all()


def test_warnings_are_counted_by_frame():
    labelled = labelled_frame([(5, 5)])
    assert score([outcome(labelled, []), outcome(labelled, [], warnings=["dim", "coarse"])]).warned_share == 0.5


def test_outcomes_are_grouped_by_any_condition():
    class Blind:
        def recognise(self, frame):
            return recognition_of(frame, [])

    outcomes = judge(Blind(), [labelled_frame([(5, 5)], **{DOSE: dose}) for dose in (990.0, 110.0, 1100.0)])
    assert list(grouped(outcomes, DOSE)) == [110.0, 990.0, 1100.0]
    assert {dose: len(group) for dose, group in grouped(outcomes, DOSE, half_decade).items()} == {100.0: 1, 1000.0: 2}
    assert [half_decade(dose) for dose in (150, 200, 500, 600)] == [100, 300, 300, 1000]


def test_truth_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="same sites"):
        labelled_frame([(5, 5)], species=("C", "C"))
