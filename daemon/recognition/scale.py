"""The pixel size of a frame that came without one, from the lattice of the graphene it shows.

A sheet's power spectrum has six spots {10-10} at 1/2.13 Å and, turned by 30°, six spots {11-20} at 1/1.23 Å; each grain
adds such a double star, turned by another angle. On a polar map of the spectrum with a logarithmic radius the double
star has one shape, and the pixel size decides only how far out it lies: it is looked for once, at all scales.

Everything else in a spectrum lacks that shape: amorphous matter and the lens give smooth rings, stripes and the seams
of a camera's quadrants a single direction, other crystals other angles and ratios. The one exception is a crystal with
a hexagonal net of its own, such as an fcc metal along ⟨111⟩: nothing in a spectrum tells its star from graphene's.
"""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from daemon.errors import CalibrationError
from daemon.recognition.preprocess import despeckle

FIRST_RING_ANGSTROM = 2.13
"""Spacing of {10-10}: √3/2 times the lattice constant of 2.46 Å. That of {11-20} is √3 smaller."""

PIXEL_SIZES_ANGSTROM = (0.03, 0.65)
"""What is looked for. Coarser pixels do not resolve the lattice, finer ones show too little of it."""

FEWEST_PERIODS = 6
"""A lattice that fits fewer times into the frame is not told from the shape of the frame's content."""

LARGEST_SIDE_PIXELS = 2048
"""Of larger frames the middle is enough."""

# The polar map: one column is half a degree, one row 0.6 %, and exactly RING_ROWS of them a factor of √3.
COLUMNS = 360
STAR_COLUMNS = COLUMNS // 3
RING_ROWS = 92
ROW_STEP = math.log(3) / 2 / RING_ROWS
MARGIN = 1.03
LOWEST_FREQUENCY = PIXEL_SIZES_ANGSTROM[0] / FIRST_RING_ANGSTROM / MARGIN
SCALE_ROWS = math.ceil(math.log(PIXEL_SIZES_ANGSTROM[1] / PIXEL_SIZES_ANGSTROM[0] * MARGIN**2) / ROW_STEP)
ROWS = SCALE_ROWS + RING_ROWS

# Prominences are natural logarithms of the power over that around it. A ring of noise has 0.8 ± 0.4 at a given place.
# The most prominent star (both rings) of hundreds of frames of noise and amorphous carbon had 4.2, the least prominent
# of 49 real frames of graphene 7.1.
LEAST_STAR = 4.5
LEAST_LONE_RING = 3.0
VISIBLE_RING = 1.8
LEAST_LEAD = 0.5
"""Of the strongest spot on the two rings over the strongest elsewhere."""


class _Star(NamedTuple):
    """The two rings of one grain: where on the map, and how prominent."""

    row: int
    column: int
    first: float
    second: float


def estimate_graphene_pixel_size(pixels: NDArray[Any]) -> float:
    """Measure the pixel size on graphene's own lattice.

    Args:
        pixels: Shape (height, width), any real type.

    Returns:
        Å per pixel, good to about 2 %: microscopes distort by as much.

    Raises:
        CalibrationError: There are no lattice rings, they are not graphene's, or they fit two pixel sizes equally well.
    """
    prominence = _prominence(pixels)
    star = _most_prominent_star(prominence)
    if star.first + star.second < LEAST_STAR:
        raise _unknown("the power spectrum shows no rings of a graphene lattice")
    # One ring alone and clear is the first: lenses pass it better. A faint one does not say which it is.
    if star.first < (VISIBLE_RING if star.second >= VISIBLE_RING else LEAST_LONE_RING):
        raise _unknown("only one ring of the graphene lattice is clear, and it may be the one at 2.13 Å or at 1.23 Å")
    if _lead_over_other_spots(prominence, star) < LEAST_LEAD:
        raise _unknown("the strongest spots of the power spectrum do not lie on the rings of a graphene lattice")
    return _refine(prominence, star)


def _unknown(why: str) -> CalibrationError:
    return CalibrationError(
        f"The frame has no pixel size and {why}. Give it as pixel_size_angstrom in a sidecar FRAME.json or of the "
        "source in config.toml, or to `hrtemd process` as --pixel-size ANGSTROM."
    )


def _prominence(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Polar map, shape (ROWS, COLUMNS) over 180°, of how much the spectrum stands out of its surroundings.

    Row r is at LOWEST_FREQUENCY · exp((r + 0.5) · ROW_STEP) cycles per pixel. What is noise, or beyond what the frame
    can tell, is near 0.
    """
    power, shortest_side = _power_spectrum(pixels)
    side = len(power)
    # Twice as fine, then averaged in pairs: all points of the spectrum count, out to Nyquist of a frame of 1024 pixels.
    frequency = LOWEST_FREQUENCY * np.exp((np.arange(2 * ROWS) + 0.5) * ROW_STEP / 2)
    angle = ((np.arange(2 * COLUMNS) + 0.5) / (2 * COLUMNS) - 0.5) * math.pi
    x = np.outer(frequency, np.cos(angle)).astype(np.float32)
    y = np.outer(frequency, np.sin(angle)).astype(np.float32)
    polar = cv2.remap(power, x * side, y * side + side // 2, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    known = (np.maximum(x, np.abs(y)) < 0.495) & (frequency[:, None] * shortest_side > FEWEST_PERIODS)
    polar = cv2.resize(polar, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    known = known[::2, ::2] & known[1::2, 1::2]

    level = np.log(np.maximum(polar, 1e-6 * power.mean() + 1e-20))
    level -= (level * known).sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    level[~known] = 0
    # Astigmatism and the edges of blobs make the background differ with direction.
    wrapped = np.pad(np.clip(level, -2, 2), ((0, 0), (40, 40)), mode="wrap")
    level -= cv2.blur(wrapped, (61, 31))[:, 40:-40]
    level[~known] = 0
    prominence: NDArray[np.float32] = level
    return prominence


def _power_spectrum(pixels: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """Half of the power spectrum on a square grid, zero frequency at (side // 2, 0); and the frame's shorter side."""
    height, width = pixels.shape
    top, left = (max(0, (extent - LARGEST_SIDE_PIXELS) // 2) for extent in (height, width))
    image = despeckle(pixels[top : top + LARGEST_SIDE_PIXELS, left : left + LARGEST_SIDE_PIXELS].astype(np.float32))
    height, width = image.shape
    # A few very bright or dark places, thick dirt or a hole, must not outshine the lattice.
    image -= image.mean()
    limit = 4 * float(image.std())
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    image = np.clip(image, -limit, limit) * window
    side = scipy.fft.next_fast_len(max(height, width, 512), real=True)
    spectrum = scipy.fft.fftshift(scipy.fft.rfft2(image, s=(side, side)), axes=0)
    power: NDArray[np.float32] = np.square(spectrum.real) + np.square(spectrum.imag)
    return power, min(height, width)


def _most_prominent_star(prominence: NDArray[np.float32]) -> _Star:
    # A spot may lie 2.5 % and 1.5° off its place, and lies best right on it.
    wrapped = np.pad(prominence, ((0, 0), (12, 12)), mode="wrap")
    near = cv2.blur(cv2.dilate(wrapped, np.ones((9, 7), np.uint8)), (5, 7))[:, 12:-12]
    # The weaker two of three directions: stripes have one, and astigmatism may take one away.
    rings = np.sort(near.reshape(ROWS, 3, STAR_COLUMNS), axis=1)[:, :2].mean(axis=1)
    rings = np.maximum(rings, 0)
    turned = np.roll(rings, STAR_COLUMNS // 2, axis=1)
    stars = rings[:SCALE_ROWS] + turned[RING_ROWS:]
    row, column = divmod(int(stars.argmax()), STAR_COLUMNS)
    return _Star(row, column, float(rings[row, column]), float(turned[row + RING_ROWS, column]))


def _lead_over_other_spots(prominence: NDArray[np.float32], star: _Star) -> float:
    """How far the strongest spot on the two rings, of any grain, stands above the strongest one elsewhere.

    Another crystal may have spots where a star is looked for, but its strongest lie outside it.
    """
    beyond_first = np.arange(ROWS) - star.row
    on_rings = (np.abs(beyond_first) <= 16) | (np.abs(beyond_first - RING_ROWS) <= 16)
    # The seams of a camera's quadrants make streaks along the axes.
    from_axis = np.abs((np.arange(COLUMNS) + COLUMNS // 4) % (COLUMNS // 2) - COLUMNS // 4)
    elsewhere = prominence[np.ix_(~on_rings, from_axis > 6)]
    return float(prominence[on_rings].max() - elsewhere.max())


def _refine(prominence: NDArray[np.float32], star: _Star) -> float:
    """Pixel size from the centres of the star's spots.

    The mean over three directions 60° apart is free of an ellipse that the microscope makes of the lattice.
    """
    rows, weights = [], []
    for offset, turn, ring in ((0, 0, star.first), (RING_ROWS, STAR_COLUMNS // 2, star.second)):
        if ring < VISIBLE_RING:
            continue
        near_rows = np.arange(max(star.row + offset - 8, 0), min(star.row + offset + 9, ROWS))
        for direction in range(3):
            middle = star.column + turn + direction * STAR_COLUMNS
            near_columns = np.arange(middle - 5, middle + 6) % COLUMNS
            power = np.expm1(np.maximum(prominence[np.ix_(near_rows, near_columns)] - 1, 0)).sum(axis=1)
            if power.sum() > 0:
                rows.append(float((power * (near_rows - offset)).sum() / power.sum()))
                weights.append(ring)
    row = np.average(rows, weights=weights)
    return FIRST_RING_ANGSTROM * LOWEST_FREQUENCY * math.exp((row + 0.5) * ROW_STEP)
