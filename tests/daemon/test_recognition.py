import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import FrameError
from daemon.recognition.preprocess import despeckle, prepare
from daemon.recognition.tiling import run_tiled


def dots(shape: tuple[int, int], positions: np.ndarray, pixel_size: float) -> np.ndarray:
    y, x = np.indices(shape) * pixel_size
    image = np.full(shape, 100.0)
    for px, py in positions:
        image += 50 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 0.5)
    return image


@pytest.mark.parametrize("pixel_size", [0.05, 0.12, 0.2, 0.37, 0.6])
def test_resampling_keeps_positions(pixel_size: float) -> None:
    rng = np.random.default_rng(0)
    shape = (round(40 / pixel_size), round(52 / pixel_size))
    truth = rng.uniform(8, 32, (6, 2))
    image = dots(shape, truth, pixel_size)

    prepared = prepare(image, pixel_size, 0.2)

    y, x = np.indices(prepared.image.shape)
    for position in prepared.from_acquired(truth / pixel_size):
        near = np.hypot(x - position[0], y - position[1]) < 4
        weights = np.where(near, np.maximum(prepared.image - prepared.image[near].min(), 0) ** 2, 0)
        assert (weights * x).sum() / weights.sum() == pytest.approx(position[0], abs=0.5)
        assert (weights * y).sum() / weights.sum() == pytest.approx(position[1], abs=0.5)


@given(st.integers(32, 400), st.integers(32, 400), st.floats(0.05, 0.6))
@settings(max_examples=30, deadline=None)
def test_the_way_to_the_network_and_back_is_the_identity(height: int, width: int, pixel_size: float) -> None:
    noise = np.random.default_rng(0).poisson(50, (height, width)).astype(np.uint16)
    prepared = prepare(noise, pixel_size, 0.2)
    corners = np.array([[0.0, 0.0], [width - 1, height - 1]])

    np.testing.assert_allclose(prepared.to_acquired(prepared.from_acquired(corners)), corners, atol=1e-9)
    # The corners of the frame are the corners of what the network sees.
    top_left, bottom_right = prepared.from_acquired(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    np.testing.assert_allclose(top_left, -0.5, atol=1e-9)
    np.testing.assert_allclose(bottom_right, np.array(prepared.image.shape[::-1]) - 0.5, atol=1e-9)


def test_brightness_contrast_and_slow_gradients_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    frame = dots((300, 300), rng.uniform(2, 58, (200, 2)), 0.2) + rng.normal(0, 3, (300, 300))
    ramp = np.linspace(0, 400, 300)[None, :]

    plain = prepare(frame, 0.2, 0.2).image
    changed = prepare(1000 + 7 * (frame + ramp), 0.2, 0.2).image

    inner = slice(60, -60)
    assert np.corrcoef(plain[inner, inner].ravel(), changed[inner, inner].ravel())[0, 1] > 0.995
    assert plain.std() == pytest.approx(1, abs=0.1)


def test_hot_and_dead_pixels_do_not_reach_the_network() -> None:
    rng = np.random.default_rng(2)
    clean = rng.poisson(200, (200, 200)).astype(np.float32)
    spoiled = clean.copy()
    spoiled[50, 60], spoiled[120, 30] = 60000, 0

    repaired = despeckle(spoiled.copy())

    assert abs(repaired[50, 60] - 200) < 60
    assert abs(repaired[120, 30] - 200) < 60
    untouched = np.ones_like(clean, bool)
    untouched[50, 60] = untouched[120, 30] = False
    np.testing.assert_array_equal(repaired[untouched], clean[untouched])


def test_single_electrons_on_an_empty_background_survive() -> None:
    counts = np.random.default_rng(3).poisson(0.02, (300, 300)).astype(np.float32)

    assert despeckle(counts.copy()).sum() > 0.8 * counts.sum()


def test_a_blank_frame_is_an_error() -> None:
    with pytest.raises(FrameError, match="all pixels are alike"):
        prepare(np.full((100, 100), 7, np.uint16), 0.2, 0.2)


class Blur:
    """A stand-in network of known reach: the mean over 17 × 17 pixels at stride 2."""

    description = "blur"
    shapes: list[tuple[int, ...]]

    def __init__(self) -> None:
        self.shapes = []

    def run(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        # Each channel counts differently, so that none is taken for another.
        padded = np.pad(np.tensordot(1.0 + np.arange(images.shape[1]), images[0], 1), 8)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (17, 17))[::2, ::2]
        return windows.mean(axis=(2, 3), dtype=np.float64).astype(np.float32)[None, None]


@given(st.integers(20, 150), st.integers(20, 150), st.sampled_from([(), (1,), (6,)]))
@settings(max_examples=30, deadline=None)
def test_tiles_give_the_same_answer_as_one_piece(height: int, width: int, channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(height).normal(size=(*channels, height, width)).astype(np.float32)
    network = Blur()

    whole = run_tiled(network, image, 2, 16, reach=9, tile=512)
    tiled = run_tiled(network, image, 2, 16, reach=9, tile=64)

    assert whole.shape == (1, -(-height // 2), -(-width // 2))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    assert max(max(shape[2:]) for shape in network.shapes[1:]) <= 64
    assert all(extent % 16 == 0 for shape in network.shapes for extent in shape[2:])
