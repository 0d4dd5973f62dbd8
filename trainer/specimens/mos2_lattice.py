"""The sites of a flat sheet of 1H-MoS2: single crystals, tilt boundaries and mirror twins, with their occupants."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.fields import random_field
from trainer.specimens.sheet import Sheet

LATTICE_CONSTANT_ANGSTROM = 3.16
BOND_ANGSTROM = LATTICE_CONSTANT_ANGSTROM / np.sqrt(3)  # Mo to S, seen along the beam
BOND_REACH_ANGSTROM = 2.5
MOST_NEIGHBOURS = 6

BELOW, MIDDLE, ABOVE = range(3)
MOLYBDENUM, SULPHUR = 42, 16
HOST_METAL = (0, MOLYBDENUM, 0)
HOST_SULPHUR = (SULPHUR, 0, SULPHUR)

TWIN_SHARE = 0.5
STRAIGHT_SHARE = 0.6
FILLING_REACH_ANGSTROM = 4.0
AT_HOME_ANGSTROM = 0.5  # beyond its territory a crystal's sites still count as its own
CROWDED_ANGSTROM = 1.2
LIKE_ANGSTROM = 2.9  # two metals, or two columns of sulphur, across a boundary
CLOSEST_LIKE_ANGSTROM = 2.3
CLOSEST_UNLIKE_ANGSTROM = 1.5
FREE_REACH_ANGSTROM = 5.0
RELAXATION_STEPS = 30
STIFFNESS = 0.2


@dataclass
class Lattice:
    """The sites of a flat sheet and who stands there.

    A site keeps its place and its neighbours when its atoms go, so that one can tell where an atom is missing.

    Attributes:
        positions: Shape (sites, 2), in Å.
        is_metal: Shape (sites,), true on the sublattice of the metal.
        neighbours: Shape (sites, 6), the sites of the other sublattice around each; filled up with -1.
        occupants: Shape (sites, 3), atomic numbers of the atoms below, in and above the plane of the metal; 0 for none.
    """

    positions: NDArray[np.float64]
    is_metal: NDArray[np.bool_]
    neighbours: NDArray[np.int64]
    occupants: NDArray[np.int64]

    @classmethod
    def perfect(cls, positions: NDArray[np.float64], is_metal: NDArray[np.bool_]) -> "Lattice":
        """Sites bonded by nearness, each with the atoms that belong there."""
        occupants = np.where(is_metal[:, None], HOST_METAL, HOST_SULPHUR)
        return cls(positions, is_metal, _neighbours(positions, is_metal), occupants)

    def occupied(self) -> NDArray[np.bool_]:
        """Shape (sites,), true where any atom stands."""
        return np.asarray(self.occupants.any(axis=1))

    def occupied_neighbours(self) -> NDArray[np.int64]:
        """Shape (sites,), how many of the sites around each are not empty."""
        return self._count(self.occupied())

    def inner(self) -> NDArray[np.bool_]:
        """Shape (sites,), true for occupied sites that miss no neighbour."""
        return np.asarray(self.occupied() & (self.occupied_neighbours() >= 3))

    def vacancies(self) -> NDArray[np.bool_]:
        """Shape (sites,), true for empty sites that the sheet around them shows to be sites.

        Two of the three neighbours have to be there, and the third has to be there or be a vacancy of that kind
        itself. All else that is missing, at edges and in holes, is not a site any more.
        """
        around = self.occupied_neighbours()
        held = self.occupied() | (around >= 2)
        enclosed = (self._count(held) == (self.neighbours >= 0).sum(axis=1)) & (self._count(held) >= 3)
        return np.asarray(~self.occupied() & (around >= 2) & enclosed)

    def sheet(self) -> Sheet:
        """The sites as a network, for `trainer.specimens.damage` to cut."""
        return Sheet(self.positions, [set(row[row >= 0].tolist()) for row in self.neighbours])

    def _count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Shape (sites,), how many of the neighbours are chosen."""
        return np.asarray((chosen[self.neighbours] & (self.neighbours >= 0)).sum(axis=1))


Sites = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Positions, shape (sites, 2), and which of them are of the metal's sublattice."""


def crystal(extent_angstrom: float, angle: float, offset_angstrom: NDArray[np.float64]) -> Sites:
    """The sites of a single crystal that fills a square around the origin.

    Args:
        extent_angstrom: Edge length of the square.
        angle: Direction of a lattice vector, a zigzag direction, in radians.
        offset_angstrom: Position of one metal site, shape (2,).
    """
    half = extent_angstrom / 2
    count = int(np.ceil(1.7 * half / LATTICE_CONSTANT_ANGSTROM)) + 2
    steps = np.arange(-count, count + 1)
    indices = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    directions = angle + np.array([0.0, np.pi / 3])
    vectors = LATTICE_CONSTANT_ANGSTROM * np.stack([np.cos(directions), np.sin(directions)], axis=1)
    nearest_corner = np.round(np.linalg.solve(vectors.T, offset_angstrom))
    metal = (indices - nearest_corner) @ vectors + offset_angstrom
    positions = np.concatenate([metal, metal + vectors.sum(axis=0) / 3])
    inside = (np.abs(positions) < half).all(axis=1)
    return positions[inside], (np.arange(len(positions)) < len(metal))[inside]


def random_grains(rng: np.random.Generator, extent_angstrom: float, angle: float) -> Sites:
    """Two or three crystals that meet in relaxed boundaries, straight or curved.

    Half of them are mirror twins, whose boundary along a zigzag row has rings of 4 and 8 instead of 6; the others are
    tilted against each other by any angle, with rings of 5 and 7 where the angle is small.

    Args:
        rng: Source of the boundaries.
        extent_angstrom: Edge length of the square to fill, which is centred on the origin.
        angle: Direction of a lattice vector of the first crystal, in radians.
    """
    corner = rng.uniform(-1.5, 1.5, 2)
    first = crystal(extent_angstrom, angle, corner)
    along, normal = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    if rng.random() < TWIN_SHARE:
        central = np.flatnonzero((np.abs(first[0]) < 0.3 * extent_angstrom).all(axis=1))
        row = float(first[0][rng.choice(central)] @ normal)
        glide = rng.choice([0.0, 0.5]) * LATTICE_CONSTANT_ANGSTROM * along
        mirrored_corner = corner - 2 * (corner @ normal - row) * normal + glide
        grains = [first, crystal(extent_angstrom, angle - np.pi / 3, mirrored_corner)]
    else:
        row = rng.uniform(-0.3, 0.3) * extent_angstrom
        others = angle + rng.uniform(0, 2 * np.pi / 3, rng.integers(1, 3))
        grains = [first, *(crystal(extent_angstrom, other, rng.uniform(-1.5, 1.5, 2)) for other in others)]

    if len(grains) == 2 and rng.random() < STRAIGHT_SHARE:
        height = _height_over_line(normal, row)
        return _joined(rng, grains, [lambda points: -height(points), height])
    wavelength = extent_angstrom * rng.uniform(0.2, 1.0)
    meeting = rng.uniform(-0.3, 0.3, (1, 2)) * extent_angstrom
    return _joined(rng, grains, [_level(random_field(rng, wavelength), meeting, wavelength) for _ in grains])


Territory = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""How deep, in Å, places lie in a grain's own land, when compared with that of the other grains."""


def _height_over_line(normal: NDArray[np.float64], row: float) -> Territory:
    return lambda points: np.asarray(points @ normal - row, dtype=np.float64)


def _level(field: Territory, meeting: NDArray[np.float64], wavelength: float) -> Territory:
    """A random territory whose border with others made here runs through one point."""
    # The slope of a field of variance 1 is about 2π over its wavelength, and that of a difference of two is steeper.
    return lambda points: np.asarray((field(points) - field(meeting)) * wavelength / 9, dtype=np.float64)


def _joined(rng: np.random.Generator, grains: list[Sites], territories: list[Territory]) -> Sites:
    """Gives each crystal its territory, fills what stays empty in between, and relaxes the boundaries."""
    depths = [
        np.array(own(places) - np.max([territory(places) for territory in territories], axis=0))
        for (places, _), own in zip(grains, territories, strict=True)
    ]
    depth = np.concatenate(depths)  # 0 on a grain's own land, negative beyond it
    positions = np.concatenate([places for places, _ in grains])
    is_metal = np.concatenate([metal for _, metal in grains])
    grain = np.repeat(np.arange(len(grains)), [len(places) for places, _ in grains])

    # First comes who stands on own land. Those beyond it fill what room is left.
    order = rng.permutation(np.flatnonzero(depth > -FILLING_REACH_ANGSTROM))
    order = order[np.argsort(-depth[order], kind="stable")]
    positions, is_metal, grain = positions[order], is_metal[order], grain[order]
    at_home = depth[order] > -AT_HOME_ANGSTROM
    pairs = cKDTree(positions).query_pairs(CLOSEST_LIKE_ANGSTROM, output_type="ndarray")
    both_at_home = at_home[pairs].all(axis=1)
    crowded = _closer(
        pairs,
        positions,
        is_metal,
        np.where(both_at_home, CROWDED_ANGSTROM, CLOSEST_LIKE_ANGSTROM),
        np.where(both_at_home, CROWDED_ANGSTROM, CLOSEST_UNLIKE_ANGSTROM),
    )
    kept = _without_later(pairs[crowded], len(positions))
    positions, is_metal, grain = positions[kept], is_metal[kept], grain[kept]

    pairs = cKDTree(positions).query_pairs(FREE_REACH_ANGSTROM, output_type="ndarray")
    free = np.zeros(len(positions), dtype=bool)
    free[pairs[grain[pairs[:, 0]] != grain[pairs[:, 1]]]] = True
    positions = _relaxed(positions, is_metal, free)

    # Those that are still squeezed had one neighbour too many.
    pairs = cKDTree(positions).query_pairs(CLOSEST_LIKE_ANGSTROM, output_type="ndarray")
    crowded = _closer(pairs, positions, is_metal, CLOSEST_LIKE_ANGSTROM, CLOSEST_UNLIKE_ANGSTROM)
    kept = _without_later(pairs[crowded], len(positions))
    positions, is_metal, free = positions[kept], is_metal[kept], free[kept]
    positions = _relaxed(positions, is_metal, free)
    bonded = (_neighbours(positions, is_metal) >= 0).sum(axis=1) >= 2
    return positions[bonded | ~free], is_metal[bonded | ~free]


def _closer(
    pairs: NDArray[np.int64],
    positions: NDArray[np.float64],
    is_metal: NDArray[np.bool_],
    like_angstrom: float | NDArray[np.float64],
    unlike_angstrom: float | NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Shape (pairs,), true where two of one kind, or two of different kinds, are closer than this."""
    first, second = pairs.T
    distance = np.linalg.norm(positions[first] - positions[second], axis=1)
    return np.asarray(distance < np.where(is_metal[first] == is_metal[second], like_angstrom, unlike_angstrom))


def _without_later(pairs: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Shape (count,), false for the later of each pair whose earlier stays."""
    kept = np.ones(count, dtype=bool)
    for first, second in np.sort(pairs, axis=1)[np.argsort(pairs.min(axis=1), kind="stable")]:
        kept[second] &= ~kept[first]
    return kept


def _relaxed(
    positions: NDArray[np.float64], is_metal: NDArray[np.bool_], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Lets the free sites find their bond lengths, and push others of their kind away."""
    for _ in range(RELAXATION_STEPS):
        first, second = cKDTree(positions).query_pairs(LIKE_ANGSTROM, output_type="ndarray").T
        apart = positions[first] - positions[second]
        distance = np.maximum(np.linalg.norm(apart, axis=1), 0.1)
        like = is_metal[first] == is_metal[second]
        bond = np.where(distance < BOND_REACH_ANGSTROM, BOND_ANGSTROM, distance)
        push = apart * (STIFFNESS * (np.where(like, LIKE_ANGSTROM, bond) - distance) / distance)[:, None]
        count = len(positions)
        moves = [np.bincount(first, axis, count) - np.bincount(second, axis, count) for axis in push.T]
        positions = positions + free[:, None] * np.clip(np.stack(moves, axis=1), -0.3, 0.3)
    return positions


def _neighbours(positions: NDArray[np.float64], is_metal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Shape (sites, 6), the nearest sites of the other sublattice within reach of a bond; filled up with -1."""
    neighbours = np.full((len(positions), MOST_NEIGHBOURS), -1, dtype=np.int64)
    for own, other in ((is_metal, ~is_metal), (~is_metal, is_metal)):
        candidates = np.flatnonzero(other)
        found = cKDTree(positions[candidates]).query(
            positions[own], MOST_NEIGHBOURS, distance_upper_bound=BOND_REACH_ANGSTROM
        )[1]
        neighbours[own] = np.append(candidates, -1)[found]
    return neighbours
