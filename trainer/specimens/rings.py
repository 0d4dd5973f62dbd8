"""Carbon networks from the centres of their rings: lattices, grain boundaries and random networks alike."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from trainer.specimens.fields import random_field
from trainer.specimens.sheet import LATTICE_CONSTANT_ANGSTROM, Sheet

# Where two grains meet, one of two centres closer than this goes.
CLOSEST_CENTRES = 0.75 * LATTICE_CONSTANT_ANGSTROM
# Centres push each other up to here: beyond the first neighbours, short of the second.
PUSH_REACH = 1.3 * LATTICE_CONSTANT_ANGSTROM
PUSH_STEPS = 25
SMALLEST_RING = 5
HULL_ANGSTROM = 4.0


def lattice_centres(extent_angstrom: float, angle: float, offset_angstrom: NDArray[np.float64]) -> NDArray[np.float64]:
    """The hexagon centres of perfect graphene.

    Args:
        extent_angstrom: Edge length of the square to fill, which is centred on the origin.
        angle: Direction of a lattice vector, a zigzag direction, in radians.
        offset_angstrom: Position of one centre, shape (2,).

    Returns:
        Shape (centres, 2), in Å.
    """
    half = extent_angstrom / 2
    count = int(np.ceil(1.7 * half / LATTICE_CONSTANT_ANGSTROM)) + 2
    steps = np.arange(-count, count + 1)
    indices = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    vectors = np.array([[np.cos(angle + turn), np.sin(angle + turn)] for turn in (0, np.pi / 3)])
    centres = LATTICE_CONSTANT_ANGSTROM * indices @ vectors + offset_angstrom
    inside: NDArray[np.bool_] = (np.abs(centres) < half).all(axis=1)
    return np.asarray(centres[inside], dtype=np.float64)


def grains(rng: np.random.Generator, extent_angstrom: float, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ring centres of grains that meet in curved, relaxed boundaries.

    Every grain has a random smooth field and owns the places where its field is highest. The fields are levelled to
    be equal at one point, so that a boundary of two grains, or the junction of three, is in view.

    Args:
        rng: Source of the boundaries.
        extent_angstrom: Edge length of the square to fill, which is centred on the origin.
        angles: Direction of a lattice vector of each grain, in radians.

    Returns:
        Shape (centres, 2), in Å.
    """
    wavelength = extent_angstrom * rng.uniform(0.3, 1.5)
    meeting = rng.uniform(-0.3, 0.3, (1, 2)) * extent_angstrom
    fields = [random_field(rng, wavelength) for _ in angles]
    parts, owners = [], []
    for grain, angle in enumerate(angles):
        centres = lattice_centres(extent_angstrom, angle, rng.uniform(-1, 1, 2) * LATTICE_CONSTANT_ANGSTROM)
        own = np.argmax([field(centres) - field(meeting) for field in fields], axis=0) == grain
        parts.append(centres[own])
        owners.append(np.full(own.sum(), grain))
    centres, owner = np.concatenate(parts), np.concatenate(owners)

    close = cKDTree(centres).query_pairs(CLOSEST_CENTRES, output_type="ndarray")
    centres, owner = (np.delete(array, np.unique(close[:, 0]), axis=0) for array in (centres, owner))

    pairs = cKDTree(centres).query_pairs(2 * LATTICE_CONSTANT_ANGSTROM, output_type="ndarray")
    free = np.zeros(len(centres), dtype=bool)
    free[pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]] = True
    return _pushed_apart(centres, free)


def disordered(rng: np.random.Generator, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scatters the ring centres in part of the sheet, or all of it: carbon amorphised by the beam.

    Args:
        rng: Source of the region and the scatter.
        centres: Shape (centres, 2), in Å.

    Returns:
        Shape (centres, 2), in Å, a few of them removed.
    """
    wavelength = rng.uniform(10.0, 80.0)
    region = random_field(rng, wavelength)(centres) > rng.uniform(-2.0, 1.5)
    scatter = rng.uniform(0.15, 0.6) * LATTICE_CONSTANT_ANGSTROM
    scattered = centres + region[:, None] * rng.normal(0.0, scatter, centres.shape)
    close = cKDTree(scattered).query_pairs(0.4 * LATTICE_CONSTANT_ANGSTROM, output_type="ndarray")
    removed = np.unique(close[:, 0])
    return _pushed_apart(np.delete(scattered, removed, axis=0), np.delete(region, removed))


def sheet_of(centres: NDArray[np.float64]) -> Sheet:
    """The three-coordinated network whose rings have these centres.

    An atom stands in each triangle of neighbouring centres, bonded to the atoms of the three triangles next to it.

    Args:
        centres: Shape (centres, 2), in Å.

    Returns:
        The sheet, not yet relaxed, its frayed outermost atoms removed.
    """
    for _ in range(3):
        triangles = Delaunay(centres)
        ring_sizes = np.bincount(triangles.simplices.ravel(), minlength=len(centres))
        # Rings at the hull are open and look small.
        crowded = (ring_sizes < SMALLEST_RING) & (np.abs(centres) < np.abs(centres).max() - HULL_ANGSTROM).all(1)
        if not crowded.any():
            break
        centres = centres[~crowded]

    triangles = Delaunay(centres)
    positions = centres[triangles.simplices].mean(axis=1)
    sheet = Sheet(positions, [{int(other) for other in row if other >= 0} for row in triangles.neighbors])
    frayed = (np.abs(positions) > np.abs(centres).max() - HULL_ANGSTROM).any(axis=1)
    sheet.remove(np.flatnonzero(frayed))
    return sheet


def _pushed_apart(centres: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Lets the free centres spread out evenly among the others."""
    for _ in range(PUSH_STEPS):
        first, second = cKDTree(centres).query_pairs(PUSH_REACH, output_type="ndarray").T
        apart = centres[first] - centres[second]
        distance = np.maximum(np.linalg.norm(apart, axis=1), 0.1)
        push = apart * (0.15 * (PUSH_REACH - distance) / distance)[:, None]
        pushes = [
            np.bincount(first, push[:, axis], len(centres)) - np.bincount(second, push[:, axis], len(centres))
            for axis in range(2)
        ]
        centres = centres + free[:, None] * np.stack(pushes, axis=1)
    return centres
