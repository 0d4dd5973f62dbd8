"""Three frames become one input: aligned to the first in time, each with its contrast, and with a way back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daemon.errors import FrameError
from daemon.recognition.preprocess import LEAST_FIELD_ANGSTROM, prepare
from daemon.recognition.series_input import (
    CONTRAST_RANGE,
    PreparedSeries,
    despeckled,
    input_channels,
    prepare_series,
)

SAMPLING_ANGSTROM = 0.2
STILL = np.zeros((3, 2))


def dots(shape: tuple[int, int], positions_angstrom: np.ndarray, pixel_size_angstrom: float) -> np.ndarray:
    y, x = np.indices(shape) * pixel_size_angstrom
    image = np.full(shape, 100.0)
    for px, py in positions_angstrom:
        image += 50 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 0.5)
    return image


def input_of(frames: list[np.ndarray], *told: Any) -> PreparedSeries:
    return prepare_series(despeckled(frames), *told)


def noise(side: int = 160, mean: float = 200.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 20, (side, side)).astype(np.float32)


@pytest.mark.parametrize("pixel_size", [0.08, 0.12, 0.2, 0.31])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_every_frame_shows_an_atom_where_the_first_one_says(pixel_size: float, first: int) -> None:
    rng = np.random.default_rng(first)
    shape = (round(44 / pixel_size), round(52 / pixel_size))
    atoms = np.stack(np.meshgrid([14.0, 21.0, 28.0, 35.0], [14.0, 21.0, 28.0]), axis=-1).reshape(-1, 2)
    atoms += rng.uniform(-1, 1, atoms.shape)
    drift = rng.uniform(-6, 6, (3, 2))
    drift[first] = 0
    frames = [dots(shape, atoms + shift, pixel_size) for shift in drift]

    prepared = input_of(frames, pixel_size, SAMPLING_ANGSTROM, drift, None)

    y, x = np.indices(prepared.image.shape[1:])
    for plane in prepared.image[:3]:
        for column, row in prepared.from_acquired(atoms / pixel_size):
            near = np.hypot(x - column, y - row) < 6
            weights = np.where(near, np.maximum(plane - np.median(plane[near]), 0) ** 2, 0)
            assert (weights * x).sum() / weights.sum() == pytest.approx(column, abs=0.15)
            assert (weights * y).sum() / weights.sum() == pytest.approx(row, abs=0.15)


@given(
    st.integers(60, 300),
    st.integers(60, 300),
    st.floats(0.05, 0.5),
    st.lists(st.floats(-30, 30), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_what_is_seen_is_what_every_frame_covers(
    height: int, width: int, pixel_size: float, shifts: list[float]
) -> None:
    drift_px = np.array([[0, 0], shifts[:2], shifts[2:]])
    pixels = np.random.default_rng(0).poisson(50, (height, width)).astype(np.uint16)
    shared = (width, height) - np.ptp(drift_px, axis=0)
    assume(shared.min() * pixel_size > LEAST_FIELD_ANGSTROM + 2 * pixel_size)

    prepared = input_of([pixels] * 3, pixel_size, SAMPLING_ANGSTROM, drift_px * pixel_size, None)

    assert np.isfinite(prepared.image).all()
    rows, columns = prepared.image.shape[1:]
    corners = np.array([[-0.5, -0.5], [columns - 0.5, rows - 0.5]])
    in_first = prepared.to_acquired(corners)
    np.testing.assert_allclose(prepared.from_acquired(in_first), corners, atol=1e-9)
    for drift in drift_px:
        assert (in_first + drift >= -0.5 - 1e-6).all()
        assert (in_first + drift <= np.array([width, height]) - 0.5 + 1e-6).all()
    # Nothing but broken pixels at the borders is given away.
    assert (in_first[1] - in_first[0] > shared - 2).all()


@pytest.mark.parametrize("pixel_size", [0.12, 0.2, 0.3])
def test_a_frame_that_did_not_drift_looks_as_it_does_alone(pixel_size: float) -> None:
    frames = [noise(seed=seed) for seed in range(3)]

    image = input_of(frames, pixel_size, SAMPLING_ANGSTROM, STILL, None).image

    for frame, plane in zip(frames, image[:3], strict=True):
        np.testing.assert_allclose(plane, prepare(frame, pixel_size, SAMPLING_ANGSTROM).image, atol=1e-3)


def test_moving_a_frame_costs_no_contrast() -> None:
    """A lattice of three pixels a period keeps nine tenths, wherever between the pixels it is moved to."""
    x = np.arange(200)
    drift_px = np.array([[0.0, 0.0], [0.5, 0.0], [0.25, 0.0]])
    rows = [1000 + 100 * np.cos(2 * np.pi * (x - shift) / 3) for shift in drift_px[:, 0]]
    frames = [np.tile(row, (200, 1)) + noise(200, 0.0) / 100 for row in rows]

    contrast = 10 ** input_of(frames, 0.2, SAMPLING_ANGSTROM, drift_px * 0.2, None).image[3:6, 50:150, 50:150]

    np.testing.assert_allclose(contrast.mean(axis=(1, 2)) / (0.1 / np.sqrt(2)), 1, atol=0.1)


def test_the_contrast_that_normalisation_takes_away_is_told() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.normal(200, 200 * contrast, (160, 160)) for contrast in (0.02, 0.1, 0.3)]

    image = input_of(frames, SAMPLING_ANGSTROM, SAMPLING_ANGSTROM, STILL, None).image

    assert image.shape[0] == input_channels(told_defocus=False)
    np.testing.assert_allclose(image[3:].mean(axis=(1, 2)), np.log10([0.02, 0.1, 0.3]), atol=0.05)


@pytest.mark.parametrize("offset", [0.0, -200.0, -1000.0])
def test_frames_without_a_positive_mean_have_a_contrast_too(offset: float) -> None:
    image = input_of([noise(mean=200 + offset)] * 3, 0.2, SAMPLING_ANGSTROM, STILL, None).image

    assert np.isfinite(image).all()
    assert image[3:].min() >= CONTRAST_RANGE[0]
    assert image[3:].max() <= CONTRAST_RANGE[1]


def test_a_network_can_be_told_the_defocus() -> None:
    image = input_of([noise()] * 3, 0.2, SAMPLING_ANGSTROM, STILL, (-130.0, -90.0, -50.0)).image

    assert image.shape[0] == input_channels(told_defocus=True)
    for plane, told in zip(image[6:], (-1.3, -0.9, -0.5), strict=True):
        np.testing.assert_allclose(plane, told, rtol=1e-6)


@pytest.mark.parametrize("drift", [(28.0, 0.0), (0.0, -40.0), (np.nan, 0.0)])
def test_frames_that_share_too_little_are_an_error(drift: tuple[float, float]) -> None:
    drifts = np.array([[0.0, 0.0], drift, [1.0, 1.0]])

    with pytest.raises(FrameError, match="share no field of at least 5 × 5 Å"):
        input_of([noise()] * 3, 0.2, SAMPLING_ANGSTROM, drifts, None)


def test_a_blank_frame_is_an_error_that_names_it() -> None:
    frames = [noise(), np.full((160, 160), 7.0), noise()]

    with pytest.raises(FrameError, match="frame 2 of the series, in order of defocus: all pixels are alike"):
        input_of(frames, 0.2, SAMPLING_ANGSTROM, STILL, None)
