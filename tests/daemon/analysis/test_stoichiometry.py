import math

import numpy as np
import pytest

from daemon.analysis import Measured, measure_stoichiometry
from daemon.errors import HrtemdError


def test_sulphur_per_molybdenum(table_of, sheet_of):
    positions, labels = sheet_of(50)
    metals = (labels == "Mo").sum()
    sulphur = np.flatnonzero(labels == "S2")
    labels[sulphur[:6]], labels[sulphur[6:8]], labels[sulphur[8]] = "S", "vacancy", "substitution"

    stoichiometry = measure_stoichiometry(table_of(positions, labels))

    assert stoichiometry.sulphur_atoms == Measured(2 * len(sulphur) - 6 - 2 * 3, 0)
    assert stoichiometry.molybdenum_atoms == Measured(metals, 0)
    assert stoichiometry.sulphur_per_molybdenum.value == pytest.approx((2 * len(sulphur) - 12) / metals)


def test_the_uncertainty_is_the_spread_of_what_may_be_true(table_of, sheet_of):
    rng = np.random.default_rng(0)
    positions, labels = sheet_of(50)
    labels = np.where((labels == "S2") & (rng.random(len(labels)) < 0.3), "S", labels)
    there, right = rng.uniform(0.8, 1, len(labels)), rng.uniform(0.8, 1, len(labels))
    table = table_of(positions, labels, probability=there, label_probability=right)

    measured = measure_stoichiometry(table).sulphur_per_molybdenum

    said = np.where(labels == "S2", 2, 1)
    shape = (4000, len(labels))
    off_by_one = np.where(rng.random(shape) < right, 0, rng.choice([-1, 1], shape))
    true = np.where(rng.random(shape) < there, said + off_by_one, 0)
    ratios = true[:, labels != "Mo"].sum(axis=1) / true[:, labels == "Mo"].sum(axis=1)
    assert measured.value == pytest.approx(ratios.mean(), rel=0.01)
    assert measured.standard_deviation == pytest.approx(ratios.std(), rel=0.05)


def test_without_molybdenum_there_is_no_ratio(table_of):
    for labels in ([], ["S2", "S"]):
        measured = measure_stoichiometry(table_of(np.eye(2)[: len(labels)], labels)).sulphur_per_molybdenum
        assert math.isnan(measured.value)
        assert math.isnan(measured.standard_deviation)


def test_a_model_without_species_is_an_error(table_of):
    with pytest.raises(HrtemdError, match="analyse a focal triplet with the model mos2-triplet"):
        measure_stoichiometry(table_of(np.eye(2), ["C", "C"], kind="atom"))
