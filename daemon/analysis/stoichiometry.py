"""How much sulphur a MoS2 sheet has for its molybdenum."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from daemon.analysis.quantities import Measured
from daemon.analysis.sites import SULPHUR_SPECIES, mos2_sites_of


@dataclass(frozen=True)
class Stoichiometry:
    """Atoms by element; substitutions, whose element the model does not tell, are in neither.

    Attributes:
        sulphur_atoms: Two at a site called `S2`, one at a site called `S`.
        molybdenum_atoms: One at a site called `Mo`.
    """

    sulphur_atoms: Measured
    molybdenum_atoms: Measured

    @property
    def sulphur_per_molybdenum(self) -> Measured:
        """2 in a perfect sheet, NaN where there is no molybdenum."""
        sulphur, molybdenum = self.sulphur_atoms, self.molybdenum_atoms
        if not molybdenum.value > 0:
            return Measured(math.nan, math.nan)
        ratio = sulphur.value / molybdenum.value
        # They stand on different sites, so that their errors are independent.
        spread = math.hypot(sulphur.standard_deviation, ratio * molybdenum.standard_deviation)
        return Measured(ratio, spread / molybdenum.value)


def measure_stoichiometry(table: pa.Table) -> Stoichiometry:
    """Count the atoms of each element in a table of `mos2-triplet`.

    Raises:
        HrtemdError: The table's model does not tell species.
    """
    sites = mos2_sites_of(table)
    return Stoichiometry(
        sulphur_atoms=sites.expected_atoms(np.isin(sites.label, SULPHUR_SPECIES)),
        molybdenum_atoms=sites.expected_atoms(sites.label == "Mo"),
    )
