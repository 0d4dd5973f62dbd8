"""A scale bar's length: round, and about a fifth of the frame."""

import math
from dataclasses import dataclass

_LONGEST_SHARE_OF_WIDTH = 0.25
_ANGSTROM_PER_NM = 10.0


@dataclass(frozen=True)
class ScaleBar:
    """A length that is 1, 2 or 5 times a power of ten, and how it reads."""

    length_angstrom: float
    label: str


def scale_bar(width_angstrom: float) -> ScaleBar:
    """Choose the longest round length within a quarter of a frame's width."""
    longest = width_angstrom * _LONGEST_SHARE_OF_WIDTH
    decade = 10.0 ** math.floor(math.log10(longest))
    # A hair of tolerance: a quarter of 40 Å is 10 Å, whatever the logarithm's last digit says.
    length = max(step * decade for step in (0.5, 1, 2, 5, 10) if step * decade <= longest * (1 + 1e-9))
    if length < _ANGSTROM_PER_NM * (1 - 1e-9):
        return ScaleBar(length, f"{length:g} Å")
    return ScaleBar(length, f"{length / _ANGSTROM_PER_NM:g} nm")
