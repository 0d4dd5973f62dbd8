"""What physics allows at a recipe's reference conditions: the yardstick beside the network's curves."""

from collections.abc import Mapping
from functools import partial

import ase.build
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from trainer.camera import Exposure, expected_counts
from trainer.evaluation.limits import PhysicalLimits, detectability, position_limit_angstrom
from trainer.evaluation.matching import TOLERANCE_ANGSTROM
from trainer.optics import Optics, intensity
from trainer.simulation import multislice

SAMPLING_ANGSTROM = 0.12
STEP_ANGSTROM = 0.02
COLUMN_ATOMS = 8
"""Of the gold column in question, in a ⟨110⟩ slab of the same thickness."""


def reference_limits(specimen: str, optics: Mapping[str, Optics], exposure: Exposure) -> dict[str, PhysicalLimits]:
    """Limits for one site in a perfect crystal: its position, and whether it is there.

    Everything else is taken as known, counting noise is the only noise, and the scintillator takes nothing away.

    Args:
        specimen: `graphene`: one atom of the sheet. `nanoparticle`: one gold column.
        optics: Lens by condition.
        exposure: At 1 e/Å².
    """
    atoms, moved = _sheet() if specimen == "graphene" else _slab()
    pixels = round(float(atoms.cell[0, 0]) / SAMPLING_ANGSTROM)
    voltage_kv = next(iter(optics.values())).voltage_kv

    def wave(offset_angstrom: NDArray[np.float64] | None) -> torch.Tensor:
        changed = atoms.copy()
        if offset_angstrom is None:
            del changed[moved]
        else:
            changed.positions[moved, :2] += offset_angstrom
        return torch.from_numpy(multislice(changed, pixels, voltage_kv))

    steps = [np.array(step) * STEP_ANGSTROM for step in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    waves = {tuple(step): wave(step) for step in steps}
    without = wave(None)
    sampling_angstrom = float(atoms.cell[0, 0]) / pixels
    limits = {}
    for name, lens in optics.items():

        def counts(exit_wave: torch.Tensor, lens: Optics = lens) -> NDArray[np.float64]:
            image = intensity(exit_wave, sampling_angstrom, lens)
            return expected_counts(image, sampling_angstrom, exposure).astype(np.float64)

        images = {step: counts(exit_wave) for step, exit_wave in waves.items()}
        position = position_limit_angstrom(partial(_displaced, images), STEP_ANGSTROM)
        d_prime = detectability(images[0.0, 0.0], counts(without))
        limits[name] = PhysicalLimits.from_unit_dose(position, d_prime, TOLERANCE_ANGSTROM)
    return limits


def _displaced(
    images: Mapping[tuple[float, ...], NDArray[np.float64]], offset_angstrom: NDArray[np.float64]
) -> NDArray[np.float64]:
    return images[tuple(offset_angstrom)]


def _sheet() -> tuple[Atoms, list[int]]:
    unit = ase.build.graphene("C2", a=2.46, vacuum=2.0)
    cell = ase.build.make_supercell(unit, [[1, 0, 0], [1, 2, 0], [0, 0, 1]])
    return _with_middle(cell.repeat((10, 6, 1)), 1)


def _slab() -> tuple[Atoms, list[int]]:
    slab = ase.build.fcc110("Au", (6, 6, 2 * COLUMN_ATOMS), a=4.078, vacuum=2.0)
    return _with_middle(slab, COLUMN_ATOMS)


def _with_middle(atoms: Atoms, count: int) -> tuple[Atoms, list[int]]:
    """Cut or fill to a square field; name the atoms of the column next to its middle."""
    width, height = float(atoms.cell[0, 0]), float(atoms.cell[1, 1])
    side = max(width, height)
    atoms.set_cell([side, side, float(atoms.cell[2, 2])])
    atoms.positions[:, :2] %= side
    distance = np.hypot(atoms.positions[:, 0] - width / 2, atoms.positions[:, 1] - height / 2)
    nearest = int(distance.argmin())
    across = np.hypot(*(atoms.positions[:, :2] - atoms.positions[nearest, :2]).T)
    column = np.flatnonzero(across < 0.1)
    if len(column) != count:
        raise ValueError(f"{len(column)} atoms in the middle column, expected {count}")
    return atoms, column.tolist()
