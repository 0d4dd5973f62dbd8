"""Text on pixel arrays in OpenCV's built-in typeface: no font files, and it has Å, × and accents."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.publish.palette import Colour

REGULAR, SEMIBOLD = 400, 600
"""Weights."""
LINE_HEIGHT = 1.5
"""From one line to the next, in parts of the type size."""
_BASELINE = 1.1


def draw_text(
    image: NDArray[np.uint8], text: str, left_px: int, top_px: int, size_px: int, colour: Colour, weight: int = REGULAR
) -> int:
    """Write a line whose upper left corner is at a place, and return where it ends on the right."""
    baseline_px = top_px + round(_BASELINE * size_px)
    cv2.putText(image, _drawable(text), (left_px, baseline_px), colour, _typeface(), size_px, weight)
    return left_px + text_width(text, size_px, weight)


def text_width(text: str, size_px: int, weight: int = REGULAR) -> int:
    """Return how far a line reaches to the right, in pixels."""
    left, _, width, _ = cv2.getTextSize((0, 0), _drawable(text), (0, 0), _typeface(), size_px, weight)
    return int(left + width)


def wrap_text(text: str, width_px: int, size_px: int, weight: int = REGULAR) -> list[str]:
    """Break a text into lines no wider than a width; a word too long for a line is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size_px, weight) <= width_px:
            lines[-1] = longer
        else:
            lines.append(shorten_text(word, width_px, size_px, weight))
    return lines


def shorten_text(text: str, width_px: int, size_px: int, weight: int = REGULAR) -> str:
    """Take letters out of the middle until a text fits a width: the names of frames differ at their ends."""
    text = " ".join(text.split())
    width = text_width(text, size_px, weight)
    if width <= width_px:
        return text
    kept = min(len(text) - 1, 2 * len(text) * max(width_px, 0) // width)
    while kept > 1 and text_width(_without_middle(text, kept), size_px, weight) > width_px:
        kept -= 1
    return _without_middle(text, kept)


def _drawable(text: str) -> str:
    """Put a question mark for what is not Unicode, as in the names of some files: OpenCV ends the process over it."""
    return text.encode(errors="replace").decode()


def _without_middle(text: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{text[:head]}…{text[len(text) - (kept - head) :]}"


def _typeface() -> Any:
    # A new one each time: it carries the size and weight last used, so threads must not share it. It costs 3 µs.
    return cv2.FontFace("sans")
