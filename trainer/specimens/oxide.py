"""Crystalline oxides that carry metal particles."""

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from trainer.specimens.fcc import (
    FCC_BASIS,
    Crystal,
    Floats,
    Integers,
    lattice_block,
    random_orientation,
    zone_axis_frame,
)

OXYGEN = atomic_numbers["O"]


@dataclass(frozen=True)
class Oxide:
    """A crystal structure with an orthogonal unit cell.

    Attributes:
        cation: The metal's symbol.
        cell_angstrom: The edges of the unit cell.
        cations: Shape (cations of the cell, 3), fractional.
        oxygens: Shape (oxygen atoms of the cell, 3), fractional.
        zone_axes: The directions along which it is seen.
    """

    cation: str
    cell_angstrom: tuple[float, float, float]
    cations: Floats
    oxygens: Floats
    zone_axes: tuple[tuple[int, int, int], ...]


def _fcc_with(*offsets: tuple[float, float, float]) -> Floats:
    """An fcc lattice decorated with atoms at these offsets."""
    return np.concatenate([FCC_BASIS + offset for offset in offsets])


OXIDES = (
    Oxide("Mg", (4.212, 4.212, 4.212), FCC_BASIS, _fcc_with((0.5, 0.5, 0.5)), ((1, 0, 0), (1, 1, 0))),
    Oxide(
        "Ce",
        (5.411, 5.411, 5.411),
        FCC_BASIS,
        _fcc_with((0.25, 0.25, 0.25), (0.75, 0.75, 0.75)),
        ((1, 0, 0), (1, 1, 0)),
    ),
    Oxide(  # TiO2, rutile
        "Ti",
        (4.594, 4.594, 2.959),
        np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        np.array([[0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]),
        ((1, 0, 0), (0, 0, 1), (1, 1, 0)),
    ),
    Oxide(  # TiO2, anatase
        "Ti",
        (3.785, 3.785, 9.514),
        np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.25], [0.5, 0, 0.75]]),
        np.concatenate(
            [
                np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.25], [0.5, 0, 0.75]]) + [0, 0, rise]
                for rise in (0.208, -0.208)
            ]
        ),
        ((1, 0, 0), (0, 0, 1)),
    ),
)


def random_oxide(rng: np.random.Generator, size_angstrom: float, thickness_angstrom: float) -> Crystal:
    """Draws an oxide that fills a square field, mostly near a zone axis.

    Args:
        rng: The source of randomness.
        size_angstrom: The side of the field, which lies at x and y from 0 to this.
        thickness_angstrom: The oxide's extent along the beam, from z = 0.
    """
    oxide = OXIDES[rng.integers(len(OXIDES))]
    zone_axis = oxide.zone_axes[rng.integers(len(oxide.zone_axes))]
    on_axis = rng.random() < 0.8
    if on_axis:
        rotation = random_orientation(rng) @ zone_axis_frame(np.multiply(zone_axis, oxide.cell_angstrom))
    else:
        rotation = Rotation.random(rng=rng).as_matrix()
    half_extents = np.array([size_angstrom, size_angstrom, thickness_angstrom]) / 2
    crystal = oxide_block(oxide, zone_axis, rotation, half_extents)
    if not on_axis:
        crystal = Crystal("support", crystal.positions, crystal.numbers, np.full_like(crystal.columns, -1))
    return crystal.moved(half_extents)


def oxide_block(
    oxide: Oxide, zone_axis: tuple[int, int, int], rotation: Floats, half_extents_angstrom: Floats
) -> Crystal:
    """Fills a box around the origin; `rotation` turns the crystal's axes into the laboratory's."""
    positions, kinds, columns = lattice_block(
        oxide.cell_angstrom,
        np.concatenate([oxide.cations, oxide.oxygens]),
        zone_axis,
        rotation,
        half_extents_angstrom,
    )
    is_oxygen = kinds >= len(oxide.cations)
    numbers = np.where(is_oxygen, OXYGEN, atomic_numbers[oxide.cation]).astype(np.int64)
    beam = rotation @ np.multiply(zone_axis, oxide.cell_angstrom)
    columns = _without_close_oxygen(positions, numbers, columns, beam / np.linalg.norm(beam))
    return Crystal("support", positions, numbers, columns)


def _without_close_oxygen(positions: Floats, numbers: Integers, columns: Integers, axis: Floats) -> Integers:
    """Leaves out oxygen columns nearer than 0.8 Å to a column of cations: both are seen as one, at the cations."""
    across = (positions @ zone_axis_frame(axis).T)[:, :2]
    is_oxygen = numbers == OXYGEN
    pure = is_oxygen & ~np.isin(columns, columns[~is_oxygen])
    if not pure.any() or pure.all():
        return columns
    distances, _ = cKDTree(across[~is_oxygen]).query(across[pure], distance_upper_bound=0.8)
    hidden = columns.copy()
    hidden[pure] = np.where(np.isfinite(distances), -1, columns[pure])
    return hidden
