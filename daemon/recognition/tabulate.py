"""From calibrated peaks to the rows of the atom table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.atoms import SUPPORT, VACANCY, atom_table
from daemon.recognition.package import Manifest
from daemon.recognition.peaks import Peaks

NO_ELEMENT = "metal"
"""The class of what is there where the model tells no element."""


def tabulate(peaks: Peaks, pixel_size_angstrom: float, manifest: Manifest) -> pa.Table:
    """Make the atom table, with species and numbers of atoms where the model tells them.

    Args:
        peaks: Calibrated, positions and sigma in acquired pixels.
        pixel_size_angstrom: Of the acquired frame.
        manifest: Of the model.
    """
    of_row = peaks.class_probability.argmax(axis=1)
    classes = _by_row(manifest.classes, of_row)
    kinds = [VACANCY if name == VACANCY else manifest.kind for name in manifest.classes]
    species = [None if name in (NO_ELEMENT, VACANCY) else name for name in manifest.classes]
    n_atoms, n_atoms_probability = _count_atoms(classes, peaks.atoms_probability)
    return atom_table(
        peaks.positions,
        pixel_size_angstrom,
        _by_row(kinds, of_row),
        peaks.probability,
        peaks.sigma * pixel_size_angstrom,
        species=_by_row(species, of_row),
        species_probability=peaks.class_probability.max(axis=1, initial=0.0) if len(manifest.classes) > 1 else None,
        n_atoms=n_atoms,
        n_atoms_probability=n_atoms_probability,
    )


def _by_row(choices: Sequence[Any], of_row: NDArray[np.intp]) -> list[Any]:
    """Look up each row's choice; by NumPy, since a frame may have tens of thousands of rows."""
    chosen: list[Any] = np.array(choices, object)[of_row].tolist()
    return chosen


def _count_atoms(
    classes: list[str], probability: NDArray[np.float32] | None
) -> tuple[list[int | None] | None, list[float | None] | None]:
    """The most probable number of atoms of each column, and its probability; None for oxide and empty sites."""
    if probability is None:
        return None, None
    counted = [name not in (SUPPORT, VACANCY) for name in classes]
    numbers = (probability.argmax(axis=1) + 1).tolist()
    highest = probability.max(axis=1, initial=0.0).tolist()
    return (
        [number if told else None for number, told in zip(numbers, counted, strict=True)],
        [share if told else None for share, told in zip(highest, counted, strict=True)],
    )
