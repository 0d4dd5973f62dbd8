"""What changes between two frames of one area: now and then an atom that the beam moved."""

from dataclasses import replace

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from trainer.specimens.specimen import Specimen

HOPPING_SHARE = 0.15
MOST_HOPPING_ATOMS = 3
DISTANCE_ANGSTROM = (1.5, 4.0)
CANDIDATES = 30
NEIGHBOUR_REACH_ANGSTROM = 3.2
DISTURBED_REACH_ANGSTROM = 1.2


def hopped(specimen: Specimen, rng: np.random.Generator) -> Specimen:
    """Let an atom or a few of them hop, or none.

    Loosely bound atoms go first. A site that lost an atom, or got one, is ignored: what stands there differs from frame
    to frame.
    """
    if rng.random() >= HOPPING_SHARE or len(specimen.atoms) == 0:
        return specimen
    atoms: Atoms = specimen.atoms.copy()
    positions = specimen.site_positions()
    ignored = specimen.site_ignored.copy()
    for _ in range(rng.integers(1, MOST_HOPPING_ATOMS + 1)):
        candidates = rng.integers(len(atoms), size=CANDIDATES)
        tree = cKDTree(atoms.positions)
        bound = tree.query_ball_point(atoms.positions[candidates], NEIGHBOUR_REACH_ANGSTROM, return_length=True)
        loosest = candidates[np.argmin(bound)]
        direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*DISTANCE_ANGSTROM)
        place = atoms.positions[loosest, :2] + distance * np.array([np.cos(direction), np.sin(direction)])
        atoms.positions[loosest, :2] = np.clip(place, 0.01, np.diag(atoms.cell)[:2] - 0.01)
        if specimen.site_of_atom[loosest] >= 0:
            ignored[specimen.site_of_atom[loosest]] = True
        if len(positions):
            here = np.hypot(*(positions - atoms.positions[loosest, :2]).T)
            ignored[here < DISTURBED_REACH_ANGSTROM] = True
    return replace(specimen, atoms=atoms, site_ignored=ignored)
