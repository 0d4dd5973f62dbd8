from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.recognition.peaks import find_peaks
from trainer.batches import Sites, targets
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
) -> Sites:
    nothing = np.zeros(len(positions), int)
    return Sites(
        positions,
        nothing if classes is None else classes,
        (nothing if counts is None else counts).astype(np.int16),
        np.zeros(len(positions), bool) if ignored is None else np.array(ignored),
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

    shares, weights, _, near, _ = targets(sites_at(positions, ignored=[True, False]), CELLS, 1)

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
    shares, _, _, near, atoms = targets(sites_at(np.array([[-50.0, 3.0], [900.0, 900.0]])), CELLS, 1)

    assert shares[0].min() == 1
    assert not near.any()
    assert not atoms.any()


def test_columns_are_counted_around_each_of_them() -> None:
    positions = np.array([[20.0, 20.0], [60.0, 40.0]])

    shares, *_, atoms = targets(sites_at(positions, counts=np.array([7, 0])), CELLS, 1)

    assert atoms[10, 10] == 7
    assert set(np.unique(atoms)) == {0, 7}
    assert atoms[shares[1] > 0].sum() > 7
    assert not atoms[18:23, 28:33].any()  # what is not counted asks for no count
