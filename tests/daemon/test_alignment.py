"""Frames of a specimen that drifts while the lens is refocused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.frames import Acquisition, FocalSeries, Frame
from daemon.series.alignment import Drift, measure_drift

FIELD_ANGSTROM = 96.0
FRAME_ANGSTROM = 56.0
LATTICE_ANGSTROM = 3.16
WAVELENGTH_ANGSTROM = 0.0418  # at 80 kV
DEFOCUS_ANGSTROM = (-130.0, -90.0, -50.0)
INVERTING_ANGSTROM = (-90.0, 0.0, 90.0)


def lattice_vectors() -> NDArray[np.float64]:
    """All of a hexagonal lattice that lie in the field, if it began in their middle."""
    i, j = (index.ravel() for index in np.mgrid[-60:60, -60:60])
    turn = np.deg2rad(11)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=1) * LATTICE_ANGSTROM @ turned)


def atoms(missing: float, seed: int = 0) -> NDArray[np.float64]:
    """Positions in Å in a honeycomb that fills the field, of which a share is missing."""
    rng = np.random.default_rng(seed)
    vectors = lattice_vectors()
    sheet = np.concatenate([vectors, vectors + (vectors[1] + vectors[120] - 2 * vectors[0]) / 3])
    sheet += FIELD_ANGSTROM / 2
    inside = ((sheet >= 0) & (sheet < FIELD_ANGSTROM)).all(axis=1)
    return sheet[inside & (rng.random(len(sheet)) >= missing)]


def image(
    positions: NDArray[np.float64],
    drift: NDArray[np.float64],
    defocus: float,
    pixel_size: float,
    dose: float,
    seed: int,
    light: float = 0.0,
    strength: float = 0.12,
) -> NDArray[np.uint16]:
    """Counts in the middle of the field, of weak phase objects through a lens of Cs -10 µm.

    The light falls off by `light` from left to right, whatever the specimen does.
    """
    side = round(FIELD_ANGSTROM / pixel_size)
    pixel_size = FIELD_ANGSTROM / side
    x, y = np.meshgrid(np.fft.rfftfreq(side, pixel_size), np.fft.fftfreq(side, pixel_size))
    # Rounded to whole pixels, a lattice would be none.
    corner, part = np.divmod(positions / pixel_size, 1)
    points = np.zeros((side, side))
    for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = ((corner + [right, below]) % side).astype(int).T
        share = np.abs(1 - right - part[:, 0]) * np.abs(1 - below - part[:, 1])
        np.add.at(points, (row, column), share / pixel_size**2)
    k2 = x**2 + y**2
    chi = np.pi * WAVELENGTH_ANGSTROM * k2 * (-defocus - 1e5 * WAVELENGTH_ANGSTROM**2 / 2 * k2)
    ramp = np.exp(-2j * np.pi * (x * drift[0] + y * drift[1]))
    spectrum = np.fft.rfft2(points) * np.sin(chi) * np.exp(-2 * (np.pi * 0.3) ** 2 * k2) * ramp
    contrast = np.fft.irfft2(spectrum, s=(side, side))
    contrast *= strength / max(float(contrast.std()), 1e-9)
    evenness = 1 + light * np.linspace(0.5, -0.5, side)
    counts = np.random.default_rng(seed).poisson(dose * pixel_size**2 * np.maximum(1 + contrast, 0.05) * evenness)
    margin = round((FIELD_ANGSTROM - FRAME_ANGSTROM) / 2 / pixel_size)
    return (counts[margin:-margin, margin:-margin] * 10 + 50).astype(np.uint16)


def series_of(
    frames: list[NDArray[np.uint16]],
    first: int = 0,
    defocus: tuple[float, ...] = DEFOCUS_ANGSTROM,
    voltage_kv: float | None = 80.0,
) -> FocalSeries:
    one, two, three = (
        Frame(pixels, str(value), str(value), acquisition=Acquisition(defocus_angstrom=value, voltage_kv=voltage_kv))
        for pixels, value in zip(frames, defocus, strict=True)
    )
    return FocalSeries((one, two, three), first, "series", "series")


def measured(
    drift: list[list[float]],
    *,
    missing: float = 0.04,
    first: int = 0,
    defocus: tuple[float, ...] = DEFOCUS_ANGSTROM,
    pixel_size: float = 0.2,
    dose: float = 1000,
    voltage_kv: float | None = 80.0,
    light: float = 0.0,
) -> Drift:
    """What is measured of frames that drifted by so much."""
    positions = atoms(missing)
    frames = [
        image(positions, np.array(each), value, pixel_size, dose, seed, light)
        for seed, (each, value) in enumerate(zip(drift, defocus, strict=True))
    ]
    size = FIELD_ANGSTROM / round(FIELD_ANGSTROM / pixel_size)
    return measure_drift(series_of(frames, first, defocus, voltage_kv), size)


def assert_close(result: Drift, expected: list[list[float]], tolerance: float = 0.15) -> None:
    np.testing.assert_allclose(result.drift_angstrom, expected, atol=tolerance)
    assert result.warnings == []


LENGTH = st.floats(0, 19.5)
DIRECTION = st.floats(0, 2 * np.pi)


@settings(max_examples=10, deadline=None)
@given(lengths=st.tuples(LENGTH, LENGTH), directions=st.tuples(DIRECTION, DIRECTION), first=st.integers(0, 2))
def test_any_drift_up_to_20_angstrom_counted_from_the_first_frame_in_time(
    lengths: tuple[float, float], directions: tuple[float, float], first: int
) -> None:
    drift = [[length * np.cos(way), length * np.sin(way)] for length, way in zip(lengths, directions, strict=True)]
    drift.insert(first, [0.0, 0.0])
    # Whether what it finds is doubtful is another question: with some drifts few of the sheet's defects stay in view.
    np.testing.assert_allclose(measured(drift, first=first).drift_angstrom, drift, atol=0.15)


DRIFT = [[0.0, 0.0], [7.3, -4.1], [-3.4, 11.2]]


@pytest.mark.parametrize("pixel_size", [0.08, 0.12, 0.33, 0.6])
def test_any_pixel_size(pixel_size: float) -> None:
    assert_close(measured(DRIFT, pixel_size=pixel_size, dose=3000), DRIFT)


def test_contrast_that_inverts_between_the_frames() -> None:
    assert_close(measured(DRIFT, defocus=INVERTING_ANGSTROM, dose=3000), DRIFT)


def test_a_voltage_that_nobody_tells() -> None:
    assert_close(measured(DRIFT, voltage_kv=None), DRIFT)


def test_a_defocus_that_is_told_wrongly() -> None:
    positions = atoms(missing=0.04)
    frames = [
        image(positions, np.array(each), value + 25, 0.2, 3000, seed)
        for seed, (each, value) in enumerate(zip(DRIFT, DEFOCUS_ANGSTROM, strict=True))
    ]
    assert_close(measure_drift(series_of(frames), 0.2), DRIFT)


def test_light_that_stands_still_does_not_hold_the_specimen() -> None:
    assert_close(measured(DRIFT, light=0.6), DRIFT)


def test_hot_pixels_that_stand_still_do_not_hold_the_specimen() -> None:
    positions, rng = atoms(missing=0.04), np.random.default_rng(3)
    frames = [
        image(positions, np.array(each), value, 0.2, 1000, seed)
        for seed, (each, value) in enumerate(zip(DRIFT, DEFOCUS_ANGSTROM, strict=True))
    ]
    hot = rng.random(frames[0].shape) < 1e-3
    for frame in frames:
        frame[hot] = 40 * frame.mean()
    assert_close(measure_drift(series_of(frames), 0.2), DRIFT)


def test_frames_that_are_not_square() -> None:
    positions = atoms(missing=0.04)
    frames = [
        image(positions, np.array(each), value, 0.2, 1000, seed)[20:-31]
        for seed, (each, value) in enumerate(zip(DRIFT, DEFOCUS_ANGSTROM, strict=True))
    ]
    assert_close(measure_drift(series_of(frames), 0.2), DRIFT)


def test_a_perfect_lattice_is_doubtful_and_moves_no_farther_than_it_must() -> None:
    result = measured([[0.0, 0.0], [0.6, -0.3], [-0.5, 0.9]], missing=0.0)
    assert "lattice vector" in result.warnings[0]
    assert np.linalg.norm(result.drift_angstrom, axis=1).max() < 2 * LATTICE_ANGSTROM


@settings(max_examples=5, deadline=None)
@given(lengths=st.tuples(LENGTH, LENGTH), directions=st.tuples(DIRECTION, DIRECTION))
def test_a_perfect_lattice_is_off_by_whole_lattice_vectors_and_doubtful(
    lengths: tuple[float, float], directions: tuple[float, float]
) -> None:
    drift = [[length * np.cos(way), length * np.sin(way)] for length, way in zip(lengths, directions, strict=True)]
    result = measured([[0.0, 0.0], *drift], missing=0.0)
    error = result.drift_angstrom[1:] - drift
    to_vector = np.linalg.norm(error[:, None] - lattice_vectors(), axis=2).min(axis=1)
    assert to_vector.max() < 0.15
    assert result.warnings


def test_a_drift_beyond_what_is_looked_for_is_doubtful() -> None:
    assert measured([[0.0, 0.0], [21.5, 0.0], [3.0, 0.0]]).warnings
    assert measured([[0.0, 0.0], [38.0, 0.0], [3.0, 0.0]]).warnings


def test_a_frame_of_another_area_is_doubtful() -> None:
    frames = [
        image(atoms(missing=0.04, seed=area), np.zeros(2), value, 0.2, 1000, index)
        for index, (area, value) in enumerate(zip((0, 0, 1), DEFOCUS_ANGSTROM, strict=True))
    ]
    assert measure_drift(series_of(frames), 0.2).warnings


def test_frames_of_noise_are_doubtful() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.poisson(20, (256, 256)).astype(np.uint16) for _ in range(3)]
    assert "fits nearly as well" in measure_drift(series_of(frames), 0.2).warnings[0]


def test_the_smallest_frames_give_an_answer() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.poisson(20, (32, 32)).astype(np.uint16) for _ in range(3)]
    drift = measure_drift(series_of(frames), 0.1)
    assert np.isfinite(drift.drift_angstrom).all()
    assert "too small" in drift.warnings[0]
