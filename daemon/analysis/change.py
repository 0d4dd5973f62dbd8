"""What happened to one area between two atom tables."""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.analysis.drift import Drift, estimate_drift
from daemon.analysis.matching import Matching, match
from daemon.analysis.quantities import Count, Measured
from daemon.analysis.sites import Sites, describe, sites_of
from daemon.atoms import header_of
from daemon.errors import HrtemdError


@dataclass(frozen=True)
class Change:
    """From an earlier table to a later one, where both frames looked.

    A change is expected as often as both tables are right about the site: an error of recognition is a change that is
    found, but hardly expected.

    Attributes:
        drift: Of the specimen from the one to the other; taken off before sites are matched.
        matching: Which row of the one table is which row of the other.
        sites_lost: Sites of the earlier table without a partner.
        sites_appeared: Sites of the later table without a partner.
        transitions: Sites that changed, by what they were and what they became, such as ("S2", "S").
        height_change: Shape (k,), atoms that the column of each pair of `matching` gained, NaN where untold.
        columns_thinner: Columns that lost atoms but are still there.
        columns_thicker: Columns that gained atoms.
        atoms_before: In the common part of the earlier table; NaN where the tables hold columns nobody counted.
        atoms_lost: Atoms before less atoms after, negative where they grew more.
        seconds: From the one acquisition to the other, None where a header does not tell.
        dose_per_square_angstrom: Electrons that fell from the one to the other, None where nobody tells.
    """

    drift: Drift
    matching: Matching
    sites_lost: Count
    sites_appeared: Count
    transitions: dict[tuple[str, str], Count]
    height_change: NDArray[np.float64]
    columns_thinner: Count
    columns_thicker: Count
    atoms_before: Measured
    atoms_lost: Measured
    seconds: float | None
    dose_per_square_angstrom: float | None

    @property
    def atoms_lost_per_second(self) -> Measured | None:
        """None where the time is not known."""
        return _per(self.atoms_lost, self.seconds)

    @property
    def atoms_lost_per_dose(self) -> Measured | None:
        """Atoms for each e/Å²; None where the dose is not known."""
        return _per(self.atoms_lost, self.dose_per_square_angstrom)


def compare(
    before: pa.Table,
    after: pa.Table,
    *,
    drift_angstrom: tuple[float, float] | None = None,
    dose_per_square_angstrom: float | None = None,
) -> Change:
    """Compare two tables of one area, of the same kind of model; their pixel sizes may differ.

    Args:
        before: The earlier table.
        after: The later one.
        drift_angstrom: Where the point (0, 0) of the earlier frame stands in the later one; None to find it from the
            sites.
        dose_per_square_angstrom: Electrons that fell on the area between them. Where it is not given, and both headers
            tell the dose of their whole exposure, it is the mean of the two: from the middle of the one to the middle
            of the other.

    Raises:
        HrtemdError: One table tells species or heights and the other does not, they have too few sites in common, or
            the later one was acquired first.
    """
    earlier, later = sites_of(before), sites_of(after)
    _check_alike(before, earlier, after, later)
    drift = estimate_drift(earlier, later) if drift_angstrom is None else Drift(drift_angstrom, is_certain=True)
    matching = match(earlier, later, np.array(drift.drift_angstrom))
    was, became = matching.pairs.T
    height_change = later.n_atoms[became] - earlier.n_atoms[was]
    heights_are_right = earlier.height_is_right[was] * later.height_is_right[became]
    atoms_before = earlier.expected_atoms(np.concatenate([was, matching.lost]))
    atoms_after = later.expected_atoms(np.concatenate([became, matching.appeared]))
    return Change(
        drift=drift,
        matching=matching,
        sites_lost=Count.of_sites(earlier.label_is_right[matching.lost]),
        sites_appeared=Count.of_sites(later.label_is_right[matching.appeared]),
        transitions=_transitions(earlier, later, matching),
        height_change=height_change,
        columns_thinner=Count.of_sites(heights_are_right[height_change < 0]),
        columns_thicker=Count.of_sites(heights_are_right[height_change > 0]),
        atoms_before=atoms_before,
        atoms_lost=Measured(
            atoms_before.value - atoms_after.value,
            math.hypot(atoms_before.standard_deviation, atoms_after.standard_deviation),
        ),
        seconds=_seconds_between(before, after),
        dose_per_square_angstrom=dose_per_square_angstrom or _dose_between(before, after),
    )


def _check_alike(before: pa.Table, earlier: Sites, after: pa.Table, later: Sites) -> None:
    if not len(earlier) or not len(later):
        return
    for what, one, other in (
        ("species of MoS2", earlier.tells_species, later.tells_species),
        ("number of atoms in columns", earlier.tells_heights, later.tells_heights),
    ):
        if one != other:
            knowing, ignorant = (before, after) if one else (after, before)
            raise HrtemdError(
                f"{describe(knowing)} tells the {what} and {describe(ignorant)} does not; "
                "analyse both with the same model before comparing them."
            )


def _transitions(earlier: Sites, later: Sites, matching: Matching) -> dict[tuple[str, str], Count]:
    was, became = matching.pairs.T
    labels = np.stack([earlier.label[was], later.label[became]], axis=1)
    both_are_right = earlier.label_is_right[was] * later.label_is_right[became]
    changed = labels[:, 0] != labels[:, 1]
    return {
        (str(old), str(new)): Count.of_sites(both_are_right[(labels == (old, new)).all(axis=1)])
        for old, new in np.unique(labels[changed], axis=0)
    }


def _seconds_between(before: pa.Table, after: pa.Table) -> float | None:
    start, end = (header_of(table).get("acquired_at") for table in (before, after))
    if not start or not end:
        return None
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    if seconds < 0:
        raise HrtemdError(
            f"{describe(after)} was acquired {-seconds:g} s before {describe(before)}; give the earlier one first."
        )
    return seconds


def _dose_between(before: pa.Table, after: pa.Table) -> float | None:
    first, second = (header_of(table).get("dose_per_square_angstrom") for table in (before, after))
    return (first + second) / 2 if first and second else None


def _per(quantity: Measured, amount: float | None) -> Measured | None:
    return Measured(quantity.value / amount, quantity.standard_deviation / amount) if amount else None
