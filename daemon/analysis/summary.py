"""What an operator wants to know of a table or a change, as flat numbers for logs, headers and limits."""

import math
from typing import Any

import pyarrow as pa

from daemon.analysis.area import covered_area_square_angstrom
from daemon.analysis.change import Change
from daemon.analysis.heights import column_heights
from daemon.analysis.quantities import Count, Measured
from daemon.analysis.sites import sites_of
from daemon.analysis.stoichiometry import measure_stoichiometry
from daemon.analysis.vacancies import count_vacancies


def summarise(table: pa.Table) -> dict[str, Any]:
    """Summarise one table: sites and area, then what its model tells.

    Returns:
        What JSON can hold, None for a number that the table cannot tell. `NAME_expected` and `NAME_standard_deviation`
        belong to the number `NAME`.
    """
    sites = sites_of(table)
    summary: dict[str, Any] = {
        "sites": len(sites),
        "area_square_nm": covered_area_square_angstrom(sites.positions_angstrom[sites.in_specimen]) / 100,
    }
    if sites.tells_species:
        vacancies = count_vacancies(table)
        summary |= _count("vacancies", vacancies.total)
        summary |= _count("vacancies_single_sulphur", vacancies.single_sulphur)
        summary |= _count("vacancies_double_sulphur", vacancies.double_sulphur)
        summary |= _count("vacancies_molybdenum", vacancies.molybdenum)
        summary |= _measured("vacancies_per_square_nm", vacancies.density_per_square_nm)
        summary |= _measured("sulphur_per_molybdenum", measure_stoichiometry(table).sulphur_per_molybdenum)
    if sites.tells_heights:
        heights = column_heights(table)
        summary |= {"columns": len(heights.n_atoms), **_count("atoms", heights.atoms)}
    return summary


def summarise_change(change: Change) -> dict[str, Any]:
    """Summarise a change in the same way; a transition is called `sites_S2_to_S`."""
    x, y = change.drift.drift_angstrom
    summary = {
        "seconds": change.seconds,
        "dose_per_square_angstrom": change.dose_per_square_angstrom,
        "drift_x_angstrom": x,
        "drift_y_angstrom": y,
        "drift_is_certain": change.drift.is_certain,
        **_count("sites_lost", change.sites_lost),
        **_count("sites_appeared", change.sites_appeared),
        **_count("columns_thinner", change.columns_thinner),
        **_count("columns_thicker", change.columns_thicker),
        **_measured("atoms_lost", change.atoms_lost),
        **_measured("atoms_lost_per_second", change.atoms_lost_per_second),
        **_measured("atoms_lost_per_dose", change.atoms_lost_per_dose),
    }
    for (was, became), count in change.transitions.items():
        summary |= _count(f"sites_{was}_to_{became}", count)
    return summary


def _count(name: str, count: Count) -> dict[str, Any]:
    return {
        name: count.found,
        f"{name}_expected": count.expected,
        f"{name}_standard_deviation": count.standard_deviation,
    }


def _measured(name: str, measured: Measured | None) -> dict[str, Any]:
    if measured is None or math.isnan(measured.value):
        return {name: None, f"{name}_standard_deviation": None}
    return {name: measured.value, f"{name}_standard_deviation": measured.standard_deviation}
