import json

import numpy as np
import pytest

from daemon.analysis import compare, summarise, summarise_change


def as_json(summary):
    """What comes back from a log; NaN is no JSON."""
    return json.loads(json.dumps(summary, allow_nan=False))


def test_a_sheet_in_numbers(table_of, sheet_of):
    positions, labels = sheet_of(50)
    labels[np.flatnonzero(labels == "S2")[:9]] = "S"

    summary = as_json(summarise(table_of(positions, labels, probability=0.9)))

    assert summary["sites"] == len(labels)
    assert summary["vacancies"] == summary["vacancies_single_sulphur"] == 9
    assert summary["vacancies_expected"] == pytest.approx(8.1)
    assert summary["vacancies_per_square_nm"] == pytest.approx(8.1 / summary["area_square_nm"])
    assert 1.8 < summary["sulphur_per_molybdenum"] < 2.2
    assert "atoms" not in summary


def test_a_particle_in_numbers(table_of, particle_of):
    positions, n_atoms = particle_of()

    summary = as_json(summarise(table_of(positions, [None] * len(positions), n_atoms=n_atoms)))

    assert (summary["columns"], summary["atoms"]) == (len(n_atoms), n_atoms.sum())
    assert "vacancies" not in summary


@pytest.mark.parametrize("labels", [[], ["C", "C"], ["Mo"], ["vacancy"], ["S2", "S"]], ids=str)
def test_every_table_has_a_summary(table_of, labels):
    summary = as_json(summarise(table_of(np.eye(2)[: len(labels)], labels)))

    assert summary["sites"] == len(labels)
    assert summary["area_square_nm"] == 0


def test_a_change_in_numbers(table_of, sheet_of):
    positions, labels = sheet_of(40)
    after = labels.copy()
    after[np.flatnonzero(labels == "S2")[:5]] = "S"

    change = compare(table_of(positions, labels), table_of(positions, after), dose_per_square_angstrom=100)
    summary = as_json(summarise_change(change))

    assert summary["sites_S2_to_S"] == summary["atoms_lost"] == 5
    assert summary["atoms_lost_per_dose"] == pytest.approx(0.05)
    assert summary["atoms_lost_per_second"] is None
    assert summary["sites_lost"] == 0
