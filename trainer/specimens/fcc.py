"""Crystals of fcc metals, single or multiply twinned, every atom with the column it belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LATTICE_CONSTANTS_ANGSTROM = {"Au": 4.078, "Pt": 3.924, "Pd": 3.891, "Ag": 4.085, "Cu": 3.615}
FCC_BASIS = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
ZONE_AXES = ((1, 1, 0), (1, 0, 0), (1, 1, 1))
ZONE_AXIS_SHARES = (0.55, 0.25, 0.2)


@dataclass(frozen=True)
class Crystal:
    """Atoms, and the columns in which the beam (+z) sees them line up.

    Attributes:
        species: What its columns are called: an element, or `support`.
        positions: Shape (atoms, 3), Å.
        numbers: Shape (atoms,), atomic numbers.
        columns: Shape (atoms,), the number of each atom's column, -1 where the beam sees no column.
    """

    species: str
    positions: Floats
    numbers: Integers
    columns: Integers

    def where(self, kept: NDArray[np.bool_]) -> "Crystal":
        """The crystal without the atoms that are not `kept`, shape (atoms,)."""
        return Crystal(self.species, self.positions[kept], self.numbers[kept], self.columns[kept])

    def moved(self, offset_angstrom: ArrayLike) -> "Crystal":
        """The crystal shifted by x, y, z."""
        return Crystal(self.species, self.positions + np.asarray(offset_angstrom), self.numbers, self.columns)


@dataclass(frozen=True)
class Sites:
    """Lattice sites in and just outside a perfect particle, centred on the origin.

    Attributes:
        positions: Shape (sites, 3), Å.
        columns: Shape (sites,), as in `Crystal`.
        depths: Shape (sites,), how far inside the particle's surface a site lies, in Å; negative outside.
    """

    positions: Floats
    columns: Integers
    depths: Floats


def random_particle(rng: np.random.Generator, symbol: str, diameter_angstrom: float) -> Crystal:
    """Draws a particle: its habit, orientation, roughness and perhaps a flat base; centred near the origin."""
    lattice_angstrom = LATTICE_CONSTANTS_ANGSTROM[symbol] * rng.uniform(0.99, 1.01)
    habit = HABITS[rng.choice(len(HABITS), p=HABIT_SHARES)]
    sites = habit(rng, lattice_angstrom, diameter_angstrom / 2)
    off_axis = rng.random() < 0.05
    rotation = Rotation.random(rng=rng).as_matrix() if off_axis else random_orientation(rng)
    positions = sites.positions @ rotation.T
    depths = sites.depths
    if rng.random() < 0.6:  # Most particles on a support are flattened where they touch it.
        base_angstrom = diameter_angstrom / 2 * rng.uniform(0.0, 0.9)
        depths = np.minimum(depths, positions[:, 2] + base_angstrom)
    columns = np.full_like(sites.columns, -1) if off_axis else sites.columns
    return _grow(rng, symbol, Sites(positions, columns, depths), lattice_angstrom)


def random_slab(rng: np.random.Generator, symbol: str, size_angstrom: float, thickness_angstrom: float) -> Crystal:
    """Draws a single-crystal or twinned film with a rough edge that runs through a square field.

    Args:
        rng: The source of randomness.
        symbol: The metal.
        size_angstrom: The side of the field, which lies at x and y from 0 to this.
        thickness_angstrom: The film's extent along the beam, from z = 0.
    """
    lattice_angstrom = LATTICE_CONSTANTS_ANGSTROM[symbol] * rng.uniform(0.99, 1.01)
    half_extents = np.array([size_angstrom / 2, size_angstrom / 2, thickness_angstrom / 2]) + 3.0
    # Thick and far off its axis a slab would fill the field with columns too smeared to judge.
    rotation = random_orientation(rng, min(5, np.rad2deg(2.5 / thickness_angstrom)))
    if rng.random() < 0.3:
        # The corners of the field, seen in the untilted frame: tilts of 5° add a tenth of the width to the height.
        reach_angstrom = 1.5 * half_extents[0]
        twin_signs = _random_twin_signs(rng, reach_angstrom, lattice_angstrom)
        positions, columns, _ = twinned_block(
            lattice_angstrom, twin_signs, reach_angstrom, half_extents[2] + 0.1 * reach_angstrom
        )
        positions = positions @ rotation.T
    else:
        zone_axis = ZONE_AXES[rng.choice(len(ZONE_AXES), p=ZONE_AXIS_SHARES)]
        frame = rotation @ zone_axis_frame(zone_axis)
        positions, _, columns = lattice_block([lattice_angstrom] * 3, FCC_BASIS, zone_axis, frame, half_extents)
    inside = np.all(np.abs(positions) < half_extents, axis=1)
    positions, columns = positions[inside], columns[inside]
    direction = rng.uniform(0, 2 * np.pi)
    across = positions[:, :2] @ [np.cos(direction), np.sin(direction)]
    edge_angstrom = size_angstrom * rng.uniform(-0.2, 0.6)
    depths = np.minimum(edge_angstrom - across, thickness_angstrom / 2 - np.abs(positions[:, 2]))
    slab = _grow(rng, symbol, Sites(positions, columns, depths), lattice_angstrom)
    return slab.moved(np.array([size_angstrom, size_angstrom, thickness_angstrom]) / 2)


def random_orientation(rng: np.random.Generator, largest_tilt_degrees: float = 5) -> Floats:
    """Draws a turn about the beam and a tilt off it, below 1° in half of all draws."""
    tilt_degrees = rng.uniform(0, 1) if rng.random() < 0.5 else rng.uniform(1, largest_tilt_degrees)
    azimuth, turn = rng.uniform(0, 2 * np.pi, size=2)
    tilt_axis = np.array([np.cos(azimuth), np.sin(azimuth), 0])
    tilt = Rotation.from_rotvec(np.deg2rad(tilt_degrees) * tilt_axis)
    matrix: Floats = (tilt * Rotation.from_rotvec([0, 0, turn])).as_matrix()
    return matrix


def zone_axis_frame(direction: ArrayLike) -> Floats:
    """The rotation that turns a crystal direction (Cartesian) into the beam, and a low-index one into x."""
    beam = np.asarray(direction, dtype=float)
    beam = beam / np.linalg.norm(beam)
    x = np.eye(3)[np.argmin(np.abs(beam))]
    x = x - (x @ beam) * beam
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(beam, x), beam])


def lattice_block(
    cell_angstrom: Sequence[float],
    basis: Floats,
    zone_axis: Sequence[int],
    frame: Floats,
    half_extents_angstrom: ArrayLike,
) -> tuple[Floats, Integers, Integers]:
    """Fills a box around the origin with a crystal whose unit cell is orthogonal.

    Args:
        cell_angstrom: The three edges of the unit cell.
        basis: Shape (atoms of the cell, 3), fractional.
        zone_axis: The direction [uvw] along which atoms share a column.
        frame: Shape (3, 3), rotates crystal into laboratory.
        half_extents_angstrom: Half the edges of the box, which lies along the laboratory's axes.

    Returns:
        Positions of shape (atoms, 3) in Å, and each atom's index in the basis and column.
    """
    half_extents = np.asarray(half_extents_angstrom)
    cells_each_way = np.ceil(np.abs(frame.T) @ half_extents / cell_angstrom).astype(int)
    origins = np.stack(np.meshgrid(*[np.arange(-n - 1, n + 1) for n in cells_each_way], indexing="ij"), axis=-1)
    fractional = (origins.reshape(-1, 1, 3) + basis).reshape(-1, 3)
    kinds = np.tile(np.arange(len(basis)), len(fractional) // len(basis))
    positions = (fractional * cell_angstrom) @ frame.T
    inside = np.all(np.abs(positions) <= half_extents + 1e-6, axis=1)
    return positions[inside], kinds[inside], columns_along(fractional[inside], zone_axis)


def columns_along(fractional: Floats, zone_axis: Sequence[int]) -> Integers:
    """Numbers the columns along [uvw]: positions that differ by a multiple of it have the same cross product."""
    crossed = np.cross(np.rint(fractional * 1000).astype(np.int64), zone_axis)
    keys = crossed @ np.array([1, 1 << 20, 1 << 40])
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def twinned_block(
    lattice_angstrom: float, twin_signs: Integers, half_width_angstrom: float, half_height_angstrom: float
) -> tuple[Floats, Integers, NDArray[np.bool_]]:
    """Stacks {111} layers along y, seen along their common ⟨110⟩.

    Args:
        lattice_angstrom: The lattice constant.
        twin_signs: Shape (layers,), 1 where a layer is stacked on the one below as in the crystal, -1 as in its
            mirror image; a twin plane is the last layer before a change. The middle layer lies at y = 0.
        half_width_angstrom: The extent along x.
        half_height_angstrom: The extent along the beam.

    Returns:
        Positions of shape (atoms, 3) in Å, the column of each atom, and whether it is in a mirrored layer.
    """
    column_distance = lattice_angstrom * np.sqrt(6) / 4  # along a layer
    beam_period = lattice_angstrom / np.sqrt(2)
    column_limit = int(half_width_angstrom / column_distance) + 1
    period_limit = int(half_height_angstrom / beam_period) + 1
    middle = len(twin_signs) // 2
    layer, column, period = np.meshgrid(
        np.arange(len(twin_signs)),
        np.arange(-column_limit, column_limit + 1),
        np.arange(-period_limit, period_limit + 1),
        indexing="ij",
    )
    shift = np.cumsum(twin_signs)  # Layers are stacked in positions A, B and C, a third of a column apart.
    shift = (shift - shift[middle])[layer]
    recentred = column - shift // 3
    positions = np.stack(
        [
            (recentred + shift / 3) * column_distance,
            (layer - middle) * lattice_angstrom / np.sqrt(3),
            # One step along the layer, or up to the next, goes half a period along the beam.
            (period + (recentred + layer - middle) % 2 / 2) * beam_period,
        ],
        axis=-1,
    )
    columns = layer * (2 * column_limit + 1) + column + column_limit
    mirrored = np.broadcast_to((twin_signs < 0)[:, None, None], layer.shape)
    return positions.reshape(-1, 3), columns.ravel().astype(np.int64), mirrored.ravel()


def _random_twin_signs(rng: np.random.Generator, half_width_angstrom: float, lattice_angstrom: float) -> Integers:
    """Draws one to four twin planes among the {111} layers."""
    layers = 2 * int(half_width_angstrom / (lattice_angstrom / np.sqrt(3))) + 3
    plane_count = min(rng.geometric(0.6), 4)
    planes = rng.normal(layers / 2, layers / 6, size=plane_count).astype(int)
    crossed = np.searchsorted(np.sort(planes), np.arange(layers))
    return np.where(crossed % 2 == 0, 1, -1)


def _truncated_octahedron(rng: np.random.Generator, positions: Floats, frame: Floats, radius: float) -> Floats:
    """Depths inside {111} and {100} facets, from cuboctahedron to octahedron, no two equally far from the centre."""
    octahedral = np.stack(np.meshgrid(*[(-1, 1)] * 3), axis=-1).reshape(8, 3) / np.sqrt(3)
    cubic = np.concatenate([np.eye(3), -np.eye(3)])
    truncation = rng.uniform(0.8, 1.4)
    normals = np.concatenate([octahedral, cubic])
    distances = np.repeat([1.0, truncation], [8, 6]) * rng.uniform(0.85, 1.05, size=14) * radius
    depths: Floats = (distances - positions @ (normals @ frame.T).T).min(axis=1)
    return depths


def _single_crystal(rng: np.random.Generator, lattice_angstrom: float, radius_angstrom: float) -> Sites:
    """A sphere or a polyhedron on a zone axis, its centre anywhere in the unit cell."""
    zone_axis = ZONE_AXES[rng.choice(len(ZONE_AXES), p=ZONE_AXIS_SHARES)]
    frame = zone_axis_frame(zone_axis)
    reach = [radius_angstrom + 1.5 * lattice_angstrom] * 3
    positions, _, columns = lattice_block([lattice_angstrom] * 3, FCC_BASIS, zone_axis, frame, reach)
    positions = positions + rng.uniform(-0.5, 0.5, size=3) * lattice_angstrom
    if rng.random() < 0.3:
        return Sites(positions, columns, radius_angstrom - np.linalg.norm(positions, axis=1))
    return Sites(positions, columns, _truncated_octahedron(rng, positions, frame, radius_angstrom))


def _twinned(rng: np.random.Generator, lattice_angstrom: float, radius_angstrom: float) -> Sites:
    """A particle with parallel {111} twin planes, each lamella with the facets of its own orientation."""
    reach = radius_angstrom + lattice_angstrom
    twin_signs = _random_twin_signs(rng, reach, lattice_angstrom)
    positions, columns, mirrored = twinned_block(lattice_angstrom, twin_signs, reach, reach)
    if rng.random() < 0.3:
        return Sites(positions, columns, radius_angstrom - np.linalg.norm(positions, axis=1))
    unmirrored = positions * np.where(mirrored[:, None], [1, -1, 1], [1, 1, 1])
    frame = np.array([[-1, 1, 2], [1, -1, 1], [1, 1, 0]]) / np.sqrt([[6], [3], [2]])
    return Sites(positions, columns, _truncated_octahedron(rng, unmirrored, frame, radius_angstrom))


def _random_decahedron(rng: np.random.Generator, lattice_angstrom: float, radius_angstrom: float) -> Sites:
    """A decahedron of random height, with {100} facets at its waist, its edges notched or not."""
    half_height = radius_angstrom * rng.uniform(0.4, 1.0)
    notch_angstrom = radius_angstrom * rng.uniform(0.7, 1.1)
    return decahedron(lattice_angstrom, radius_angstrom, half_height, notch_angstrom)


def decahedron(
    lattice_angstrom: float, radius_angstrom: float, half_height_angstrom: float, notch_angstrom: float
) -> Sites:
    """Five sectors of fcc crystal around a common ⟨110⟩ along the beam, each stretched from 70.5° to 72°.

    Args:
        lattice_angstrom: The lattice constant.
        radius_angstrom: From the axis to the corners.
        half_height_angstrom: From the centre to the tip of the five-fold axis.
        notch_angstrom: How far the twin boundaries reach before a re-entrant corner (Marks decahedron) cuts them.
    """
    column_distance = lattice_angstrom * np.sqrt(6) / 4  # along a twin boundary
    beam_period = lattice_angstrom / np.sqrt(2)
    reach = int(radius_angstrom / column_distance) + 2
    # Columns of a sector count i along its first boundary and j along its second, which is the next sector's first.
    i, j = (grid.ravel() for grid in np.meshgrid(np.arange(1, reach + 1), np.arange(reach + 1)))
    angles = np.deg2rad(72) * np.arange(6)
    boundaries = np.stack([np.cos(angles), np.sin(angles)], axis=1) * column_distance
    flat = np.concatenate([[[0, 0]], *(np.outer(i, boundaries[k]) + np.outer(j, boundaries[k + 1]) for k in range(5))])
    i, j = (np.concatenate([[0], np.tile(count, 5)]) for count in (i, j))

    period_limit = int(half_height_angstrom / beam_period) + 2
    heights = (np.arange(-period_limit, period_limit + 1) + (i + j)[:, None] % 2 / 2) * beam_period
    waist = radius_angstrom - (i + j) * column_distance
    # {111} caps: each step away from the axis costs half a period at both ends.
    cap = (half_height_angstrom - (i + j) * beam_period / 2)[:, None] - np.abs(heights)
    notch = notch_angstrom - np.maximum(i, j) * column_distance
    depths = np.minimum(cap, np.minimum(waist, notch)[:, None])
    columns = np.broadcast_to(np.arange(len(flat))[:, None], heights.shape)
    x, y = (np.broadcast_to(axis[:, None], heights.shape) for axis in flat.T)
    return Sites(np.stack([x, y, heights], axis=-1).reshape(-1, 3), columns.ravel(), depths.ravel())


def _icosahedron(_: np.random.Generator, lattice_angstrom: float, radius_angstrom: float) -> Sites:
    """Twenty tetrahedra, seen along a two-fold axis: the columns of those four whose ⟨110⟩ is upright line up."""
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array([[0, s, t * golden] for s in (-1, 1) for t in (-1, 1)])
    corners = np.concatenate([np.roll(corners, turn, axis=1) for turn in range(3)])
    corners = corners / np.linalg.norm(corners[0])
    # Neighbours are 5 % farther apart around the centre than towards it.
    spacing = 0.976 * lattice_angstrom / np.sqrt(2)
    shells = int(radius_angstrom / spacing) + 2
    steps = np.stack(np.meshgrid(*[np.arange(shells + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = steps[steps.sum(axis=1) <= shells]

    neighbours = corners @ corners.T > 0.4
    faces = [f for f in combinations(range(12), 3) if all(neighbours[p, q] for p, q in combinations(f, 2))]
    edges = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0], [0, 1, -1], [1, 0, -1]])
    grains = []
    for face in faces:
        directions = edges @ corners[list(face)]
        uprightness = np.abs(directions[:, 2]) / np.linalg.norm(directions, axis=1)
        grains.append((corners[list(face)], edges[np.argmax(uprightness)], uprightness.max() > 0.999))
    # Grains share the sites of their common faces; those go to a grain that shows columns.
    grains.sort(key=lambda grain: not grain[2])
    positions = np.concatenate([steps @ face * spacing for face, _, _ in grains])
    columns = np.concatenate(
        [
            columns_along(steps, upright) + number * len(steps) if shown else np.full(len(steps), -1)
            for number, (_, upright, shown) in enumerate(grains)
        ]
    )
    depths = np.tile(radius_angstrom - steps.sum(axis=1) * spacing, len(grains))
    places = np.rint(positions * 100).astype(np.int64) @ [1, 1 << 20, 1 << 40]
    first = np.unique(places, return_index=True)[1]
    return Sites(positions[first], columns[first], depths[first])


# Draws the sites of a particle from a lattice constant and a radius in Å.
Habit = Callable[[np.random.Generator, float, float], Sites]
HABITS: tuple[Habit, ...] = (_single_crystal, _twinned, _random_decahedron, _icosahedron)
HABIT_SHARES = (0.6, 0.2, 0.13, 0.07)


def _grow(rng: np.random.Generator, symbol: str, sites: Sites, lattice_angstrom: float) -> Crystal:
    """Occupies sites: uneven terraces first, then atoms stay or join, the likelier the more neighbours they have."""
    neighbour_angstrom = lattice_angstrom / np.sqrt(2)
    near = sites.depths > -1.2 * neighbour_angstrom
    positions, columns = sites.positions[near], sites.columns[near]
    depths = sites.depths[near] + _terraces(rng, positions)
    neighbours = cKDTree(positions).query_pairs(1.2 * neighbour_angstrom, output_type="ndarray")
    occupied = depths > 0
    softness = rng.uniform(0.15, 0.6)
    chance = 1 / (1 + np.exp((4.8 - _coordination(neighbours, occupied)) / softness))
    occupied = rng.random(len(positions)) < chance
    occupied &= _coordination(neighbours, occupied) >= 3

    # Now and then a column at the edge is missing altogether.
    coordination = _coordination(neighbours, occupied)
    labelled = columns >= 0
    atoms = np.bincount(columns[labelled & occupied], minlength=columns.max() + 1)
    mean = np.bincount(columns[labelled & occupied], coordination[labelled & occupied], columns.max() + 1) / np.maximum(
        atoms, 1
    )
    missing = (mean < 8) & (rng.random(len(mean)) < rng.uniform(0, 0.2))
    occupied[labelled] &= ~missing[columns[labelled]]
    if np.count_nonzero(occupied) < 10:
        occupied = sites.depths[near] > 0  # The smallest clusters have nothing but surface to lose.
    numbers = np.full(len(positions), atomic_numbers[symbol], dtype=np.int64)
    return Crystal(symbol, positions, numbers, columns).where(occupied)


def _terraces(rng: np.random.Generator, positions: Floats) -> Floats:
    """Rise and fall of a surface in Å, as waves of a few interatomic distances in every direction."""
    amplitude_angstrom = rng.uniform(0, 1.5)
    waves = rng.normal(size=(4, 3)) * 2 * np.pi / rng.uniform(15, 40, size=(4, 1))
    phases = rng.uniform(0, 2 * np.pi, size=4)
    rise: Floats = amplitude_angstrom * np.cos(positions @ waves.T + phases).mean(axis=1)
    return rise


def _coordination(neighbours: Integers, occupied: NDArray[np.bool_]) -> Integers:
    """Shape (sites,), the number of occupied neighbours of each site."""
    first, second = neighbours.T
    count = len(occupied)
    of_first = np.bincount(first[occupied[second]], minlength=count)
    return of_first + np.bincount(second[occupied[first]], minlength=count)
