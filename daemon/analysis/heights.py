"""Columns with the number of their atoms, and as a map."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.analysis.quantities import Count
from daemon.analysis.sites import counted_sites_of

REACH_IN_SPACINGS = 0.75
"""How far a column reaches on the map, in distances to its nearest neighbour. The widest gap between columns of fcc
metals, the middle of the squares of ⟨100⟩, is 0.71 away from them."""


@dataclass(frozen=True)
class Heights:
    """The counted columns of a particle.

    Attributes:
        positions_angstrom: Shape (n, 2), x and y.
        n_atoms: Shape (n,), atoms in each column.
        probability: Shape (n,), that the column is there and has exactly so many atoms.
        atoms: In all columns together.
    """

    positions_angstrom: NDArray[np.float64]
    n_atoms: NDArray[np.int64]
    probability: NDArray[np.float64]
    atoms: Count


@dataclass(frozen=True)
class HeightMap:
    """The number of atoms above each point.

    Attributes:
        n_atoms: Shape (height, width), y down; NaN where no column stands.
        origin_angstrom: x and y of the centre of the top-left pixel, in the frame of the table.
        pixel_angstrom: Side of a pixel.
    """

    n_atoms: NDArray[np.float32]
    origin_angstrom: tuple[float, float]
    pixel_angstrom: float

    @property
    def extent_angstrom(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top, as Matplotlib's `imshow` wants it."""
        height, width = self.n_atoms.shape
        left, top = (middle - self.pixel_angstrom / 2 for middle in self.origin_angstrom)
        return left, left + width * self.pixel_angstrom, top + height * self.pixel_angstrom, top


def column_heights(table: pa.Table) -> Heights:
    """Gather the counted columns of a table of `nanoparticle-triplet`; support is no part of the particle.

    Raises:
        HrtemdError: The table's model does not count atoms.
    """
    sites = counted_sites_of(table)
    counted = np.isfinite(sites.n_atoms)
    n_atoms = sites.n_atoms[counted].astype(np.int64)
    expected = sites.expected_atoms(counted)
    return Heights(
        positions_angstrom=sites.positions_angstrom[counted],
        n_atoms=n_atoms,
        probability=sites.height_is_right[counted],
        atoms=Count(int(n_atoms.sum()), expected.value, expected.standard_deviation),
    )


def height_map(heights: Heights, pixel_angstrom: float = 0.25) -> HeightMap:
    """Draw each column as the points that are nearer to it than to any other, out to the particle's edge.

    Returns:
        A map just large enough; of shape (0, 0) where there are fewer than two columns.
    """
    positions = heights.positions_angstrom
    if len(positions) < 2:
        return HeightMap(np.zeros((0, 0), np.float32), (0.0, 0.0), pixel_angstrom)
    tree = cKDTree(positions)
    spacings, _ = tree.query(positions, k=[2])
    reach = REACH_IN_SPACINGS * float(np.median(spacings))
    left, top = positions.min(axis=0) - reach
    right, bottom = positions.max(axis=0) + reach
    x = np.arange(left, right + pixel_angstrom, pixel_angstrom)
    y = np.arange(top, bottom + pixel_angstrom, pixel_angstrom)
    _, nearest = tree.query(np.stack(np.meshgrid(x, y), axis=-1), distance_upper_bound=reach)
    # Out of reach, the index is one beyond the last column.
    values = np.append(heights.n_atoms, np.nan).astype(np.float32)[nearest]
    return HeightMap(values, (float(left), float(top)), pixel_angstrom)
