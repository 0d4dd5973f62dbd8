from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.recognition.peaks import find_peaks
from trainer.batches import Sites, _turn, _turned, targets
from trainer.network import STRIDE

CELLS = 40


@st.composite
def separated_sites(draw: st.DrawFn) -> np.ndarray:
    """Sites in input pixels, no two closer than the columns of gold along ⟨111⟩ at 0.3 Å a pixel."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    sites: list[np.ndarray] = []
    for candidate in rng.uniform(3, CELLS * STRIDE - 4, (draw(st.integers(0, 120)), 2)):
        if all(np.hypot(*(candidate - site)) > 5.5 for site in sites):
            sites.append(candidate)
    return np.array(sites).reshape(-1, 2)


def sites_at(
    positions: np.ndarray,
    classes: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    ignored: Sequence[bool] | None = None,
    smears: np.ndarray | None = None,
) -> Sites:
    nothing = np.zeros(len(positions), int)
    return Sites(
        positions,
        nothing if classes is None else classes,
        (nothing if counts is None else counts).astype(np.int16),
        np.zeros(len(positions), bool) if ignored is None else np.array(ignored),
        np.full((len(positions), 2), np.nan, np.float32) if smears is None else smears,
    )


def perfect_heads(positions: np.ndarray, classes: np.ndarray, class_count: int) -> np.ndarray:
    """What a network would say that answers exactly as it is taught."""
    shares, _, offsets, *_ = targets(sites_at(positions, classes), CELLS, class_count)
    logits = np.log(np.clip(shares, 1e-9, 1))
    log_sigma = np.full((1, CELLS, CELLS), -3.0)
    return np.concatenate([logits, offsets, log_sigma]).astype(np.float32)


@given(separated_sites(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_daemon_reads_what_the_trainer_teaches(positions: np.ndarray, class_count: int) -> None:
    classes = np.arange(len(positions)) % class_count

    peaks = find_peaks(perfect_heads(positions, classes, class_count), STRIDE, lowest_probability=0.3)

    assert len(peaks.positions) == len(positions)
    if len(positions):
        distance = np.hypot(*(peaks.positions[:, None] - positions).transpose(2, 0, 1))
        nearest = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 0.05
        assert len(set(nearest)) == len(positions)
        assert peaks.probability.min() > 0.99
        np.testing.assert_array_equal(peaks.class_probability.argmax(axis=1), classes[nearest])


def test_an_ignored_site_asks_for_no_answer() -> None:
    positions = np.array([[20.0, 20.0], [60.0, 60.0]])

    shares, weights, _, near, *_ = targets(sites_at(positions, ignored=[True, False]), CELLS, 1)

    assert weights[10, 10] == 0
    assert shares[1, 8:13, 8:13].sum() == 0
    assert not near[10, 10]
    assert weights[30, 30] == 1
    assert shares[1].sum() == 1
    assert weights.sum() == CELLS**2 - 25


def test_a_labelled_site_beside_an_ignored_one_is_still_taught() -> None:
    positions = np.array([[20.0, 20.0], [24.0, 20.0]])

    shares, weights, *_ = targets(sites_at(positions, ignored=[True, False]), CELLS, 1)

    assert np.isclose(shares[1].sum(), 1)
    assert (weights[shares[1] > 0] == 1).all()


def test_sites_outside_the_frame_are_left_out() -> None:
    shares, _, _, near, atoms, _ = targets(sites_at(np.array([[-50.0, 3.0], [900.0, 900.0]])), CELLS, 1)

    assert shares[0].min() == 1
    assert not near.any()
    assert not atoms.any()


def test_columns_are_counted_around_each_of_them() -> None:
    positions = np.array([[20.0, 20.0], [60.0, 40.0]])

    shares, *_, atoms, _ = targets(sites_at(positions, counts=np.array([7, 0])), CELLS, 1)

    assert atoms[10, 10] == 7
    assert set(np.unique(atoms)) == {0, 7}
    assert atoms[shares[1] > 0].sum() > 7
    assert not atoms[18:23, 28:33].any()  # what is not counted asks for no count


def test_smears_are_taught_of_ignored_columns_too_and_where_there_is_none_nothing_is() -> None:
    positions = np.array([[20.0, 20.0], [40.0, 20.0], [60.0, 60.0]])
    told = np.array([[0.3, -0.2], [0.5, 0.1], [np.nan, np.nan]], np.float32)

    *_, smears = targets(sites_at(positions, ignored=[False, True, False], smears=told), CELLS, 1)

    for index in (0, 1):
        column, row = (positions[index] / STRIDE).astype(int)
        np.testing.assert_array_equal(smears[:, row, column], told[index])
    assert np.isfinite(smears[0]).sum() == 2 * 9


@given(st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_vectors_turn_with_the_image(symmetry: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, vector = rng.uniform(5, 20, (4, 2)), rng.uniform(-3, 3, (4, 2)).astype(np.float32)
    image = np.zeros((1, 32, 32), np.float32)

    _, turned_start = _turn(image, start, symmetry)
    _, turned_end = _turn(image, start + vector, symmetry)

    np.testing.assert_allclose(_turned(vector, symmetry), turned_end - turned_start, atol=1e-5)
