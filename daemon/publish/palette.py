"""Colours that people with any colour vision can tell apart, on a grey frame."""

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

_ORANGE = (230, 159, 0)
_SKY_BLUE = (86, 180, 233)
_GREEN = (0, 158, 115)
_YELLOW = (240, 228, 66)
_BLUE = (0, 114, 178)
_VERMILLION = (213, 94, 0)
_PURPLE = (204, 121, 167)
OKABE_ITO: tuple[Colour, ...] = (_ORANGE, _SKY_BLUE, _YELLOW, _GREEN, _PURPLE, _VERMILLION, _BLUE)
"""Okabe and Ito's colours without black, those that show best on grey first (https://jfly.uni-koeln.de/color)."""

# The same class has the same colour in every frame and session.
_CLASS_COLOURS: dict[str, Colour] = {
    "atom": _ORANGE,
    "column": _ORANGE,
    "metal": _YELLOW,
    "Au": _YELLOW,
    "support": _SKY_BLUE,
    "vacancy": _VERMILLION,
    "C": _ORANGE,
    "Mo": _SKY_BLUE,
    "S": _GREEN,
    "S2": _YELLOW,
    "substitution": _PURPLE,
}

# The dark end of plasma is lost on a frame's dark parts.
_RAMP_START, _RAMP_STOP = 70, 245


def class_colours(names: Iterable[str]) -> dict[str, Colour]:
    """Give each class a colour of its own: the usual one where it has one, else one that is still free."""
    names = sorted(names)
    colours: dict[str, Colour] = {}
    for name in names:
        usual = _CLASS_COLOURS.get(name)
        if usual is not None and usual not in colours.values():
            colours[name] = usual
    free = [colour for colour in OKABE_ITO if colour not in colours.values()]
    for index, name in enumerate(name for name in names if name not in colours):
        # More classes than colours: they have to share, and the legend says so.
        colours[name] = free[index] if index < len(free) else OKABE_ITO[index % len(OKABE_ITO)]
    return {name: colours[name] for name in names}


def probability_colours(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colour probabilities from purple (0) to yellow (1), evenly to the eye.

    Args:
        probability: Shape (n,). The scale is the same for every frame, so that frames can be compared.

    Returns:
        Shape (n, 3), red, green, blue.
    """
    return _along_ramp(np.clip(probability, 0, 1))


def height_colours(n_atoms: NDArray[np.integer[Any]], deepest: int) -> NDArray[np.uint8]:
    """Colour numbers of atoms in columns from purple (1) to yellow (`deepest`), evenly to the eye.

    Args:
        n_atoms: Shape (n,), from 1 to `deepest`.
        deepest: The number that the scale ends at.

    Returns:
        Shape (n, 3), red, green, blue.
    """
    return _along_ramp((n_atoms - 1) / max(deepest - 1, 1))


def _along_ramp(places: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = _RAMP[np.round(places * (len(_RAMP) - 1)).astype(np.intp)]
    return colours


def _plasma() -> NDArray[np.uint8]:
    grey = np.arange(_RAMP_START, _RAMP_STOP + 1, dtype=np.uint8)[:, None]
    ramp: NDArray[np.uint8] = cv2.applyColorMap(grey, cv2.COLORMAP_PLASMA)[:, 0, ::-1]
    return ramp


_RAMP = _plasma()
