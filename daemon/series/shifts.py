"""From maps of how well shifts fit, one for each pair of three frames, to the shifts that fit together."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Place = tuple[int, int]

PEAKS = 12
"""Of each map that shifts are tried from."""

CLIMBS = 3


class ShiftMaps(NamedTuple):
    """How well shifts fit, zero shift in the middle of each map.

    Attributes:
        to_one: Shape (2 rows + 1, 2 columns + 1), from the first frame to one of the others.
        to_other: The same, to the other.
        between: Shape (4 rows + 1, 4 columns + 1), from the one to the other.
    """

    to_one: Map
    to_other: Map
    between: Map

    def for_one(self, other: Place) -> Map:
        """The sum of all maps for every shift of the one, where the other's is known."""
        rows, columns = self.to_one.shape
        row, column = other
        turned = self.between[::-1, ::-1]
        turned_to_other = turned[rows - 1 - row :, columns - 1 - column :][:rows, :columns]
        return np.asarray(self.to_one + turned_to_other + self.to_other[other])

    def for_other(self, one: Place) -> Map:
        """The sum of all maps for every shift of the other, where the one's is known."""
        rows, columns = self.to_one.shape
        row, column = one
        from_one = self.between[rows - 1 - row :, columns - 1 - column :][:rows, :columns]
        return np.asarray(self.to_other + from_one + self.to_one[one])

    def plus(self, more: "ShiftMaps") -> "ShiftMaps":
        """The sums of these maps and others."""
        return ShiftMaps(*(one + other for one, other in zip(self, more, strict=True)))

    def values(self, fit: "Fit") -> tuple[float, float, float]:
        """What each map says of a fit."""
        rows, columns = self.to_one.shape
        row, column = np.subtract(fit.other, fit.one) + (rows - 1, columns - 1)
        return float(self.to_one[fit.one]), float(self.to_other[fit.other]), float(self.between[row, column])


class Fit(NamedTuple):
    """A shift of each of two frames, as a place (row, column) on its map, and the sum of the three maps there."""

    score: float
    one: Place
    other: Place


def find_fits(maps: ShiftMaps) -> list[Fit]:
    """The best shifts for both frames, then those for each of the highest peaks of single maps, best first."""
    fits = []
    for one in _peaks(maps.to_one):
        total = maps.for_other(one)
        other = highest(total)
        fits.append(Fit(float(total[other]), one, other))
    for other in _peaks(maps.to_other):
        total = maps.for_one(other)
        one = highest(total)
        fits.append(Fit(float(total[one]), one, other))
    fits.sort(reverse=True)
    return [_climb(maps, fits[0]), *fits]


def subpixel(fit: Fit, maps: ShiftMaps) -> NDArray[np.float64]:
    """Shape (2, 2): x and y of the two shifts in steps from the middle of their maps, at the top of parabolas."""
    shifts = [top(maps.for_one(fit.other), fit.one), top(maps.for_other(fit.one), fit.other)]
    rows, columns = maps.to_one.shape
    return np.array(shifts) - np.array([columns - 1, rows - 1]) / 2


def _climb(maps: ShiftMaps, fit: Fit) -> Fit:
    """Noise shifts the peak of a single map; the sum of all three may be higher beside it."""
    for _ in range(CLIMBS):
        one = highest(maps.for_one(fit.other))
        total = maps.for_other(one)
        other = highest(total)
        fit = Fit(float(total[other]), one, other)
    return fit


def _peaks(fitting: Map) -> list[Place]:
    rows, columns = np.nonzero(fitting >= cv2.dilate(fitting, np.ones((3, 3), np.uint8)))
    highest = np.argsort(fitting[rows, columns])[::-1][:PEAKS]
    return [(int(rows[peak]), int(columns[peak])) for peak in highest]


def highest(fitting: Map) -> Place:
    """Where a map has its maximum."""
    row, column = np.unravel_index(int(fitting.argmax()), fitting.shape)
    return int(row), int(column)


def top(fitting: Map, place: Place) -> tuple[float, float]:
    """The maximum near a place, x and y, where parabolas through it and its neighbours have theirs."""
    row, column = place
    return column + _vertex(fitting[row], column), row + _vertex(fitting[:, column], row)


def _vertex(line: Map, index: int) -> float:
    if not 0 < index < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[index - 1 : index + 2])
    curvature = before - 2 * here + after
    return (before - after) / (2 * curvature) if curvature < 0 else 0.0
