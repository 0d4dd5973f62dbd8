"""Dirt on a sheet: patches of amorphous carbon and foreign atoms, and what they hide."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.amorphous import CARBON_ATOMS_PER_ANGSTROM3, DENSITIES_G_PER_CM3, amorphous_carbon
from trainer.specimens.fields import random_field

CLOSEST_ANGSTROM = 1.3
PATCH_THICKNESS_ANGSTROM = (2.0, 30.0)
GAP_ANGSTROM = (1.6, 3.4)  # from bonded to van der Waals
LARGEST_COVERAGE = 0.6
# Patches hang over an edge or a narrow hole, but do not float in vacuum.
OVERHANG_ANGSTROM = 5.0
ADATOM_SPECIES = ("Si", "Cu", "Fe", "O", "C")
ADATOM_HEIGHT_ANGSTROM = (1.7, 2.3)
CLUSTER_ANGSTROM = 3.5  # half its width
CLOSEST_ADATOMS_ANGSTROM = 2.2

HIDING_REACH_ANGSTROM = 2.0
OPAQUE_THICKNESS_ANGSTROM = 8.0
# So many atoms stand within the reach of a sheet atom under carbon of that thickness.
OPAQUE_COUNT = round(
    OPAQUE_THICKNESS_ANGSTROM
    * np.pi
    * HIDING_REACH_ANGSTROM**2
    * float(np.mean(DENSITIES_G_PER_CM3))
    * CARBON_ATOMS_PER_ANGSTROM3
)


def random_patch(
    rng: np.random.Generator, sheet: NDArray[np.float64], extent_angstrom: float, side: float
) -> NDArray[np.float64]:
    """Blobs of amorphous carbon on one side of a flat sheet.

    Args:
        rng: Source of the coverage, the thickness and the blobs' shape.
        sheet: Shape (atoms, 2), the sheet's atoms in Å.
        extent_angstrom: Edge length of the square that may be covered, which is centred on the origin.
        side: 1 for above the sheet, -1 for below.

    Returns:
        Shape (atoms, 3), positions in Å with the sheet at z = 0.
    """
    thickness = np.exp(rng.uniform(*np.log(PATCH_THICKNESS_ANGSTROM)))
    carbon = amorphous_carbon(rng, extent_angstrom, thickness) - [extent_angstrom / 2, extent_angstrom / 2, 0.0]
    relief = random_field(rng, rng.uniform(8.0, 40.0))(carbon)
    shore = np.quantile(relief, 1 - rng.uniform(0.0, LARGEST_COVERAGE))
    slope = rng.uniform(0.05, 1.0)
    covered = carbon[:, 2] < thickness * (relief - shore) / slope
    supported = cKDTree(sheet).query(carbon[:, :2])[0] < OVERHANG_ANGSTROM
    patch: NDArray[np.float64] = carbon[covered & supported]
    patch[:, 2] = side * (patch[:, 2] + rng.uniform(*GAP_ANGSTROM))
    return patch


def random_adatoms(
    rng: np.random.Generator, sheet: NDArray[np.float64], species: Sequence[str] = ADATOM_SPECIES
) -> tuple[list[str], NDArray[np.float64]]:
    """A few foreign atoms on a flat sheet, alone or in small clusters.

    Args:
        rng: Source of the species and places.
        sheet: Shape (atoms, 2), the sheet's atoms in Å.
        species: The elements to choose from.

    Returns:
        Symbols, and positions of shape (atoms, 3) in Å with the sheet at z = 0.
    """
    symbols: list[str] = []
    positions = []
    for _ in range(rng.integers(1, 6)):
        count = int(rng.choice([1, 3, 8], p=[0.7, 0.2, 0.1]))
        place = np.append(sheet[rng.integers(len(sheet))] + rng.normal(0.0, 1.0, 2), 0.0)
        cluster = place + rng.uniform(-1, 1, (count, 3)) * [CLUSTER_ANGSTROM, CLUSTER_ANGSTROM, 0.0]
        cluster[:, 2] = rng.choice([-1.0, 1.0]) * rng.uniform(*ADATOM_HEIGHT_ANGSTROM, count)
        cluster = cluster[_spaced(cluster, CLOSEST_ADATOMS_ANGSTROM)]
        symbols += [str(rng.choice(species))] * len(cluster)
        positions.append(cluster)
    return symbols, np.concatenate(positions)


def clear_of(dirt: NDArray[np.float64], sheet: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Shape (atoms,), which atoms of the dirt stand clear of the sheet and of each other."""
    clear = np.asarray(cKDTree(sheet).query(dirt)[0] > CLOSEST_ANGSTROM)
    clear[clear] = _spaced(dirt[clear], CLOSEST_ANGSTROM)
    return clear


def hidden_by(sheet: NDArray[np.float64], dirt: NDArray[np.float64]) -> NDArray[np.int64]:
    """Shape (atoms,), how many atoms of the dirt the beam meets near each atom of the sheet."""
    if not len(dirt):
        return np.zeros(len(sheet), dtype=np.int64)
    near = cKDTree(dirt[:, :2]).query_ball_point(sheet[:, :2], HIDING_REACH_ANGSTROM, return_length=True)
    return np.asarray(near, dtype=np.int64)


def _spaced(positions: NDArray[np.float64], closest_angstrom: float) -> NDArray[np.bool_]:
    """Shape (atoms,), false for the later atom of each pair that is too close."""
    spaced = np.ones(len(positions), dtype=bool)
    spaced[cKDTree(positions).query_pairs(closest_angstrom, output_type="ndarray").max(axis=1, initial=0)] = False
    return spaced
