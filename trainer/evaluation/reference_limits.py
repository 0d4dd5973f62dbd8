"""What physics allows at a recipe's reference conditions: the yardstick beside the network's curves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import ase.build
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from trainer.camera import Exposure, expected_counts
from trainer.evaluation.limits import PhysicalLimits, TripletDetectability, detectability, position_limit_angstrom
from trainer.evaluation.matching import TOLERANCE_ANGSTROM
from trainer.optics import Optics, intensity
from trainer.recipe import ThermalMotion
from trainer.simulation import multislice, thermal_rms_angstrom

SAMPLING_ANGSTROM = 0.12
STEP_ANGSTROM = 0.02
COLUMN_ATOMS = 8
"""Of the gold column in question, in a ⟨110⟩ slab of the same thickness."""
FINE_SLICE_ANGSTROM = 0.5
"""One atom more or less weighs a sixth more or less with slices of 2 Å, as its plane falls into them."""

WEAKEST_SITE = "weakest site or nothing"
"""One sulphur atom, or one gold atom in vacuum."""
SPECIES = "S2 or S"
HEIGHT = "8 atoms or 7"
"""Of a gold column; the atom that lacks is the first that the beam meets, which is harder to tell than the last."""


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


def triplet_limits(
    specimen: str,
    optics: Mapping[str, Sequence[Optics]],
    exposure: Exposure,
    thermal_motion: ThermalMotion = "snapshot",
) -> dict[str, dict[str, TripletDetectability]]:
    """How well two cases can be told apart in a perfect crystal, by condition and then by question.

    Everything else is taken as known, counting noise is the only noise, and the scintillator takes nothing away.

    Args:
        specimen: `mos2`: asks for `WEAKEST_SITE` and `SPECIES`. `nanoparticle`: for `WEAKEST_SITE` and `HEIGHT`.
        optics: Lenses of the three frames, in order of defocus, by condition.
        exposure: Of each frame at 1 e/Å².
        thermal_motion: Of atoms that stand on their lattice at that moment, or of the average at room temperature.
    """
    cases = _sulphur_cases() if specimen == "mos2" else _gold_cases()
    voltage_kv = next(iter(optics.values()))[0].voltage_kv
    waves = {
        question: [_wave(atoms, voltage_kv, thermal_motion) for atoms in pair] for question, (pair, _) in cases.items()
    }
    limits: dict[str, dict[str, TripletDetectability]] = {}
    for name, lenses in optics.items():
        limits[name] = {}
        for question, (pair, last_angstrom) in cases.items():
            below_angstrom = float(pair[0].cell[2, 2]) - last_angstrom
            # Defocus counts from the site, as in `trainer.microscope.take`.
            at_exit_plane = [replace(lens, c10=lens.c10 - below_angstrom) for lens in lenses]
            images = [
                [
                    expected_counts(intensity(wave, sampling, lens), sampling, exposure).astype(np.float64)
                    for lens in at_exit_plane
                ]
                for wave, sampling in waves[question]
            ]
            limits[name][question] = TripletDetectability.between(*images)
    return limits


_Cases = dict[str, tuple[tuple[Atoms, Atoms], float]]
"""By question: a structure with an atom and without it, and how deep the site's last atom lies, Å."""


def _sulphur_cases() -> _Cases:
    unit = ase.build.mx2("MoS2", a=3.16, thickness=3.13, vacuum=2.0)
    cell = ase.build.make_supercell(unit, [[1, 0, 0], [1, 2, 0], [0, 0, 1]])
    sheet, pair = _with_middle(cell.repeat((8, 5, 1)), 2, "S")
    single = _without(sheet, pair[:1])
    last = float(sheet.positions[pair, 2].max())
    return {SPECIES: ((sheet, single), last), WEAKEST_SITE: ((single, _without(sheet, pair)), last)}


def _gold_cases() -> _Cases:
    slab, column = _slab()
    last = float(slab.positions[column, 2].max())
    side = float(slab.cell[0, 0])
    atom = Atoms("Au", positions=[[side / 2, side / 2, 2.0]], cell=[side, side, 4.0])
    return {
        HEIGHT: ((slab, _without(slab, column[:1])), last),
        WEAKEST_SITE: ((atom, _without(atom, [0])), 2.0),
    }


def _without(atoms: Atoms, removed: Sequence[int]) -> Atoms:
    rest = atoms.copy()
    del rest[list(removed)]
    return rest


def _wave(atoms: Atoms, voltage_kv: float, thermal_motion: ThermalMotion) -> tuple[torch.Tensor, float]:
    """The exit wave of a structure, and its sampling in Å."""
    side = float(atoms.cell[0, 0])
    pixels = round(side / SAMPLING_ANGSTROM)
    if len(atoms) == 0:
        return torch.ones((pixels, pixels), dtype=torch.complex64), side / pixels
    smearing = thermal_rms_angstrom(atoms) if thermal_motion == "averaged" else None
    wave = multislice(atoms, pixels, voltage_kv, FINE_SLICE_ANGSTROM, smearing)
    return torch.from_numpy(wave), side / pixels


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


def _with_middle(atoms: Atoms, count: int, symbol: str | None = None) -> tuple[Atoms, list[int]]:
    """Cut or fill to a square field; name the atoms of the column next to its middle, the beam's first one first.

    Args:
        atoms: In an orthogonal cell.
        count: How many atoms the column has.
        symbol: What it consists of, where not any column will do.
    """
    width, height = float(atoms.cell[0, 0]), float(atoms.cell[1, 1])
    side = max(width, height)
    atoms.set_cell([side, side, float(atoms.cell[2, 2])])
    atoms.positions[:, :2] %= side
    wanted = np.array([symbol in (None, other) for other in atoms.get_chemical_symbols()])
    distance = np.hypot(atoms.positions[:, 0] - width / 2, atoms.positions[:, 1] - height / 2)
    nearest = int(np.where(wanted, distance, np.inf).argmin())
    across = np.hypot(*(atoms.positions[:, :2] - atoms.positions[nearest, :2]).T)
    column = np.flatnonzero(across < 0.1)
    if len(column) != count:
        raise ValueError(f"{len(column)} atoms in the middle column, expected {count}")
    return atoms, column[np.argsort(atoms.positions[column, 2])].tolist()
