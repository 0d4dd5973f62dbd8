import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from trainer.evaluation.matching import View, match

EVERYWHERE = View((-np.inf, -np.inf), (np.inf, np.inf))
NOTHING = np.zeros((0, 2))


def points(*xy):
    return np.array(xy, dtype=float).reshape(-1, 2)


def test_the_nearest_pair_comes_first():
    # The atom between two sites belongs to the nearer one, although the other one then stays alone.
    matching = match(points((0.4, 0)), points((0, 0), (0.7, 0)), EVERYWHERE)
    assert matching.pairs.tolist() == [[0, 1]]
    assert matching.missed.tolist() == [0]


def test_one_site_is_found_only_once():
    matching = match(points((0.2, 0), (0.0, 0.1)), points((0, 0)), EVERYWHERE)
    assert matching.pairs.tolist() == [[1, 0]]
    assert matching.false.tolist() == [0]


def test_an_exact_hit_is_a_hit():
    assert len(match(points((3, 4)), points((3, 4)), EVERYWHERE).pairs) == 1


@pytest.mark.parametrize(("distance", "hits"), [(0.499, 1), (0.501, 0)])
def test_the_tolerance_is_half_an_angstrom(distance, hits):
    assert len(match(points((distance, 0)), points((0, 0)), EVERYWHERE).pairs) == hits


def test_nothing_found_and_nothing_there():
    assert match(NOTHING, points((1, 1), (2, 2)), EVERYWHERE).missed.tolist() == [0, 1]
    assert match(points((1, 1)), NOTHING, EVERYWHERE).false.tolist() == [0]
    assert match(NOTHING, NOTHING, EVERYWHERE).pairs.shape == (0, 2)


def test_an_ignored_site_is_neither_found_nor_missed():
    truth, ignored = points((0, 0), (5, 5), (9, 9)), np.array([True, True, False])
    matching = match(points((0.1, 0), (0.3, 0), (9, 9)), truth, EVERYWHERE, ignored)
    assert matching.pairs.tolist() == [[2, 2]]
    # The second atom at the ignored site is not false either.
    assert matching.false.tolist() == []
    assert matching.missed.tolist() == []


def test_the_border_follows_the_true_site():
    view = View((2.0, 2.0), (10.0, 10.0))
    found = points((1.9, 5), (2.1, 6), (1.0, 8), (3.0, 8))
    truth = points((2.1, 5), (1.9, 6), (1.0, 3))
    matching = match(found, truth, view)
    assert matching.pairs.tolist() == [[0, 0]]  # found outside, true inside
    assert matching.false.tolist() == [
        3
    ]  # the pair of the second atom is outside, so it is not false; nor is the third
    assert matching.missed.tolist() == []  # the third site is outside


def test_a_view_leaves_the_same_border_on_every_side():
    # 100 pixels of 0.1 Å reach from -0.05 Å to 9.95 Å; half that many rows to 4.95 Å.
    view = View.of_frame((50, 100), 0.1)
    assert view.low_angstrom == pytest.approx((1.95, 1.95))
    assert view.high_angstrom == pytest.approx((7.95, 2.95))
    assert view.area_square_angstrom == pytest.approx(6.0)
    assert View.of_frame((32, 32), 0.1).area_square_angstrom == 0


coordinates = st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), max_size=25)


@settings(max_examples=150, deadline=None)
@given(coordinates, coordinates)
def test_the_same_pairs_as_searching_the_whole_table(found, truth):
    found, truth = points(*found), points(*truth)
    matching = match(found, truth, EVERYWHERE)
    found_in_pairs, true_in_pairs = matching.pairs.T
    assert sorted([*found_in_pairs, *matching.false]) == list(range(len(found)))
    assert sorted([*true_in_pairs, *matching.missed]) == list(range(len(truth)))

    distances = cdist(found, truth)
    expected = []
    while distances.size and distances.min() <= 0.5:
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        expected.append(distances[i, j])
        distances[i, :] = distances[:, j] = np.inf
    assert cdist(found, truth)[found_in_pairs, true_in_pairs] == pytest.approx(expected)
