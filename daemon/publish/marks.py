"""What is drawn on the frame of an overlay: rings around atoms, and the numbers of atoms in columns."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.publish.lettering import SEMIBOLD, draw_text, text_width

# A vacancy has two rings, around and inside of where another site has its one; told apart without colours, too.
_OUTER_RADIUS, _INNER_RADIUS = 1.25, 0.7

# cv2 draws at fractions of a pixel given as integers with this many binary places.
_FRACTION_BITS = 4

_BRIGHT = 245


def draw_rings(
    picture: NDArray[np.uint8],
    centres_px: NDArray[np.floating[Any]],
    radius_px: float,
    colours: NDArray[np.uint8],
    vacant: NDArray[np.bool_],
) -> None:
    """Draw thin rings, so that the atom inside stays visible; double ones where a site is empty."""
    scale = 1 << _FRACTION_BITS
    centres = np.round(centres_px * scale).astype(int).tolist()
    for centre, colour, is_vacant in zip(centres, colours.tolist(), vacant.tolist(), strict=True):
        for factor in (_OUTER_RADIUS, _INNER_RADIUS) if is_vacant else (1.0,):
            radius = round(factor * radius_px * scale)
            cv2.circle(picture, centre, radius, colour, _thickness(radius_px), cv2.LINE_AA, _FRACTION_BITS)


def _thickness(radius_px: float) -> int:
    return max(1, round(radius_px / 5))


def draw_numbers(
    picture: NDArray[np.uint8], centres_px: NDArray[np.floating[Any]], numbers: Sequence[int], type_px: int
) -> None:
    """Write numbers centred on places, bright on a dark edge that parts them from any grey."""
    height, width = picture.shape[:2]
    for (x, y), number in zip(centres_px.tolist(), numbers, strict=True):
        ink, edge = _stamp(str(number), type_px)
        rows, columns = ink.shape[:2]
        top = min(max(round(y - (rows - 1) / 2), 0), height - rows)
        left = min(max(round(x - (columns - 1) / 2), 0), width - columns)
        place = picture[top : top + rows, left : left + columns]
        place[:] = place * (1 - edge) * (1 - ink) + _BRIGHT * ink


@cache
def _stamp(text: str, type_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A text's ink and the dark edge around it, each of shape (height, width, 1) from 0 to 1."""
    margin_px = max(1, type_px // 8)
    canvas = np.zeros((2 * type_px, text_width(text, type_px, SEMIBOLD) + 2 * type_px, 3), np.uint8)
    draw_text(canvas, text, type_px, type_px // 4, type_px, (255, 255, 255), SEMIBOLD)
    left, top, width, height = cv2.boundingRect(canvas[:, :, 0])
    ink = np.pad(canvas[top : top + height, left : left + width, 0], margin_px)
    side = 2 * margin_px + 1
    edge = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return (ink[:, :, None] / 255).astype(np.float32), (edge[:, :, None] / 255).astype(np.float32)
