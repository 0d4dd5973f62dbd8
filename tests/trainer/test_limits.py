import numpy as np
import pytest
from scipy.stats import norm

from trainer.evaluation.limits import (
    LimitCurve,
    PhysicalLimits,
    detectability,
    dose_efficiency,
    error_rate,
    position_limit_angstrom,
    rmsd_within_tolerance,
)

PIXEL_SIZE = 0.1
BACKGROUND = 50.0  # electrons per pixel
SPOT_SIGMA = 0.5  # Å
AXIS = (np.arange(120) - 60) * PIXEL_SIZE


def spot(offset=(0.0, 0.0), peak=2.0):
    """A faint Gaussian spot on a uniform background, in expected electrons per pixel."""
    x, y = np.meshgrid(AXIS - offset[0], AXIS - offset[1])
    return BACKGROUND + peak * np.exp(-(x**2 + y**2) / (2 * SPOT_SIGMA**2))


def test_the_position_limit_of_a_faint_gaussian_spot():
    # ∫(∂λ/∂x)² = π A²/2 whatever the width; on a background B, in pixels of area a, information = π A² / (2 B a).
    per_axis = np.pi * 2.0**2 / (2 * BACKGROUND * PIXEL_SIZE**2)
    assert position_limit_angstrom(spot) == pytest.approx(np.sqrt(2 / per_axis), rel=0.02)


def test_the_position_limit_is_reached_by_the_best_estimate():
    # Maximum likelihood on simulated counts: a physical experiment, not the same formula again.
    rng = np.random.default_rng(5)

    def bright(offset):
        return spot(offset, peak=200.0)

    counts = rng.poisson(bright((0.0, 0.0)), (600, 120, 120)).astype(float)
    # One step of Fisher scoring from the truth.
    ahead, behind = bright((0.02, 0.0)), bright((-0.02, 0.0))
    weight = (ahead - behind) / 0.04 / bright((0.0, 0.0))
    information = ((ahead - behind) / 0.04 * weight).sum()
    estimates = ((counts - bright((0.0, 0.0))) * weight).sum(axis=(1, 2)) / information
    assert position_limit_angstrom(bright) / np.sqrt(2) == pytest.approx(estimates.std(), rel=0.1)


def test_the_position_limit_falls_with_the_root_of_the_dose():
    def four_times(offset):
        return 4 * spot(offset)

    assert position_limit_angstrom(four_times) == pytest.approx(position_limit_angstrom(spot) / 2)


def test_an_atom_that_cannot_be_seen_has_no_limit():
    with pytest.raises(ValueError, match="does not change"):
        position_limit_angstrom(lambda offset: np.full((8, 8), 3.0))


def test_detectability_of_a_faint_gaussian_spot():
    # ∫Δλ² = π A² s²
    expected = np.sqrt(np.pi * 2.0**2 * SPOT_SIGMA**2 / (BACKGROUND * PIXEL_SIZE**2))
    assert detectability(spot(), spot(peak=0.0)) == pytest.approx(expected, rel=0.02)


def test_the_ideal_observer_errs_as_often_as_stated():
    rng = np.random.default_rng(6)
    around = np.s_[35:85, 35:85]  # 5 Å, all that the atom reaches
    with_atom, without = spot(peak=4.0)[around], spot(peak=0.0)[around]
    log_ratio = np.log(with_atom / without)
    evidence_with = np.tensordot(rng.poisson(with_atom, (1500, *with_atom.shape)), log_ratio)
    evidence_without = np.tensordot(rng.poisson(without, (1500, *without.shape)), log_ratio)
    criterion = (with_atom - without).sum()
    errors = ((evidence_with < criterion).mean() + (evidence_without > criterion).mean()) / 2
    assert errors == pytest.approx(error_rate(detectability(with_atom, without)), abs=0.02)


def test_error_rates_of_the_literature():
    assert error_rate(np.array([0, 3, 4, 5, 6])) == pytest.approx([0.5, 0.067, 0.023, 0.0062, 0.0013], rel=0.05)


@pytest.mark.parametrize("rmsd", [0.05, 0.3, 0.86, 5.0])
def test_displacement_of_those_within_tolerance(rmsd):
    distances = np.linalg.norm(np.random.default_rng(7).normal(0, rmsd / np.sqrt(2), (400_000, 2)), axis=1)
    kept = distances[distances < 0.5]
    assert rmsd_within_tolerance(rmsd, 0.5) == pytest.approx(np.sqrt(np.mean(kept**2)), rel=0.02)


def test_dose_efficiency():
    limit = LimitCurve(np.array([100.0, 1e4]), np.array([0.5, 0.05]))
    assert dose_efficiency(1e3, 0.5, limit) == pytest.approx(0.1)
    # Errors fall with the root of the dose: the network at 4000 does what physics allows at 1000.
    assert dose_efficiency(4000.0, limit.error_at(1000.0), limit) == pytest.approx(0.25)
    assert np.isnan(dose_efficiency(1e3, 0.6, limit))
    assert np.isnan(dose_efficiency(1e3, 0.0, limit))
    assert np.isnan(limit.error_at(50.0))


def test_a_limit_that_rises_with_dose_is_refused():
    with pytest.raises(ValueError, match="falling errors"):
        LimitCurve(np.array([1.0, 2.0]), np.array([0.1, 0.2]))


def test_limits_at_every_dose_from_those_at_one():
    # The figures of graphene at 10³ e/Å²: d' = 3.2, displacement 0.27 Å.
    limits = PhysicalLimits.from_unit_dose(0.27 * np.sqrt(1e3), 3.2 / np.sqrt(1e3), tolerance_angstrom=0.5)
    assert limits.detection.error_at(1e3) == pytest.approx(norm.cdf(-1.6), rel=1e-3)
    assert limits.displacement.error_at(1e4) == pytest.approx(0.27 / np.sqrt(10), rel=1e-3)
    assert limits.displacement.error_at(10) < 0.5 / np.sqrt(2)
