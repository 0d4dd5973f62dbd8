"""What every specimen generator returns: a structure whose labels follow its atoms."""

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


@dataclass(frozen=True)
class Specimen:
    """A structure and the sites a network must find in it.

    A site is one atom of a sheet or one atomic column of a crystal. It has no position of its own: it stands at the
    mean of its atoms, so that thermal displacements move the label with the atoms and labels are exact. Only a vacancy,
    a site without atoms, stands where the lattice says.

    Attributes:
        atoms: The structure in an orthogonal cell (Å), beam along +z, every atom inside the cell. The cell is
            periodic in x and y only where the specimen is; otherwise there is vacuum at its edges.
        site_of_atom: Shape (atoms,), the index of the site each atom belongs to, -1 for an atom of no site
            (contamination, film, a column that is not labelled).
        site_species: One name a site: `C`, `Au`, ..., `support` for a column of an oxide.
            Vacancies come last.
        site_ignored: Shape (sites,), true where a right answer is neither "something" nor "nothing": an atom half
            hidden under contamination, a pure oxygen column.
        vacant_positions: Shape (vacancies, 2), x and y in Å of the last sites, which no atom belongs to.
    """

    atoms: Atoms
    site_of_atom: NDArray[np.int32]
    site_species: tuple[str, ...]
    site_ignored: NDArray[np.bool_]
    vacant_positions: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    def __post_init__(self) -> None:
        if len(self.site_of_atom) != len(self.atoms):
            raise ValueError(f"{len(self.site_of_atom)} site indices for {len(self.atoms)} atoms")
        if len(self.site_ignored) != len(self.site_species):
            raise ValueError(f"{len(self.site_ignored)} flags for {len(self.site_species)} sites")
        if self.site_atom_counts[len(self.site_species) - len(self.vacant_positions) :].any():
            raise ValueError("atoms on the last sites, which are vacant")

    @property
    def site_atom_counts(self) -> NDArray[np.int64]:
        """Shape (sites,), the number of atoms in each site."""
        labelled = self.site_of_atom[self.site_of_atom >= 0]
        return np.bincount(labelled, minlength=len(self.site_species))

    def site_positions(self) -> NDArray[np.float64]:
        """Shape (sites, 2), x and y of each site in Å."""
        labelled = self.site_of_atom >= 0
        sites = self.site_of_atom[labelled]
        occupied = len(self.site_species) - len(self.vacant_positions)
        sums = [np.bincount(sites, axis, occupied) for axis in self.atoms.positions[labelled, :2].T]
        means = np.stack(sums, axis=1) / self.site_atom_counts[:occupied, None]
        return np.concatenate([means, self.vacant_positions])

    def site_smears(self) -> NDArray[np.float64]:
        """Shape (sites, 2): along x and y in Å, from the first to the last of its atoms, how far tilt smears a column.

        Of a site of fewer than two atoms it is NaN.
        """
        labelled = self.site_of_atom >= 0
        sites, count = self.site_of_atom[labelled], len(self.site_species)
        x, y, z = self.atoms.positions[labelled].T
        atoms = np.bincount(sites, minlength=count)
        lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(lowest, sites, z)
        np.maximum.at(highest, sites, z)
        with np.errstate(invalid="ignore", divide="ignore"):
            depth = z - (np.bincount(sites, z, count) / atoms)[sites]
            # The slope of a straight line through the atoms, times their extent.
            slopes = [np.bincount(sites, depth * axis, count) / np.bincount(sites, depth**2, count) for axis in (x, y)]
            smears = np.stack(slopes, axis=1) * (highest - lowest)[:, None]
        smears[atoms < 2] = np.nan
        return np.asarray(smears)
