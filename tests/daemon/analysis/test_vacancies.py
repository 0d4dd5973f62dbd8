import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.analysis import Count, count_vacancies
from daemon.analysis.area import covered_area_square_angstrom
from daemon.errors import HrtemdError

AREA_OF_SITE = 3.18**2 * math.sqrt(0.75) / 2


def innermost(positions, labels, label, how_many, skip=0):
    """Sites of a label in order from the middle, every fourth of them, so that they are no neighbours."""
    sites = np.flatnonzero(labels == label)
    ranked = sites[np.argsort(np.hypot(*(positions[sites] - positions.mean(axis=0)).T))]
    return ranked[skip::4][:how_many]


def test_vacancies_of_each_kind_are_counted(table_of, sheet_of):
    positions, labels = sheet_of(60)
    molybdenum, sulphur = (labels == "Mo").sum(), (labels == "S2").sum()
    single = innermost(positions, labels, "S2", 7)
    double = innermost(positions, labels, "S2", 3, skip=1)
    metal = innermost(positions, labels, "Mo", 2)
    labels[single], labels[double], labels[metal] = "S", "vacancy", "vacancy"

    vacancies = count_vacancies(table_of(positions, labels))

    assert vacancies.single_sulphur == Count(7, 7.0, 0.0)
    assert vacancies.double_sulphur.found == 3
    assert vacancies.molybdenum.found == 2
    assert vacancies.unassigned.found == 0
    assert vacancies.total.found == 12
    assert (vacancies.sulphur_sites, vacancies.molybdenum_sites) == (sulphur, molybdenum)
    assert vacancies.single_sulphur_per_site.value == pytest.approx(7 / sulphur)
    assert vacancies.molybdenum_per_site.value == pytest.approx(2 / molybdenum)
    assert vacancies.density_per_square_nm.value == pytest.approx(12 / (len(labels) * AREA_OF_SITE / 100), rel=0.03)


def test_a_vacancy_beside_another_keeps_its_sublattice(table_of, sheet_of):
    positions, labels = sheet_of(30)
    metal = innermost(positions, labels, "Mo", 1)[0]
    neighbour = np.argsort(np.hypot(*(positions - positions[metal]).T))[1]
    assert labels[neighbour] == "S2"
    labels[[metal, neighbour]] = "vacancy"

    vacancies = count_vacancies(table_of(positions, labels))

    assert (vacancies.molybdenum.found, vacancies.double_sulphur.found) == (1, 1)


def test_a_substituted_site_is_a_site_but_no_vacancy(table_of, sheet_of):
    positions, labels = sheet_of(30)
    sulphur = (labels == "S2").sum()
    labels[innermost(positions, labels, "S2", 1)] = "substitution"

    vacancies = count_vacancies(table_of(positions, labels))

    assert vacancies.total.found == 0
    assert vacancies.sulphur_sites == sulphur


def test_a_vacancy_without_neighbours_is_on_no_sublattice(table_of):
    vacancies = count_vacancies(table_of(np.array([[5.0, 5.0], [50.0, 50.0]]), ["vacancy", "Mo"]))

    assert vacancies.unassigned.found == 1
    assert math.isnan(vacancies.density_per_square_nm.value)  # two sites are no sheet


def test_holes_and_vacuum_do_not_count(table_of, sheet_of):
    positions, labels = sheet_of(80)
    kept = (np.hypot(*(positions - [45, 40]).T) > 12) & (positions[:, 0] > 20)
    lost = table_of(np.array([[2.0, 2.0], [6.0, 70.0]]), ["Mo", "S2"])  # mistaken for atoms in vacuum

    alone = count_vacancies(table_of(positions[kept], labels[kept]))
    assert alone.area_square_nm * 100 == pytest.approx(kept.sum() * AREA_OF_SITE, rel=0.03)

    stray = np.concatenate([positions[kept], np.stack([lost["x_angstrom"], lost["y_angstrom"]], axis=1)])
    with_stray = count_vacancies(table_of(stray, [*labels[kept], "Mo", "S2"]))
    assert with_stray.area_square_nm == pytest.approx(alone.area_square_nm)


@pytest.mark.parametrize("side_angstrom", [15, 40, 100])
def test_every_site_covers_its_share_of_the_cell(sheet_of, side_angstrom):
    positions, _ = sheet_of(side_angstrom)
    noisy = positions + np.random.default_rng(0).normal(0, 0.15, positions.shape)

    for sites in (positions, noisy):
        assert covered_area_square_angstrom(sites) == pytest.approx(len(sites) * AREA_OF_SITE, rel=0.04)


@pytest.mark.parametrize(
    "positions",
    [np.zeros((0, 2)), np.ones((1, 2)), np.eye(2), np.ones((9, 2)), np.arange(20).reshape(10, 2) * 1.5],
    ids=["none", "one", "two", "all at one point", "all on a line"],
)
def test_sites_that_span_nothing_cover_nothing(positions):
    assert covered_area_square_angstrom(positions.astype(float)) == 0


def test_the_expected_count_is_that_of_a_calibrated_model(table_of, sheet_of):
    rng = np.random.default_rng(0)
    positions, labels = sheet_of(60)
    labels[labels == "S2"] = "S"
    probability, label_probability = rng.uniform(0.5, 1, len(labels)), rng.uniform(0.5, 1, len(labels))
    table = table_of(positions, labels, probability=probability, label_probability=label_probability)

    count = count_vacancies(table).single_sulphur

    right = (probability * label_probability)[labels == "S"]
    true_numbers = (rng.random((20_000, len(right))) < right).sum(axis=1)
    assert count.found == len(right)
    assert count.expected == pytest.approx(true_numbers.mean(), rel=0.01)
    assert count.standard_deviation == pytest.approx(true_numbers.std(), rel=0.05)
    assert count.per(0).value is not None
    assert math.isnan(count.per(0).value)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    st.floats(0, 2 * math.pi),
)
def test_where_and_in_which_order_sites_stand_does_not_matter(table_of, sheet_of, seed, shift, angle):
    rng = np.random.default_rng(seed)
    positions, labels = sheet_of(25)
    positions = positions + rng.normal(0, 0.1, positions.shape)
    labels = np.where(rng.random(len(labels)) < 0.1, "vacancy", labels)
    labels = np.where((labels == "S2") & (rng.random(len(labels)) < 0.1), "S", labels)
    kept = rng.random(len(labels)) < 0.9
    positions, labels = positions[kept], labels[kept]
    order = rng.permutation(len(labels))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    one = count_vacancies(table_of(positions, labels))
    other = count_vacancies(table_of((positions @ turn + shift)[order], labels[order]))

    assert (one.single_sulphur, one.sulphur_sites) == (other.single_sulphur, other.sulphur_sites)
    assert (one.double_sulphur, one.molybdenum, one.unassigned) == (
        other.double_sulphur,
        other.molybdenum,
        other.unassigned,
    )
    # Positions are kept in single precision; a triangle of just the largest gap may fall either way.
    assert one.area_square_nm == pytest.approx(other.area_square_nm, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_two_parts_of_a_table_add_up_to_the_whole(table_of, sheet_of, seed):
    rng = np.random.default_rng(seed)
    positions, labels = sheet_of(25)
    labels = np.where((labels == "S2") & (rng.random(len(labels)) < 0.3), "S", labels)
    table = table_of(positions, labels, probability=rng.random(len(labels)))
    part = rng.random(len(labels)) < 0.5

    whole = count_vacancies(table).single_sulphur
    parts = count_vacancies(table.filter(part)).single_sulphur + count_vacancies(table.filter(~part)).single_sulphur

    assert parts.found == whole.found
    assert parts.expected == pytest.approx(whole.expected)
    assert parts.standard_deviation == pytest.approx(whole.standard_deviation)


def test_a_table_without_rows_has_no_vacancies(table_of):
    vacancies = count_vacancies(table_of(np.zeros((0, 2)), []))

    assert vacancies.total == Count(0, 0.0, 0.0)
    assert vacancies.area_square_nm == 0
    assert math.isnan(vacancies.single_sulphur_per_site.value)


@pytest.mark.parametrize(("label", "said"), [("C", "C"), (None, "column")])
def test_a_model_without_species_is_named_and_the_right_one_too(table_of, label, said):
    table = table_of(np.eye(2), [label, label], name="frame", model="graphene")

    with pytest.raises(HrtemdError, match=rf"frame \(model graphene\).*its rows are {said}\).*mos2-triplet"):
        count_vacancies(table)
