"""What the beam and the making do to a sheet: vacancies, rotated bonds, holes, edges, flakes and chains."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.fields import random_field
from trainer.specimens.sheet import Sheet

SMALLEST_FRAGMENT = 6
SMALLEST_HOLE_ANGSTROM = 3.0  # radius
# Two dangling atoms across a vacancy stand one lattice constant apart and may bond.
REBOND_REACH_ANGSTROM = 2.6
CHAIN_BOND_ANGSTROM = 1.35
SHORTEST_CHAIN_BOND_ANGSTROM = 1.28
CHAIN_SPAN_ANGSTROM = (6.0, 25.0)
CHAIN_CLEARANCE_ANGSTROM = 2.0
FLAKE_RADIUS_ANGSTROM = (4.0, 16.0)
FLAKE_GAP_ANGSTROM = 3.0


def add_vacancies(rng: np.random.Generator, sheet: Sheet, count: int) -> None:
    """Knocks out groups of one to six atoms that are bonded to each other."""
    for atom in rng.choice(len(sheet.positions), count):
        group = {int(atom)}
        for _ in range(rng.choice([0, 1, 2, 3, 5], p=[0.4, 0.3, 0.1, 0.15, 0.05])):
            around = sorted({other for member in group for other in sheet.neighbours[member]} - group)
            if around:
                group.add(int(rng.choice(around)))
        sheet.remove(group)


def rotate_bonds(rng: np.random.Generator, sheet: Sheet, count: int) -> None:
    """Turns bonds by 90°, alone or in rows of neighbouring bonds that make chains of 5-7 rings."""
    for atom in rng.choice(len(sheet.positions), count):
        for _ in range(rng.choice([1, 3, 6], p=[0.7, 0.2, 0.1])):
            around = sorted(sheet.neighbours[atom])
            if len(around) < 3:
                break
            other = int(rng.choice(around))
            sheet.rotate_bond(int(atom), other)
            atom = rng.choice(sorted(sheet.neighbours[other]))


def cut_holes(rng: np.random.Generator, sheet: Sheet, count: int, zigzag_angle: float) -> None:
    """Cuts holes with zigzag, armchair or rough edges."""
    extent = np.abs(sheet.positions).max()
    largest = max(0.7 * extent / np.sqrt(count), 2 * SMALLEST_HOLE_ANGSTROM)
    for _ in range(count):
        centre = rng.uniform(-0.9, 0.9, 2) * extent
        radius = np.exp(rng.uniform(np.log(SMALLEST_HOLE_ANGSTROM), np.log(largest)))
        roughness = rng.choice([0.0, 0.15, 0.4]) * radius
        wobble = roughness * random_field(rng, rng.uniform(0.3, 1.0) * radius)(sheet.positions)
        offset = sheet.positions - centre
        if rng.random() < 0.5:
            distance = np.hypot(offset[:, 0], offset[:, 1])
        else:
            distance = _hexagon_distance(offset, zigzag_angle + rng.choice([0.0, np.pi / 6]))
        sheet.remove(np.flatnonzero(distance + wobble < radius))
    sheet.trim(SMALLEST_FRAGMENT)


def cut_edge(rng: np.random.Generator, sheet: Sheet, zigzag_angle: float) -> None:
    """Cuts the sheet along one line, or along two that leave a ribbon, with vacuum beyond."""
    extent = np.abs(sheet.positions).max()
    along_lattice = zigzag_angle + np.pi / 6 * rng.integers(12)  # zigzag and armchair in turn
    angle = along_lattice if rng.random() < 0.6 else rng.uniform(0, 2 * np.pi)
    across = sheet.positions @ [-np.sin(angle), np.cos(angle)]
    roughness = rng.choice([0.0, 1.0, 3.0, 8.0])
    middle = rng.uniform(-0.2, 0.7) * extent
    width = rng.uniform(6.0, extent) if rng.random() < 0.4 else 4 * extent
    for side in (across - middle, middle - across - width):
        wobble = roughness * random_field(rng, rng.uniform(6.0, 40.0))(sheet.positions)
        sheet.remove(np.flatnonzero(side + wobble > 0))
    sheet.trim(SMALLEST_FRAGMENT)


def cut_flakes(rng: np.random.Generator, sheet: Sheet, count: int) -> None:
    """Leaves only small flakes, round or ragged, each turned in the plane by its own angle."""
    extent = np.abs(sheet.positions).max()
    flake = np.full(len(sheet.positions), -1)
    centres, radii = np.empty((0, 2)), np.empty(0)
    for _ in range(count):
        centre = rng.uniform(-0.9, 0.9, 2) * extent
        radius = np.exp(rng.uniform(*np.log(FLAKE_RADIUS_ANGSTROM)))
        if (np.linalg.norm(centres - centre, axis=1) < radii + radius + FLAKE_GAP_ANGSTROM).any():
            continue
        distance = np.linalg.norm(sheet.positions - centre, axis=1)
        ragged = 0.25 * radius * random_field(rng, radius)(sheet.positions)
        flake[(distance < radius) & (distance + ragged < 0.9 * radius)] = len(radii)
        centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
    sheet.remove(np.flatnonzero(flake < 0))

    # A turn about its own centre keeps a flake inside its circle, clear of the others.
    for index, angle in enumerate(rng.uniform(0, 2 * np.pi, len(radii))):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        own = flake == index
        sheet.positions[own] = (sheet.positions[own] - centres[index]) @ turn.T + centres[index]
    sheet.trim(SMALLEST_FRAGMENT)


def erode_edges(rng: np.random.Generator, sheet: Sheet, share: float) -> None:
    """Knocks out this share of the atoms at edges, twice, as the beam does."""
    for _ in range(2):
        edge = np.flatnonzero(sheet.present & (sheet.coordination() == 2))
        sheet.remove(edge[rng.random(len(edge)) < share])
        sheet.trim(SMALLEST_FRAGMENT)


def rebond(rng: np.random.Generator, sheet: Sheet, share: float) -> None:
    """Bonds dangling atoms to each other: 5-9 and 5-8-5 vacancies, edges with pentagons."""
    dangling = np.flatnonzero(sheet.present & (sheet.coordination() == 2))
    pairs = cKDTree(sheet.positions[dangling]).query_pairs(REBOND_REACH_ANGSTROM, output_type="ndarray")
    for first, second in dangling[rng.permutation(pairs)]:
        # A common neighbour would close a triangle.
        triangle = sheet.neighbours[first] & sheet.neighbours[second]
        free = len(sheet.neighbours[first]) == len(sheet.neighbours[second]) == 2
        if free and not triangle and second not in sheet.neighbours[first] and rng.random() < share:
            sheet.bond(int(first), int(second))


def carbon_chains(rng: np.random.Generator, sheet: Sheet, count: int) -> NDArray[np.float64]:
    """Chains of carbon atoms that span holes between two edge atoms, straight or bowed.

    Args:
        rng: Source of the chains' places and bows.
        sheet: A relaxed sheet, which is not changed.
        count: The most chains to look for.

    Returns:
        Shape (atoms, 2), positions of the chain atoms in Å.
    """
    edge = np.flatnonzero(sheet.present & (sheet.coordination() == 2))
    chains = np.empty((0, 2))
    if len(edge) < 2:
        return chains
    for _ in range(20 * count):
        start, end = sheet.positions[rng.choice(edge, 2, replace=False)]
        chain = _bow(start, end, rng.uniform(-0.25, 0.25))
        if not len(chain):
            continue
        others = np.concatenate([sheet.positions, chains])
        distances = cKDTree(others).query(chain)[0]
        # The first and last atom of the chain touch the sheet, no other does.
        if (distances[1:-1] > CHAIN_CLEARANCE_ANGSTROM).all() and (
            distances[[0, -1]] > SHORTEST_CHAIN_BOND_ANGSTROM
        ).all():
            chains = np.vstack([chains, chain])
            count -= 1
        if count == 0:
            break
    return chains


def _bow(start: NDArray[np.float64], end: NDArray[np.float64], sag: float) -> NDArray[np.float64]:
    """Shape (atoms, 2), evenly spaced atoms between two ends; none where the ends are too close or too far."""
    along = end - start
    span = float(np.hypot(*along))
    if not CHAIN_SPAN_ANGSTROM[0] < span < CHAIN_SPAN_ANGSTROM[1]:
        return np.empty((0, 2))
    fine = np.linspace(0, 1, 200)
    arc = start + fine[:, None] * along + (sag * np.sin(np.pi * fine))[:, None] * [-along[1], along[0]]
    travelled = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(arc, axis=0), axis=1)))
    bonds = round(travelled[-1] / CHAIN_BOND_ANGSTROM)
    stops = np.searchsorted(travelled, travelled[-1] * np.arange(1, bonds) / bonds)
    return np.asarray(arc[stops], dtype=np.float64)


def _hexagon_distance(offset: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """How far out each point lies, measured to the side of a hexagon that faces it."""
    normals = angle + np.pi / 2 + np.pi / 3 * np.arange(6)
    distance: NDArray[np.float64] = (offset @ np.stack([np.cos(normals), np.sin(normals)])).max(axis=1)
    return distance
