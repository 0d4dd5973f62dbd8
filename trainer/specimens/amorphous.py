"""Amorphous carbon: the network contamination, support films and thick dirt are cut from."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from trainer.specimens.fields import random_field
from trainer.specimens.specimen import Specimen

# From hydrogenated contamination to sputtered film.
DENSITIES_G_PER_CM3 = (1.5, 1.85, 2.2)
CARBON_ATOMS_PER_ANGSTROM3 = 0.0501  # at 1 g/cm³

BLOCK_ANGSTROM = 30.0
BLOCKS_PER_DENSITY = 4
BOND_ANGSTROM = 1.45
BOND_DISORDER_ANGSTROM = 0.04
BOND_REACH_ANGSTROM = 2.7
# Two atoms bonded to the same third stand this far apart, or farther.
SECOND_NEIGHBOUR_ANGSTROM = 2.35
NEIGHBOURS = 3
RELAXATION_STEPS = 100
CLOSEST_ANGSTROM = 1.25

VACUUM_ANGSTROM = 3.0
FILM_THICKNESS_ANGSTROM = (5.0, 80.0)


def random_amorphous_film(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """A carbon film alone, of uneven thickness, in a third of all draws torn open so that vacuum shows.

    Args:
        rng: Source of every random choice.
        size_angstrom: Edge length of the square field.

    Returns:
        The film, without a site: there is nothing to be found in it.
    """
    thickness = np.exp(rng.uniform(*np.log(FILM_THICKNESS_ANGSTROM)))
    unevenness = rng.uniform(0.0, 0.3)
    positions = amorphous_carbon(rng, size_angstrom, thickness * (1 + unevenness))
    hill = np.clip(random_field(rng, size_angstrom)(positions), -2, 2) / 2
    positions = positions[positions[:, 2] < thickness * (1 + unevenness * hill)]
    if rng.random() < 1 / 3:
        tear = random_field(rng, rng.uniform(0.3, 1.0) * size_angstrom)(positions)
        positions = positions[tear < rng.uniform(0.0, 1.0)]

    return Specimen(
        atoms=atoms_in_vacuum(["C"] * len(positions), positions, size_angstrom),
        site_of_atom=np.full(len(positions), -1, dtype=np.int32),
        site_species=(),
        site_ignored=np.zeros(0, dtype=bool),
    )


def amorphous_carbon(
    rng: np.random.Generator, size_angstrom: float, thickness_angstrom: float, *, held_out: bool = False
) -> NDArray[np.float64]:
    """Amorphous carbon that fills a square slab.

    The slab is cut at a random place and in a random orientation from an endless repetition of a small block, so
    that no two slabs are alike and the repetition never lies along the beam.

    Args:
        rng: Source of the density, the place and the orientation.
        size_angstrom: Edge length of the slab in x and y.
        thickness_angstrom: Extent of the slab in z.
        held_out: Cut from blocks that no training specimen is made of.

    Returns:
        Shape (atoms, 3), positions in Å, x and y from 0 to the size, z from 0 to the thickness.
    """
    block = _block(int(rng.integers(len(DENSITIES_G_PER_CM3))), int(rng.integers(BLOCKS_PER_DENSITY)), held_out)
    extent = np.array([size_angstrom, size_angstrom, thickness_angstrom])
    rotation = Rotation.random(rng=rng)
    origin = rng.uniform(0.0, BLOCK_ANGSTROM, 3)

    # The slab's corners in the block's own frame tell which repetitions it meets.
    half = extent / 2
    corners = rotation.inv().apply(np.array(np.meshgrid(*zip(-half, half, strict=True))).reshape(3, 8).T) + origin
    first = np.floor(corners.min(axis=0) / BLOCK_ANGSTROM).astype(int)
    last = np.floor(corners.max(axis=0) / BLOCK_ANGSTROM).astype(int)
    repetitions = np.stack(
        np.meshgrid(*[np.arange(low, high + 1) for low, high in zip(first, last, strict=True)]), axis=-1
    ).reshape(-1, 3)

    # A block whose centre is farther from the slab than its own corner has nothing to give.
    centres = rotation.apply((repetitions + 0.5) * BLOCK_ANGSTROM - origin)
    reach = BLOCK_ANGSTROM * np.sqrt(3) / 2
    repetitions = repetitions[(np.abs(centres) <= half + reach).all(axis=1)]

    tiled = (repetitions[:, None, :] * BLOCK_ANGSTROM + block[None, :, :]).reshape(-1, 3)
    positions = rotation.apply(tiled - origin) + half
    inside = ((positions >= 0) & (positions < extent)).all(axis=1)
    return np.asarray(positions[inside], dtype=np.float64)


def atoms_in_vacuum(symbols: Sequence[str], positions: NDArray[np.float64], size_angstrom: float) -> Atoms:
    """Puts atoms into a square cell just high enough for them and some vacuum below and above.

    Args:
        symbols: Chemical symbol of each atom.
        positions: Shape (atoms, 3) in Å, x and y inside the field, z anywhere.
        size_angstrom: Edge length of the square field.

    Returns:
        The atoms, lifted so that the lowest stands on the vacuum below.
    """
    lowest, highest = (positions[:, 2].min(), positions[:, 2].max()) if len(positions) else (0.0, 0.0)
    lifted = positions + [0.0, 0.0, VACUUM_ANGSTROM - lowest]
    height = highest - lowest + 2 * VACUUM_ANGSTROM
    return Atoms(list(symbols), positions=lifted, cell=[size_angstrom, size_angstrom, height])


@cache
def _block(density_index: int, variant: int, held_out: bool) -> NDArray[np.float64]:
    """A periodic cube of mostly three-coordinated carbon, relaxed from a random gas.

    Each atom pulls its three nearest neighbours to a bond length and pushes everyone else beyond the distance of
    second neighbours. Both rules are the short-range order that electron scattering sees.
    """
    rng = np.random.default_rng([21 if held_out else 20, density_index, variant])
    density = DENSITIES_G_PER_CM3[density_index] * CARBON_ATOMS_PER_ANGSTROM3
    positions = rng.uniform(0.0, BLOCK_ANGSTROM, (round(density * BLOCK_ANGSTROM**3), 3))
    for _ in range(RELAXATION_STEPS):
        positions = (positions + _moves(positions)) % BLOCK_ANGSTROM
    positions = (positions + rng.normal(0.0, BOND_DISORDER_ANGSTROM, positions.shape)) % BLOCK_ANGSTROM

    close = cKDTree(positions, boxsize=BLOCK_ANGSTROM).query_pairs(CLOSEST_ANGSTROM, output_type="ndarray")
    return np.delete(positions, np.unique(close[:, 0]), axis=0)


def _moves(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (atoms, 3), the step each atom takes towards its bond lengths."""
    tree = cKDTree(positions, boxsize=BLOCK_ANGSTROM)
    distances, neighbours = tree.query(positions, k=14, distance_upper_bound=BOND_REACH_ANGSTROM)
    found = np.isfinite(distances[:, 1:])
    atom, rank = np.nonzero(found)
    neighbour, distance = neighbours[:, 1:][found], distances[:, 1:][found]

    # A bond needs both partners to count each other among their nearest.
    count = len(positions)
    proposed = rank < NEIGHBOURS
    bonded = proposed & np.isin(atom * count + neighbour, (neighbour * count + atom)[proposed])
    goal = np.where(bonded, BOND_ANGSTROM, np.maximum(distance, SECOND_NEIGHBOUR_ANGSTROM))

    apart = positions[atom] - positions[neighbour]
    apart -= BLOCK_ANGSTROM * np.round(apart / BLOCK_ANGSTROM)
    step = apart * (0.25 * (goal - distance) / np.maximum(distance, 0.1))[:, None]
    return np.stack([np.bincount(atom, step[:, axis], count) for axis in range(3)], axis=1)
