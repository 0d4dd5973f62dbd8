import numpy as np
import pytest
import torch

from trainer.camera import Exposure, actual_pixel_size, expose

SIDE, SAMPLING = 120, 0.16


def spot(x_angstrom: float, y_angstrom: float) -> torch.Tensor:
    y, x = np.mgrid[:SIDE, :SIDE] * SAMPLING
    return torch.from_numpy((1 + 2 * np.exp(-((x - x_angstrom) ** 2 + (y - y_angstrom) ** 2) / 2)).astype(np.float32))


@pytest.mark.parametrize("pixel_size", [0.08, 0.16, 0.3, 0.6])
def test_features_stay_where_they_are_at_any_sampling(pixel_size: float) -> None:
    exposure = Exposure(pixel_size, dose_per_square_angstrom=1e7)
    p = actual_pixel_size(SIDE, SAMPLING, exposure)

    frame = expose(spot(7.3, 11.9), SAMPLING, exposure, np.random.default_rng(0))

    weights = frame / np.median(frame) - 1
    y, x = np.indices(frame.shape) * p
    near = np.hypot(x - 7.3, y - 11.9) < 4
    assert p == pytest.approx(pixel_size, rel=0.1)
    assert (weights * x)[near].sum() / weights[near].sum() == pytest.approx(7.3, abs=0.03)
    assert (weights * y)[near].sum() / weights[near].sum() == pytest.approx(11.9, abs=0.03)


def test_a_displaced_specimen_stands_elsewhere() -> None:
    exposure = Exposure(0.16, dose_per_square_angstrom=1e8)
    displaced = Exposure(0.16, dose_per_square_angstrom=1e8, displacement_angstrom=(1.3, -0.45))

    there = expose(spot(8.3, 9.55), SAMPLING, exposure, np.random.default_rng(0))
    moved = expose(spot(7.0, 10.0), SAMPLING, displaced, np.random.default_rng(0))

    np.testing.assert_allclose(moved / moved.mean(), there / there.mean(), atol=0.01)


@pytest.mark.parametrize("electrons", [2.0, 40.0, 400.0])
def test_counts_scatter_as_those_of_electrons_do(electrons: float) -> None:
    flat = torch.ones((SIDE, SIDE))
    exposure = Exposure(SAMPLING, electrons / SAMPLING**2)

    counts = np.stack([expose(flat, SAMPLING, exposure, np.random.default_rng(seed)) for seed in range(20)])

    off = counts - electrons
    assert np.array_equal(counts, np.round(counts))
    assert off.mean() == pytest.approx(0, abs=0.05 * np.sqrt(electrons))
    assert off.var() == pytest.approx(electrons, rel=0.02)
    assert (off**3).mean() == pytest.approx(electrons, rel=0.35)  # a Poisson distribution is skewed


@pytest.mark.parametrize("dose", [10.0, 1000.0])
def test_the_dose_is_what_is_counted(dose: float) -> None:
    exposure = Exposure(0.2, dose)
    p = actual_pixel_size(SIDE, SAMPLING, exposure)

    frame = expose(torch.ones(SIDE, SIDE), SAMPLING, exposure, np.random.default_rng(0))

    assert frame.mean() / p**2 == pytest.approx(dose, rel=0.1)
    assert frame.var() == pytest.approx(frame.mean(), rel=0.1)


def test_a_scintillator_colours_the_noise() -> None:
    counter = Exposure(0.16, 1000)
    scintillator = Exposure(0.16, 1000, mtf_half=0.3, mtf_floor=0.0)
    empty = torch.ones(SIDE, SIDE)

    white = expose(empty, SAMPLING, counter, np.random.default_rng(0))
    coloured = expose(empty, SAMPLING, scintillator, np.random.default_rng(0))

    def neighbour_correlation(frame: np.ndarray) -> float:
        centred = frame - frame.mean()
        return float((centred[:, 1:] * centred[:, :-1]).mean() / centred.var())

    assert abs(neighbour_correlation(white)) < 0.05
    assert neighbour_correlation(coloured) > 0.3
    assert coloured.mean() == pytest.approx(white.mean(), rel=1e-4)


def test_drift_smears_along_its_direction_only() -> None:
    still = expose(spot(9, 9), SAMPLING, Exposure(0.16, 1e7), np.random.default_rng(0))
    moved = expose(spot(9, 9), SAMPLING, Exposure(0.16, 1e7, drift_angstrom=(3.0, 0.0)), np.random.default_rng(0))

    def spread(frame: np.ndarray, axis: int) -> float:
        profile = (frame / np.median(frame) - 1).clip(0.05).sum(axis=1 - axis) - 0.05 * SIDE
        position = np.arange(len(profile)) * SAMPLING
        mean = (profile * position).sum() / profile.sum()
        return float(np.sqrt((profile * (position - mean) ** 2).sum() / profile.sum()))

    assert spread(moved, axis=1) > 1.1 * spread(still, axis=1)
    assert spread(moved, axis=0) < 1.1 * spread(still, axis=0)


def test_hot_pixels_and_grey_levels() -> None:
    exposure = Exposure(0.16, 100, hot_share=0.01, levels=255)

    frame = expose(torch.ones(SIDE, SIDE), SAMPLING, exposure, np.random.default_rng(0))

    assert frame.min() == 0
    assert frame.max() == 255
    np.testing.assert_array_equal(frame, np.round(frame))
