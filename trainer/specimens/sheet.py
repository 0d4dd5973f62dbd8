"""A flat network of carbon atoms that can be cut, rebonded and relaxed."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

BOND_ANGSTROM = 1.42
LATTICE_CONSTANT_ANGSTROM = BOND_ANGSTROM * np.sqrt(3)

# The bond angle of 120° is kept by a weaker spring between the neighbours of an atom.
ANGLE_STIFFNESS = 0.15
# Atoms without a bond stay this far apart; the second neighbours of a pentagon stand at 2.3 Å.
UNBONDED_ANGSTROM = 2.2
CONTACT_STIFFNESS = 0.5
MOMENTUM = 0.9
STEP = 0.2
LONGEST_MOVE_ANGSTROM = 0.2  # a tangled start must not explode
STEPS_BETWEEN_SEARCHES = 10


class Sheet:
    """Atoms in a plane, each with the set of atoms it is bonded to.

    A removed atom keeps its index until `compressed`, so that indices stay valid while a sheet is damaged.

    Attributes:
        positions: Shape (atoms, 2), in Å.
        neighbours: The bonded atoms of each atom.
        present: Shape (atoms,), false for a removed atom.
    """

    def __init__(self, positions: NDArray[np.float64], neighbours: list[set[int]]) -> None:
        self.positions = positions
        self.neighbours = neighbours
        self.present = np.ones(len(positions), dtype=bool)

    def coordination(self) -> NDArray[np.int64]:
        """Shape (atoms,), the number of bonds of each atom."""
        return np.array([len(bonded) for bonded in self.neighbours], dtype=np.int64)

    def bonds(self) -> NDArray[np.int64]:
        """Shape (bonds, 2), each bond once."""
        pairs = [(atom, other) for atom, bonded in enumerate(self.neighbours) for other in bonded if atom < other]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def remove(self, atoms: Iterable[int]) -> None:
        """Takes atoms and their bonds away."""
        for atom in atoms:
            for other in self.neighbours[atom]:
                self.neighbours[other].discard(atom)
            self.neighbours[atom] = set()
            self.present[atom] = False

    def bond(self, first: int, second: int) -> None:
        """Bonds two atoms."""
        self.neighbours[first].add(second)
        self.neighbours[second].add(first)

    def rotate_bond(self, first: int, second: int) -> None:
        """Turns a bond of two three-coordinated atoms by 90°, the Stone-Wales rotation.

        The first atom goes to the left of the bond and takes the neighbours there, the second takes those on the right.
        """
        along = self.positions[second] - self.positions[first]
        middle = (self.positions[first] + self.positions[second]) / 2
        left = np.array([-along[1], along[0]])
        around = (self.neighbours[first] | self.neighbours[second]) - {first, second}
        if len(around) != 4:
            return
        ranked = sorted(around, key=lambda atom: float((self.positions[atom] - middle) @ left))
        for atom, bonded in ((first, ranked[2:]), (second, ranked[:2])):
            for other in bonded:
                self.neighbours[other] -= {first, second}
            self.neighbours[atom] = set()
            for other in bonded:
                self.bond(atom, other)
        self.bond(first, second)
        self.positions[first], self.positions[second] = middle + left / 2, middle - left / 2

    def trim(self, smallest_fragment: int) -> None:
        """Removes dangling atoms, which the beam takes first, and fragments too small to stay."""
        loose = np.flatnonzero(self.present & (self.coordination() < 2))
        while len(loose):
            nearby = {other for atom in loose for other in self.neighbours[atom]}
            self.remove(loose)
            loose = np.array([atom for atom in sorted(nearby) if self.present[atom] and len(self.neighbours[atom]) < 2])
        fragment = self.fragments()
        self.remove(np.flatnonzero(self.present & (np.bincount(fragment)[fragment] < smallest_fragment)))

    def fragments(self) -> NDArray[np.int64]:
        """Shape (atoms,), a number for each set of atoms joined by bonds."""
        first, second = self.bonds().T
        count = len(self.positions)
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    def compressed(self) -> "Sheet":
        """The same sheet without its removed atoms."""
        index = np.cumsum(self.present) - 1
        kept = np.flatnonzero(self.present)
        return Sheet(self.positions[kept], [{int(index[other]) for other in self.neighbours[atom]} for atom in kept])

    def relax(self, steps: int) -> None:
        """Moves the atoms towards their bond lengths, bond angles of 120° and clear of each other."""
        bonds, angles = self.bonds(), self._second_neighbours()
        velocities = np.zeros_like(self.positions)
        for step in range(steps):
            if step % STEPS_BETWEEN_SEARCHES == 0:
                contacts = self._contacts(bonds)
            forces = self._spring_forces(bonds, BOND_ANGSTROM)
            forces += ANGLE_STIFFNESS * self._spring_forces(angles, LATTICE_CONSTANT_ANGSTROM)
            forces += CONTACT_STIFFNESS * self._spring_forces(contacts, UNBONDED_ANGSTROM, only_push=True)
            velocities = np.clip(MOMENTUM * velocities + STEP * forces, -LONGEST_MOVE_ANGSTROM, LONGEST_MOVE_ANGSTROM)
            self.positions = self.positions + velocities

    def _contacts(self, bonds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shape (contacts, 2), pairs without a bond that are, or may soon be, too close."""
        near = cKDTree(self.positions).query_pairs(UNBONDED_ANGSTROM + 0.5, output_type="ndarray")
        count = len(self.positions)
        bonded = np.isin(near[:, 0] * count + near[:, 1], bonds[:, 0] * count + bonds[:, 1])
        return np.asarray(near[~bonded], dtype=np.int64)

    def _spring_forces(
        self, pairs: NDArray[np.int64], length_angstrom: float, only_push: bool = False
    ) -> NDArray[np.float64]:
        """Shape (atoms, 2), what springs of unit stiffness between these pairs do to each atom."""
        first, second = pairs.T
        apart = self.positions[first] - self.positions[second]
        distances = np.maximum(np.hypot(apart[:, 0], apart[:, 1]), 0.1)
        extension = length_angstrom - distances
        if only_push:
            extension = np.maximum(extension, 0.0)
        pulls = apart * (extension / distances)[:, None]
        count = len(self.positions)
        axes = [np.bincount(first, pull, count) - np.bincount(second, pull, count) for pull in pulls.T]
        # bincount of no pairs at all counts in integers
        return np.stack(axes, axis=1).astype(np.float64)

    def _second_neighbours(self) -> NDArray[np.int64]:
        """Shape (angles, 2), the pairs of atoms bonded to a common third."""
        pairs = [
            (first, second) for bonded in self.neighbours for first in bonded for second in bonded if first < second
        ]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)
