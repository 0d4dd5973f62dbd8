"""Vacancies of a MoS2 sheet: how many, of which kind, how dense."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.analysis.area import covered_area_square_angstrom
from daemon.analysis.quantities import Count, Measured
from daemon.analysis.sites import SULPHUR_SPECIES, Sites, mos2_sites_of
from daemon.atoms import VACANCY

NEIGHBOUR_REACH_ANGSTROM = 2.5
"""Half way between neighbours of the other sub-lattice, at 1.84 Å, and of the same, at 3.18 Å."""


@dataclass(frozen=True)
class Vacancies:
    """The vacancies of one table, and what to divide them by.

    Attributes:
        single_sulphur: Sites where one of two sulphur atoms is missing (species `S`).
        double_sulphur: Sites where both are missing.
        molybdenum: Sites where the molybdenum atom is missing.
        unassigned: Empty sites whose neighbours do not tell to which sub-lattice they belong.
        sulphur_sites: Sites of the sulphur sub-lattice, empty and substituted ones included.
        molybdenum_sites: The same of the other sub-lattice.
        area_square_nm: What the sheet covers; neither holes nor vacuum.
    """

    single_sulphur: Count
    double_sulphur: Count
    molybdenum: Count
    unassigned: Count
    sulphur_sites: int
    molybdenum_sites: int
    area_square_nm: float

    @property
    def total(self) -> Count:
        """All of them; a site where two atoms are missing is one vacancy."""
        return self.single_sulphur + self.double_sulphur + self.molybdenum + self.unassigned

    @property
    def density_per_square_nm(self) -> Measured:
        """Of all vacancies; NaN where there is no sheet."""
        return self.total.per(self.area_square_nm)

    @property
    def single_sulphur_per_site(self) -> Measured:
        """Share of the sulphur sites that lack one atom."""
        return self.single_sulphur.per(self.sulphur_sites)

    @property
    def double_sulphur_per_site(self) -> Measured:
        """Share of the sulphur sites that lack both atoms."""
        return self.double_sulphur.per(self.sulphur_sites)

    @property
    def molybdenum_per_site(self) -> Measured:
        """Share of the molybdenum sites that are empty."""
        return self.molybdenum.per(self.molybdenum_sites)


def count_vacancies(table: pa.Table) -> Vacancies:
    """Count the vacancies of a table of `mos2-triplet`.

    Raises:
        HrtemdError: The table's model does not tell species.
    """
    sites = mos2_sites_of(table)
    sublattice = sublattices(sites)
    empty = sites.label == VACANCY

    def count(chosen: NDArray[np.bool_]) -> Count:
        return Count.of_sites(sites.label_is_right[chosen])

    return Vacancies(
        single_sulphur=count(sites.label == "S"),
        double_sulphur=count(empty & (sublattice == "S")),
        molybdenum=count(empty & (sublattice == "Mo")),
        unassigned=count(empty & (sublattice == "")),
        sulphur_sites=int((sublattice == "S").sum()),
        molybdenum_sites=int((sublattice == "Mo").sum()),
        area_square_nm=covered_area_square_angstrom(sites.positions_angstrom) / 100,
    )


def sublattices(sites: Sites) -> NDArray[np.str_]:
    """Shape (n,), `S`, `Mo`, or nothing where it cannot be told, for each site of a MoS2 sheet.

    An atom stands on the sub-lattice of its element. An empty or substituted site stands on the one that most of its
    neighbours do not belong to.
    """
    is_sulphur = np.isin(sites.label, SULPHUR_SPECIES)
    is_molybdenum = sites.label == "Mo"
    sublattice = np.where(is_sulphur, "S", np.where(is_molybdenum, "Mo", "")).astype("<U2")
    others = np.flatnonzero(sublattice == "")
    if len(others):
        tree = cKDTree(sites.positions_angstrom)
        for site, near in zip(others, tree.query_ball_point(tree.data[others], NEIGHBOUR_REACH_ANGSTROM), strict=True):
            surplus = int(is_sulphur[near].sum()) - int(is_molybdenum[near].sum())
            sublattice[site] = "Mo" if surplus > 0 else "S" if surplus < 0 else ""
    return sublattice
