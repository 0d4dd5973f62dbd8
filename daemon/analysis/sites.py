"""An atom table as arrays, and what each of its rows weighs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.analysis.quantities import Measured
from daemon.atoms import SUPPORT, VACANCY, header_of, row_classes
from daemon.errors import HrtemdError

SULPHUR_SPECIES = ("S", "S2")
MOS2_SPECIES = ("Mo", *SULPHUR_SPECIES)

BORDER_ANGSTROM = 2.0
"""So close to the edge of the frame an atom may be cut off, and whether it is found is chance."""

# What stands under or beside the specimen is no part of it.
_ATOMS_BY_LABEL = {"Mo": 1, "S": 1, "S2": 2, "substitution": 1, VACANCY: 0, SUPPORT: 0}


@dataclass(frozen=True)
class Sites:
    """The rows of one atom table, in its order.

    Attributes:
        positions_angstrom: Shape (n, 2), x and y.
        label: Shape (n,), the species, or the kind (`atom`, `column`, `vacancy`) where the table names none.
        probability: Shape (n,), that something is there.
        label_probability: Shape (n,), that it is what the label says if it is there; 1 where the model has no choice.
        n_atoms: Shape (n,), atoms in the column as the model counted them, NaN where it did not and in support.
        n_atoms_probability: Shape (n,), that there are so many if it is there; 1 where the model did not count.
        atoms: Shape (n,), `n_atoms`, or else what the label implies: none at a vacancy and in support, NaN for a column
            nobody counted.
        view_angstrom: Shape (2, 2), low and high corner of where sites were looked for, less `BORDER_ANGSTROM`;
            infinite where the table's header does not tell.
    """

    positions_angstrom: NDArray[np.float64]
    label: NDArray[np.str_]
    probability: NDArray[np.float64]
    label_probability: NDArray[np.float64]
    n_atoms: NDArray[np.float64]
    n_atoms_probability: NDArray[np.float64]
    atoms: NDArray[np.float64]
    view_angstrom: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def label_is_right(self) -> NDArray[np.float64]:
        """Shape (n,), the probability that something is there and is what the label says."""
        return self.probability * self.label_probability

    @property
    def height_is_right(self) -> NDArray[np.float64]:
        """Shape (n,), the probability that a column is there and has exactly `n_atoms`."""
        return self.probability * self.n_atoms_probability

    @property
    def tells_species(self) -> bool:
        """Whether a model of MoS2 made the table; one without rows tells nothing."""
        return bool(np.isin(self.label, [*MOS2_SPECIES, VACANCY]).any())

    @property
    def tells_heights(self) -> bool:
        """Whether columns were counted; a table without rows tells nothing."""
        return bool(np.isfinite(self.n_atoms).any())

    @property
    def in_specimen(self) -> NDArray[np.bool_]:
        """Shape (n,), what is not support."""
        return np.asarray(self.label != SUPPORT)

    def expected_atoms(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Measured:
        """How many atoms stand at the chosen sites, a mask or indices, if the probabilities are right.

        All atoms of a site are in doubt where the site itself is. Where only its species or height is, it is one atom
        that is there or not, either way, which is what nearly all confusions of these models are.
        """
        counted = np.isfinite(self.n_atoms)
        doubt = 1 - np.where(counted, self.n_atoms_probability, self.label_probability)
        doubt[~self.in_specimen] = 0
        variance = self.probability * ((1 - self.probability) * self.atoms**2 + doubt)
        return Measured(float((self.probability * self.atoms)[chosen].sum()), math.sqrt(float(variance[chosen].sum())))


def sites_of(table: pa.Table) -> Sites:
    """Read a table as `daemon.atoms` describes it."""
    labels, kinds = row_classes(table), table.column("kind").to_pylist()
    implied = [
        1 if kind == "atom" else _ATOMS_BY_LABEL.get(label, np.nan) for label, kind in zip(labels, kinds, strict=True)
    ]
    n_atoms = np.where([label == SUPPORT for label in labels], np.nan, _numbers(table, "n_atoms"))
    return Sites(
        positions_angstrom=np.stack([_numbers(table, "x_angstrom"), _numbers(table, "y_angstrom")], axis=1),
        label=np.array(labels, dtype=np.str_),
        probability=_probabilities(table, "probability"),
        label_probability=_probabilities(table, "species_probability"),
        n_atoms=n_atoms,
        n_atoms_probability=_probabilities(table, "n_atoms_probability"),
        atoms=np.where(np.isfinite(n_atoms), n_atoms, implied),
        view_angstrom=_view(header_of(table)),
    )


def mos2_sites_of(table: pa.Table) -> Sites:
    """The same for a table that tells the species of MoS2, or that has no rows.

    Raises:
        HrtemdError: It has rows but was made by a model that does not tell Mo from S.
    """
    sites = sites_of(table)
    if len(sites) and not sites.tells_species:
        raise HrtemdError(
            f"{describe(table)} does not tell Mo, S2, S and vacancies apart (its rows are "
            f"{', '.join(sorted(set(sites.label)))}); analyse a focal triplet with the model mos2-triplet."
        )
    return sites


def counted_sites_of(table: pa.Table) -> Sites:
    """The same for a table that tells the number of atoms in columns, or that has no rows.

    Raises:
        HrtemdError: It has rows but was made by a model that does not count.
    """
    sites = sites_of(table)
    if sites.in_specimen.any() and not sites.tells_heights:
        raise HrtemdError(
            f"{describe(table)} does not tell how many atoms its columns have; "
            "analyse a focal triplet with the model nanoparticle-triplet."
        )
    return sites


def describe(table: pa.Table) -> str:
    """Name a table for a sentence about it."""
    header = header_of(table)
    name = f"The atom table of {header['name']}" if header.get("name") else "The atom table"
    return f"{name} (model {header['model']})" if header.get("model") else name


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    # A null becomes NaN.
    return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)


def _probabilities(table: pa.Table, name: str) -> NDArray[np.float64]:
    # Sums of single precision may exceed 1 by a rounding.
    return np.clip(np.nan_to_num(_numbers(table, name), nan=1.0), 0, 1)


def _view(header: dict[str, Any]) -> NDArray[np.float64]:
    """A focal series is seen where all of its frames lie."""
    shape, pixel_size_angstrom = header.get("shape"), header.get("pixel_size_angstrom")
    if not shape or not pixel_size_angstrom:
        return np.array([[-np.inf, -np.inf], [np.inf, np.inf]])
    height, width = shape
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]) * pixel_size_angstrom
    drift = np.reshape((header.get("series") or {}).get("drift_angstrom") or [[0.0, 0.0]], (-1, 2))
    return np.stack(
        [(corners[0] - drift).max(axis=0) + BORDER_ANGSTROM, (corners[1] - drift).min(axis=0) - BORDER_ANGSTROM]
    )
