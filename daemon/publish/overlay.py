"""The overlay: a frame with a ring around every site, and below it what is needed to read it."""

import math
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

from daemon.atoms import VACANCY, counts_by_species
from daemon.publish.colouring import Colouring, colour_rows
from daemon.publish.marks import draw_numbers, draw_rings
from daemon.publish.panel import BACKGROUND, PanelSize, draw_panel
from daemon.recognition.recogniser import Recognition

# A frame smaller than this is enlarged until its longer side reaches it ...
_COMFORTABLE_SIDE_PX = 1000
# ... or its atoms stand this far apart, so that neighbouring rings do not touch ...
_COMFORTABLE_SPACING_PX = 10.5
# ... farther where more than two colours are to be told apart on them ...
_COMFORTABLE_CLASS_SPACING_PX = 20.0
# ... and farther yet where the numbers of atoms in columns stand inside them ...
_COMFORTABLE_NUMBER_SPACING_PX = 30.0
_SMALLEST_NUMBER_SPACING_PX = 24.0
# ... but never beyond what a 4k display shows.
_LONGEST_SIDE_PX = 4096

_RADIUS_PER_SPACING = 0.36
_SMALLEST_RADIUS_PX = 2.5
# A lone atom in vacuum has no neighbours to measure its ring by.
_LARGEST_RADIUS_ANGSTROM = 1.0

_NUMBER_TYPE_PER_SPACING = 0.4
_LARGEST_NUMBER_TYPE_PX = 24
_TYPE_PER_SIDE = 1 / 64
_SMALLEST_TYPE_PX = 15
_NARROWEST_PANEL_TYPES = 40

# Outside of these the frame is black or white: wide enough for atoms, too narrow for a hot pixel to matter.
_BLACK_PERCENTILE, _WHITE_PERCENTILE = 0.2, 99.8
_CONTRAST_SAMPLES = 250_000
# The brightest grey leaves room for rings that are brighter still.
_WHITE = 225


def draw_overlay(recognition: Recognition) -> Image.Image:
    """Draw the frame with its sites; of a focal series the frame acquired first.

    The frame stands at the top left, enlarged by a whole number `zoom`, with nothing but rings and numbers on it: the
    centre of its pixel (x, y) is at ((x + 0.5) · zoom - 0.5, (y + 0.5) · zoom - 0.5). What a ring's colour means is
    told in the legend (see `daemon.publish.colouring`). Where columns are counted, and stand far enough apart, the
    number is written in the ring.
    """
    table = recognition.table
    positions_px = np.column_stack([table.column("x_px").to_numpy(), table.column("y_px").to_numpy()])
    colouring = colour_rows(table)

    height, width = recognition.frame.pixels.shape
    spacing_px = _typical_spacing(positions_px)
    zoom = _zoom(height, width, spacing_px, colouring)
    picture = _enlarge(stretch_contrast(recognition.frame.pixels), zoom)
    pixels_per_angstrom = zoom / recognition.calibration.pixel_size_angstrom
    radius_px = _ring_radius(spacing_px * zoom, pixels_per_angstrom)
    centres_px = (positions_px + 0.5) * zoom - 0.5
    vacant = np.array([kind == VACANCY for kind in table.column("kind").to_pylist()], bool)
    draw_rings(picture, centres_px, radius_px, colouring.rows, vacant)
    if spacing_px * zoom >= _SMALLEST_NUMBER_SPACING_PX:
        _write_counts(picture, centres_px, table, spacing_px * zoom)

    type_px = max(_SMALLEST_TYPE_PX, round(math.sqrt(height * width) * zoom * _TYPE_PER_SIDE))
    size = PanelSize(
        width_px=max(width * zoom, _NARROWEST_PANEL_TYPES * type_px),
        type_px=type_px,
        pixels_per_angstrom=pixels_per_angstrom,
        frame_width_angstrom=width * recognition.calibration.pixel_size_angstrom,
    )
    panel = draw_panel(recognition, counts_by_species(table), colouring, size)
    return Image.fromarray(np.vstack([_pad_right(picture, size.width_px), panel]))


def stretch_contrast(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn intensities of any type into grey, black and white at robust percentiles."""
    stride = max(1, math.isqrt(pixels.size // _CONTRAST_SAMPLES))
    black, white = np.percentile(pixels[::stride, ::stride], [_BLACK_PERCENTILE, _WHITE_PERCENTILE])
    if white <= black:
        # Nothing between the percentiles: a constant frame, or one with a few counts on nothing.
        black, white = float(pixels.min()), float(pixels.max())
    if white <= black:
        return np.full(pixels.shape, _WHITE // 2, np.uint8)
    # Single precision is faster, but cannot hold wide integers or floats.
    values: NDArray[Any] = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
    grey: NDArray[np.uint8] = np.clip((values - black) * (_WHITE / (white - black)), 0, _WHITE).astype(np.uint8)
    return grey


def _typical_spacing(positions_px: NDArray[np.floating[Any]]) -> float:
    """Return the median distance to the nearest neighbour, infinite without neighbours."""
    if len(positions_px) < 2:
        return math.inf
    distances, _ = KDTree(positions_px).query(positions_px, k=2)
    return max(float(np.median(distances[:, 1])), 0.5)


def _zoom(height: int, width: int, spacing_px: float, colouring: Colouring) -> int:
    longer = max(height, width)
    comfortable_px = _COMFORTABLE_CLASS_SPACING_PX if len(colouring.classes) > 2 else _COMFORTABLE_SPACING_PX
    if colouring.deepest is not None:
        comfortable_px = _COMFORTABLE_NUMBER_SPACING_PX
    wanted = max(math.ceil(_COMFORTABLE_SIDE_PX / longer), math.ceil(comfortable_px / spacing_px))
    return max(1, min(wanted, _LONGEST_SIDE_PX // longer))


def _ring_radius(spacing_px: float, pixels_per_angstrom: float) -> float:
    radius = min(_RADIUS_PER_SPACING * spacing_px, _LARGEST_RADIUS_ANGSTROM * pixels_per_angstrom)
    return max(radius, _SMALLEST_RADIUS_PX)


def _enlarge(grey: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    if zoom > 1:
        grey = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    picture: NDArray[np.uint8] = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return picture


def _write_counts(
    picture: NDArray[np.uint8], centres_px: NDArray[np.floating[Any]], table: pa.Table, spacing_px: float
) -> None:
    """Write the number of atoms of each column that tells one."""
    numbers = table.column("n_atoms").to_pylist()
    told = [row for row, number in enumerate(numbers) if number is not None]
    type_px = round(min(_NUMBER_TYPE_PER_SPACING * spacing_px, _LARGEST_NUMBER_TYPE_PX))
    draw_numbers(picture, centres_px[told], [numbers[row] for row in told], type_px)


def _pad_right(picture: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    missing_px = width_px - picture.shape[1]
    padded: NDArray[np.uint8] = cv2.copyMakeBorder(picture, 0, 0, 0, missing_px, cv2.BORDER_CONSTANT, value=BACKGROUND)
    return padded
