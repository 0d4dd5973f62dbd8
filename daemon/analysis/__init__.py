"""What an operator asks of atom tables: vacancies, stoichiometry, heights, and how they change."""

from daemon.analysis.change import Change, compare
from daemon.analysis.drift import Drift
from daemon.analysis.heights import HeightMap, Heights, column_heights, height_map
from daemon.analysis.quantities import Count, Measured
from daemon.analysis.stoichiometry import Stoichiometry, measure_stoichiometry
from daemon.analysis.summary import summarise, summarise_change
from daemon.analysis.vacancies import Vacancies, count_vacancies

__all__ = [
    "Change",
    "Count",
    "Drift",
    "HeightMap",
    "Heights",
    "Measured",
    "Stoichiometry",
    "Vacancies",
    "column_heights",
    "compare",
    "count_vacancies",
    "height_map",
    "measure_stoichiometry",
    "summarise",
    "summarise_change",
]
