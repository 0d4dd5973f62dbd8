"""The number of atoms in a column is read where the column stands."""

import numpy as np
import pytest

from daemon.recognition.peaks import Peaks, find_peaks

DEEPEST = 4


def heads(shares: dict[tuple[int, int], float], heights: dict[tuple[int, int], int], cells: int = 12) -> np.ndarray:
    """What a network says that puts this share of a column in these cells, and is sure of a number in each."""
    occupancy = np.full((cells, cells), 1e-6)
    for place, share in shares.items():
        occupancy[place] = share
    logits = np.log([1 - occupancy, occupancy * 0.75, occupancy * 0.25])
    atoms = np.zeros((DEEPEST, cells, cells))
    for place, number in heights.items():
        atoms[number - 1][place] = 20
    geometry = np.zeros((3, cells, cells))
    return np.concatenate([logits, atoms, geometry]).astype(np.float32)


def decode(*arguments: dict[tuple[int, int], float]) -> Peaks:
    return find_peaks(heads(*arguments), 2, 0.3, DEEPEST)


def test_a_column_in_one_cell_has_the_number_of_that_cell() -> None:
    peaks = decode({(5, 5): 0.97}, {(5, 5): 3, (5, 6): 1})

    assert peaks.atoms_probability is not None
    assert peaks.atoms_probability.shape == (1, DEEPEST)
    assert peaks.atoms_probability[0, 2] > 0.99


def test_cells_have_a_say_in_proportion_to_their_share_of_the_column() -> None:
    peaks = decode({(5, 5): 0.6, (5, 6): 0.3}, {(5, 5): 3, (5, 6): 2})

    np.testing.assert_allclose(peaks.atoms_probability, [[0, 1 / 3, 2 / 3, 0]], atol=1e-3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 11), (11, 0), (11, 11)])
def test_columns_at_the_border_are_counted(corner: tuple[int, int]) -> None:
    peaks = decode({corner: 0.97}, {corner: 4})

    assert peaks.atoms_probability is not None
    assert peaks.atoms_probability[0].argmax() == 3
    np.testing.assert_allclose(peaks.atoms_probability.sum(axis=1), 1, rtol=1e-5)


def test_counting_changes_nothing_else() -> None:
    shares, numbers = {(5, 5): 0.6, (5, 6): 0.3, (9, 2): 0.8}, {(5, 5): 3}
    counting = decode(shares, numbers)
    without = np.delete(heads(shares, numbers), slice(3, 3 + DEEPEST), axis=0)

    plain = find_peaks(without, 2, 0.3)

    assert plain.atoms_probability is None
    for name in ("positions", "probability", "sigma", "class_probability"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(counting, name))
    np.testing.assert_allclose(plain.class_probability, [[0.75, 0.25]] * 2, atol=1e-3)


def test_nothing_found_has_no_numbers() -> None:
    peaks = decode({}, {})

    assert peaks.atoms_probability is not None
    assert peaks.atoms_probability.shape == (0, DEEPEST)
