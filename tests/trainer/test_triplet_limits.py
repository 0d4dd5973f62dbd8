from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.camera import good_scintillator
from trainer.evaluation.limits import (
    LimitCurve,
    TripletDetectability,
    detectability,
    error_rate,
    least_error_rate,
    miscount_rate,
    selection_error_rate,
)
from trainer.evaluation.reference_limits import HEIGHT, SPECIES, WEAKEST_SITE, triplet_limits
from trainer.optics import Optics

DOSE = 100.0


def evidence(d_prime, rare, rng):
    """What an ideal observer sees of each site: a number that is larger by d' for the rare case."""
    return rng.standard_normal(len(rare)) + d_prime * rare


def test_guessing_by_what_occurs_more_often():
    rng = np.random.default_rng(1)
    rare = rng.random(400_000) < 0.05
    seen = evidence(2.0, rare, rng)
    errors = [np.mean((seen > threshold) != rare) for threshold in np.linspace(-2, 6, 200)]
    assert least_error_rate(2.0, 0.05) == pytest.approx(min(errors), rel=0.03)


@pytest.mark.parametrize(("d_prime", "share"), [(2.0, 0.5), (3.0, 0.05), (4.0, 0.01)])
def test_selecting_as_many_as_there_are(d_prime, share):
    rng = np.random.default_rng(2)
    rare = rng.random(1_000_000) < share
    seen = evidence(d_prime, rare, rng)
    selected = seen > np.quantile(seen, 1 - rare.mean())
    expected = selection_error_rate(d_prime, share)
    assert 1 - rare[selected].mean() == pytest.approx(expected, rel=0.1)  # precision
    assert 1 - selected[rare].mean() == pytest.approx(expected, rel=0.1)  # recall


def test_counting_where_any_count_is_as_likely():
    rng = np.random.default_rng(3)
    true = rng.integers(-50, 50, 400_000)
    off = np.abs(np.round((evidence(2.5, true, rng)) / 2.5) - true)
    assert miscount_rate(2.5) == pytest.approx((off > 0).mean(), rel=0.02)
    assert miscount_rate(1.0, tolerance=1) == pytest.approx(2 * error_rate(3.0))


@given(st.floats(0.01, 40), st.floats(0.001, 0.999))
def test_knowing_how_rare_a_case_is_never_hurts(d_prime, share):
    assert least_error_rate(d_prime, share) <= min(error_rate(d_prime), share, 1 - share) + 1e-12


@given(st.floats(0.01, 30))
def test_cases_that_are_equally_frequent_need_no_guessing(d_prime):
    assert least_error_rate(d_prime, 0.5) == pytest.approx(error_rate(d_prime))
    assert selection_error_rate(d_prime, 0.5) == pytest.approx(error_rate(d_prime))


@pytest.mark.parametrize(
    "error_of",
    [
        error_rate,
        miscount_rate,
        partial(least_error_rate, share=0.02),
        partial(selection_error_rate, share=0.02),
    ],
)
def test_a_limit_at_every_dose_from_the_one_at_one(error_of):
    limit = LimitCurve.of_detection(0.3, error_of)
    # A dose between two that were computed.
    assert limit.error_at(300.0) == pytest.approx(error_of(0.3 * np.sqrt(300.0)), rel=0.01)
    assert limit.dose_at(float(error_of(0.3 * np.sqrt(300.0)))) == pytest.approx(300.0, rel=0.01)


def test_the_frames_of_a_triplet_add_their_squares():
    rng = np.random.default_rng(4)
    one = rng.uniform(90, 110, (3, 16, 16))
    other = one + rng.normal(0, 2, one.shape)
    together = TripletDetectability.between(list(one), list(other))
    assert together.triplet**2 == pytest.approx(sum(detectability(a, b) ** 2 for a, b in zip(one, other, strict=True)))
    assert together.middle == detectability(one[1], other[1])


# The table in SCIENCE.md, from an independent calculation.
@pytest.mark.parametrize(
    ("specimen", "voltage_kv", "spherical_aberration_um", "c10", "question", "triplet", "middle"),
    [
        ("mos2", 80.0, -10.0, (130.0, 90.0, 50.0), SPECIES, 3.0, 1.9),
        ("nanoparticle", 300.0, -15.0, (120.0, 80.0, 40.0), HEIGHT, 2.6, 1.7),
    ],
)
def test_limits_of_the_reference_triplets(
    specimen, voltage_kv, spherical_aberration_um, c10, question, triplet, middle
):
    lenses = [Optics(voltage_kv, defocus, spherical_aberration_um * 1e4, 30.0) for defocus in c10]
    limits = triplet_limits(specimen, {"reference": lenses}, good_scintillator(0.12, 1.0))["reference"]
    at_dose = limits[question].triplet * np.sqrt(DOSE), limits[question].middle * np.sqrt(DOSE)
    assert at_dose == pytest.approx((triplet, middle), rel=0.08)
    assert limits[WEAKEST_SITE].triplet > limits[question].triplet
