"""How much of the plane a specimen covers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError, cKDTree

LARGEST_GAP_ANGSTROM = 2.5
"""Radius of the largest empty circle inside of a lattice; a larger one is a hole.

The rings of MoS2 have 1.84 Å and none of the others' is wider; where two neighbouring sites were missed, the circle has
2.4 Å.
"""


def covered_area_square_angstrom(positions_angstrom: NDArray[np.floating[Any]]) -> float:
    """The area that sites cover: holes and vacuum do not count, every site counts as much as any other.

    It is the alpha shape (Edelsbrunner, Kirkpatrick and Seidel, 1983), those triangles between neighbouring sites into
    whose circumcircle no hole fits, and half a bond around it, since a site at an edge fills as much as one inside.

    Args:
        positions_angstrom: Shape (n, 2).

    Returns:
        0 where no three sites are neighbours.
    """
    if len(positions_angstrom) < 3:
        return 0.0
    try:
        triangles = Delaunay(positions_angstrom - positions_angstrom.mean(axis=0)).simplices
    except QhullError:  # all on one line
        return 0.0
    first, second, third = positions_angstrom[triangles].transpose(1, 2, 0)
    sides = np.array([np.hypot(*(first - second)), np.hypot(*(second - third)), np.hypot(*(third - first))])
    (ux, uy), (vx, vy) = second - first, third - first
    areas = np.abs(ux * vy - uy * vx) / 2
    # The circumradius is the product of the sides over four times the area.
    filled = sides.prod(axis=0) <= 4 * areas * LARGEST_GAP_ANGSTROM

    edges = np.sort(triangles[filled][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, triangles_at_edge = np.unique(edges, axis=0, return_counts=True)
    start, end = positions_angstrom[edges[triangles_at_edge == 1]].transpose(1, 2, 0)
    perimeter = np.hypot(*(start - end)).sum()
    return float(areas[filled].sum() + perimeter * _bond_angstrom(positions_angstrom) / 2)


def _bond_angstrom(positions_angstrom: NDArray[np.floating[Any]]) -> float:
    nearest, _ = cKDTree(positions_angstrom).query(positions_angstrom, k=[2])
    return float(np.median(nearest))
