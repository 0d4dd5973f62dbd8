"""A frame without a pixel size gets the right one from its lattice, or none."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.errors import CalibrationError
from daemon.recognition.scale import estimate_graphene_pixel_size

REAL = Path(__file__).parents[3] / "shared" / "real" / "graphene"

GRAPHENE = np.array([[2.46, 0.0], [1.23, 2.1304]])
HONEYCOMB = np.array([[0.0, 0.0], [1.23, 0.7101]])
FCC_110 = np.array([[2.88, 0.0], [0.0, 4.08]])
FCC_110_BASIS = np.array([[0.0, 0.0], [1.44, 2.04]])
FCC_100 = np.array([[2.04, 0.0], [0.0, 2.04]])
ONE_ATOM = np.zeros((1, 2))


def crystal(
    pixel_size_angstrom: float,
    shape: tuple[int, int],
    turn_degrees: float = 0.0,
    cell: NDArray[Any] = GRAPHENE,
    basis: NDArray[Any] = HONEYCOMB,
    radius_angstrom: float = 0.45,
) -> NDArray[np.float32]:
    """A Gaussian per atom, 1 at the highest. Shape `shape`."""
    height, width = shape
    reach = int(np.hypot(height, width) * pixel_size_angstrom / 2 / 1.2) + 2
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    atoms = ((steps @ cell)[:, None] + basis).reshape(-1, 2)
    cosine, sine = np.cos(np.radians(turn_degrees)), np.sin(np.radians(turn_degrees))
    atoms = atoms @ np.array([[cosine, sine], [-sine, cosine]]) / pixel_size_angstrom + (width / 2, height / 2)
    # Atoms are drawn on a grid of at least 0.15 Å, as pixels too fine for a blur of deltas would cost seconds.
    coarse = max(1, round(0.15 / pixel_size_angstrom))
    if pixel_size_angstrom > 0.3:
        coarse = 1
    image = np.zeros((-(-height // coarse), -(-width // coarse)), np.float32)
    columns, rows = (atoms / coarse).T
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - x - (columns - left)) * np.abs(1 - y - (rows - top))
        inside = (left + x >= 0) & (left + x < image.shape[1]) & (top + y >= 0) & (top + y < image.shape[0])
        np.add.at(image, (top[inside] + y, left[inside] + x), weight[inside])
    image = cv2.GaussianBlur(image, (0, 0), radius_angstrom / pixel_size_angstrom / coarse)
    image = cv2.resize(image, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_CUBIC)[:height, :width]
    return image / image.max()


def expose(contrast: NDArray[Any], dose_per_pixel: float, seed: int = 0, strength: float = 0.15) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).poisson(dose_per_pixel * (1 + strength * contrast)).astype(np.uint16)


@pytest.mark.parametrize(
    ("pixel_size_angstrom", "side"), [(0.04, 1024), (0.07, 768), (0.12, 512), (0.2, 256), (0.34, 256), (0.5, 192)]
)
@pytest.mark.parametrize("turn_degrees", [0.0, 17.0])
@pytest.mark.parametrize("strength", [0.15, -0.15])
def test_any_pixel_size_direction_and_contrast(
    pixel_size_angstrom: float, side: int, turn_degrees: float, strength: float
) -> None:
    frame = expose(crystal(pixel_size_angstrom, (side, side), turn_degrees), 100, strength=strength)
    assert estimate_graphene_pixel_size(frame) == pytest.approx(pixel_size_angstrom, rel=0.01)


def test_pixels_so_coarse_that_the_second_ring_is_cut_off() -> None:
    frame = expose(crystal(0.62, (256, 256), 9.0), 300)
    assert estimate_graphene_pixel_size(frame) == pytest.approx(0.62, rel=0.01)


@pytest.mark.parametrize("shape", [(256, 700), (700, 256), (301, 333)])
def test_rectangular_frames(shape: tuple[int, int]) -> None:
    assert estimate_graphene_pixel_size(expose(crystal(0.15, shape, 5.0), 50)) == pytest.approx(0.15, rel=0.01)


def test_two_grains_a_hole_dirt_and_a_bad_camera() -> None:
    rng = np.random.default_rng(3)
    frame = crystal(0.14, (512, 512), 4.0)
    frame[:, 256:] = crystal(0.14, (512, 512), 23.0)[:, 256:]
    dirt = cv2.GaussianBlur(rng.standard_normal((512, 512)).astype(np.float32), (0, 0), 6)
    frame[:200, :180] += 10 * dirt[:200, :180]
    frame[330:430, 200:330] = 0
    counts = expose(frame, 100) * np.linspace(0.6, 1.4, 512)
    counts[:256, :256] *= 1.1
    counts[256:, 256:] += 25
    counts[rng.integers(0, 512, 60), rng.integers(0, 512, 60)] = 4000
    assert estimate_graphene_pixel_size(counts) == pytest.approx(0.14, rel=0.02)


def test_real_frames_agree_with_their_calibration() -> None:
    if not REAL.exists():
        pytest.skip("../shared/real/graphene is not here")
    with (REAL / "calibration.csv").open() as file:
        known = {row["file"]: float(row["pixel_size_angstrom"]) for row in csv.DictReader(file)}
    errors = [
        abs(estimate_graphene_pixel_size(cv2.imread(str(REAL / name), cv2.IMREAD_UNCHANGED)) / size - 1)
        for name, size in known.items()
    ]
    assert sum(error < 0.02 for error in errors) >= 46
    assert max(errors) < 0.04


def noise() -> NDArray[Any]:
    return expose(np.zeros((512, 512)), 50)


def amorphous_film() -> NDArray[Any]:
    rng = np.random.default_rng(1)
    structure = rng.standard_normal((512, 512)).astype(np.float32)
    band = cv2.GaussianBlur(structure, (0, 0), 2) - cv2.GaussianBlur(structure, (0, 0), 3)
    return expose(band / band.std(), 200)


def gradient() -> NDArray[Any]:
    return np.add.outer(np.arange(400), 2 * np.arange(500)).astype(np.float32)


def quadrants() -> NDArray[Any]:
    return noise() + np.kron([[0, 9], [5, 30]], np.ones((256, 256)))


def stripes() -> NDArray[Any]:
    y, x = np.mgrid[:512, :512]
    return expose(np.sin(0.4 * x + 0.25 * y), 100)


def crossed_stripes() -> NDArray[Any]:
    y, x = np.mgrid[:512, :512]
    return expose(np.sin(0.5 * x) + np.sin(0.5 * y), 100)


def gold_110() -> NDArray[Any]:
    return expose(crystal(0.15, (512, 512), 12.0, FCC_110, FCC_110_BASIS), 100)


def gold_100() -> NDArray[Any]:
    return expose(crystal(0.15, (512, 512), 12.0, FCC_100, ONE_ATOM), 100)


def blank() -> NDArray[Any]:
    return np.full((256, 256), 7, np.uint8)


@pytest.mark.parametrize(
    "frame", [noise, amorphous_film, gradient, quadrants, stripes, crossed_stripes, gold_110, gold_100, blank]
)
def test_no_graphene_no_pixel_size(frame: Any) -> None:
    with pytest.raises(CalibrationError, match="rings of a graphene lattice"):
        estimate_graphene_pixel_size(frame())


def test_noise_is_never_a_lattice() -> None:
    for seed in range(25):
        with pytest.raises(CalibrationError):
            estimate_graphene_pixel_size(expose(np.zeros((256, 256)), 20, seed))


def test_the_error_says_how_to_give_the_pixel_size() -> None:
    with pytest.raises(CalibrationError) as error:
        estimate_graphene_pixel_size(noise())
    for way in ("--pixel-size", "FRAME.json", "pixel_size_angstrom", "config.toml"):
        assert way in str(error.value)


def test_the_frame_is_left_as_it_was() -> None:
    frame = expose(crystal(0.2, (256, 256)), 100).astype(np.float32)
    before = frame.copy()
    estimate_graphene_pixel_size(frame)
    np.testing.assert_array_equal(frame, before)
