import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.analysis import Count, compare, summarise_change
from daemon.errors import HrtemdError

seeds = st.integers(0, 2**32 - 1)


def with_vacancies(labels, share, rng):
    """Labels in which this share of the double sulphur sites lacks one atom."""
    return np.where((labels == "S2") & (rng.random(len(labels)) < share), "S", labels)


def test_what_became_of_each_site(table_of, sheet_of):
    rng = np.random.default_rng(0)
    positions, before = sheet_of(40)
    before = with_vacancies(before, 0.1, rng)
    after = before.copy()
    double, single = np.flatnonzero(before == "S2"), np.flatnonzero(before == "S")
    after[double[:4]], after[single[:3]], after[single[3]] = "S", "vacancy", "S2"
    gone = np.flatnonzero(before == "Mo")[:2]
    kept = np.delete(np.arange(len(before)), gone)

    change = compare(table_of(positions, before), table_of((positions + [1.1, -0.7])[kept], after[kept]))

    assert change.drift.is_certain
    assert change.drift.drift_angstrom == pytest.approx((1.1, -0.7), abs=1e-3)
    assert {key: count.found for key, count in change.transitions.items()} == {
        ("S2", "S"): 4,
        ("S", "vacancy"): 3,
        ("S", "S2"): 1,
    }
    assert change.matching.lost.tolist() == gone.tolist()
    assert change.sites_lost == Count(2, 2.0, 0.0)
    assert change.sites_appeared.found == 0
    assert change.atoms_lost.value == 4 + 3 - 1 + 2


def test_one_site_becomes_only_one_site(table_of):
    """Where an atom was, two are found: the nearer one is it, the other one is new; and the other way round."""
    one, two = table_of(np.array([[5.0, 5.0]]), ["Mo"]), table_of(np.array([[5.3, 5.0], [4.9, 5.0]]), ["Mo", "Mo"])

    split, merged = compare(one, two, drift_angstrom=(0, 0)), compare(two, one, drift_angstrom=(0, 0))

    assert (split.matching.pairs.tolist(), split.matching.appeared.tolist()) == ([[0, 1]], [0])
    assert (merged.matching.pairs.tolist(), merged.matching.lost.tolist()) == ([[1, 0]], [0])


@pytest.mark.parametrize(("moved_angstrom", "pairs"), [(0.499, 1), (0.501, 0)])
def test_a_site_may_move_by_half_an_angstrom(table_of, moved_angstrom, pairs):
    before, after = (table_of(np.array([[5.0 + x, 5.0]]), ["Mo"]) for x in (0, moved_angstrom))

    assert len(compare(before, after, drift_angstrom=(0, 0)).matching.pairs) == pairs


def test_columns_that_changed_height(table_of, particle_of):
    positions, before = particle_of()
    after = before.copy()
    after[3] -= 2
    after[10:13] += 1
    species = [None] * len(positions)
    first = table_of(positions, species, n_atoms=before, n_atoms_probability=0.9)
    second = table_of(positions + [0.4, 2.0], species, n_atoms=after, n_atoms_probability=0.8)

    change = compare(first, second)

    assert change.drift.drift_angstrom == pytest.approx((0.4, 2.0), abs=1e-3)
    by_column = dict(zip(change.matching.pairs[:, 0].tolist(), change.height_change.tolist(), strict=True))
    assert {column: n for column, n in by_column.items() if n} == {3: -2, 10: 1, 11: 1, 12: 1}
    assert (change.columns_thinner.found, change.columns_thicker.found) == (1, 3)
    assert change.columns_thicker.expected == pytest.approx(3 * 0.9 * 0.8)
    assert change.atoms_lost.value == pytest.approx(2 - 3)
    assert change.atoms_before.value == before.sum()
    assert change.transitions == {}


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0, 4), st.floats(0, 2 * math.pi))
def test_drift_order_and_losses_are_told_apart(table_of, particle_of, seed, drift, direction):
    """Whatever of a particle is lost, wherever it moved, in whatever order the rows come: exactly that is reported."""
    rng = np.random.default_rng(seed)
    positions, n_atoms = particle_of()
    shift = drift * np.array([math.cos(direction), math.sin(direction)])
    kept = rng.permutation(np.flatnonzero(rng.random(len(positions)) < 0.9))

    change = compare(
        table_of(positions, [None] * len(positions), n_atoms=n_atoms),
        table_of((positions + shift)[kept], [None] * len(kept), n_atoms=n_atoms[kept]),
    )

    assert change.drift.drift_angstrom == pytest.approx(shift, abs=1e-3)
    assert kept[change.matching.pairs[:, 1]].tolist() == change.matching.pairs[:, 0].tolist()
    assert sorted([*kept, *change.matching.lost]) == list(range(len(positions)))
    assert change.sites_appeared.found == 0
    assert not change.height_change.any()
    assert change.atoms_lost.value == n_atoms.sum() - n_atoms[kept].sum()


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0, 3), st.floats(0, 2 * math.pi))
def test_what_leaves_the_frame_is_not_lost(table_of, sheet_of, seed, drift, direction):
    rng = np.random.default_rng(seed)
    shift = drift * np.array([math.cos(direction), math.sin(direction)])
    wide, labels = sheet_of(60)
    labels = with_vacancies(labels, 0.15, rng)

    def frame(offset):
        positions = wide - 10 + offset
        inside = ((positions > 0) & (positions < 40)).all(axis=1)
        noise = rng.normal(0, 0.05, positions.shape)
        return table_of((positions + noise)[inside], labels[inside], shape=[200, 200])

    change = compare(frame(0), frame(shift))

    assert change.drift.is_certain
    assert change.drift.drift_angstrom == pytest.approx(shift, abs=0.05)
    assert (change.sites_lost.found, change.sites_appeared.found, change.transitions) == (0, 0, {})
    assert len(change.matching.pairs) > 150


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_series_is_compared_where_all_its_frames_lie(table_of, sheet_of, axis, direction):
    positions, labels = sheet_of(40)
    drift = np.zeros((3, 2))
    drift[1, axis] = 8 * direction
    along = positions[:, axis] * direction
    seen = along < along.max() - 8  # what moved out of the second member was not found

    before = table_of(positions, labels, shape=[200, 200])
    after = table_of(positions[seen], labels[seen], shape=[200, 200], series={"drift_angstrom": drift.tolist()})

    change = compare(before, after, drift_angstrom=(0, 0))
    assert change.sites_lost.found == 0
    assert len(change.matching.pairs) > 150


def test_a_few_sites_tell_their_drift_too(table_of):
    """That one of them comes to stand near where another was speaks for a smaller drift, but not as loudly."""
    positions = np.array([[5.0, 5.0], [8.0, 5.0], [6.0, 12.0]])

    change = compare(table_of(positions, ["Mo"] * 3), table_of(positions + [-2.5, 0.0], ["Mo"] * 3))

    assert change.drift.drift_angstrom == pytest.approx((-2.5, 0.0), abs=1e-3)
    assert len(change.matching.pairs) == 3


def test_a_perfect_lattice_does_not_tell_its_drift(table_of, sheet_of):
    positions, labels = sheet_of(40)
    table = table_of(positions, labels, shape=[200, 200])

    change = compare(table, table)

    assert not change.drift.is_certain
    assert change.drift.drift_angstrom == (0, 0)  # the smallest that fits
    assert change.sites_lost.found == change.sites_appeared.found == 0


def test_a_given_drift_is_taken(table_of, sheet_of):
    positions, labels = sheet_of(40)
    labels = with_vacancies(labels, 0.1, np.random.default_rng(0))
    before, after = table_of(positions, labels), table_of(positions + [17.0, -30.0], labels)

    change = compare(before, after, drift_angstrom=(17.2, -30.1))

    assert change.drift.drift_angstrom == (17.2, -30.1)
    assert len(change.matching.pairs) == len(labels)


def test_pixel_sizes_may_differ(table_of, sheet_of):
    positions, labels = sheet_of(40)
    labels = with_vacancies(labels, 0.1, np.random.default_rng(0))
    coarse = table_of(positions, labels, pixel_size_angstrom=0.25, shape=[160, 160])
    fine = table_of(positions, labels, pixel_size_angstrom=0.1, shape=[400, 400])

    change = compare(coarse, fine)

    assert change.drift.drift_angstrom == pytest.approx((0, 0), abs=1e-6)
    assert change.sites_lost.found == change.sites_appeared.found == 0


def test_doubtful_sites_make_doubtful_changes(table_of, sheet_of):
    positions, labels = sheet_of(40)
    after = labels.copy()
    changed = np.flatnonzero(labels == "S2")[:10]
    after[changed] = "S"
    sure = np.where(np.isin(np.arange(len(labels)), changed), 0.6, 1.0)

    change = compare(
        table_of(positions, labels), table_of(positions, after, label_probability=sure), drift_angstrom=(0, 0)
    )

    transition = change.transitions["S2", "S"]
    assert transition.found == 10
    assert transition.expected == pytest.approx(6)
    assert transition.standard_deviation == pytest.approx(math.sqrt(10 * 0.6 * 0.4))
    # Each of the ten may after all be what it was.
    assert change.atoms_lost.value == 10
    assert change.atoms_lost.standard_deviation == pytest.approx(math.sqrt(10 * 0.4))


def test_rates_per_time_and_dose(table_of, sheet_of):
    positions, labels = sheet_of(40)
    before = table_of(positions, labels, acquired_at="2026-11-22T10:00:00+00:00")
    after = table_of(positions[6:], labels[6:], acquired_at="2026-11-22T10:00:04+00:00")
    lost = (labels[:6] == "Mo").sum() + 2 * (labels[:6] == "S2").sum()

    change = compare(before, after, drift_angstrom=(0, 0), dose_per_square_angstrom=3000)

    assert change.seconds == 4
    assert change.atoms_lost_per_second.value == pytest.approx(lost / 4)
    assert change.atoms_lost_per_dose.value == pytest.approx(lost / 3000)


def test_the_dose_of_the_headers_counts_from_middle_to_middle(table_of, sheet_of):
    positions, labels = sheet_of(20)
    before = table_of(positions, labels, dose_per_square_angstrom=1000)
    after = table_of(positions, labels, dose_per_square_angstrom=3000)

    assert compare(before, after).dose_per_square_angstrom == 2000


def test_rates_are_unknown_where_nobody_tells(table_of, sheet_of):
    table = table_of(*sheet_of(20))
    change = compare(table, table)

    assert (change.seconds, change.dose_per_square_angstrom) == (None, None)
    assert (change.atoms_lost_per_second, change.atoms_lost_per_dose) == (None, None)


def test_atoms_of_a_single_frame_model_are_counted_too(table_of, sheet_of):
    positions, _ = sheet_of(40)
    carbon = ["C"] * len(positions)

    change = compare(
        table_of(positions, carbon, kind="atom"),
        table_of(positions[5:], carbon[5:], kind="atom"),
        drift_angstrom=(0, 0),
    )

    assert change.atoms_lost.value == 5


def test_columns_nobody_counted_hold_an_unknown_number_of_atoms(table_of, particle_of):
    positions, _ = particle_of()
    change = compare(
        table_of(positions, [None] * len(positions)), table_of(positions[2:], [None] * (len(positions) - 2))
    )

    assert change.sites_lost.found == 2
    assert math.isnan(change.atoms_lost.value)
    assert summarise_change(change)["atoms_lost"] is None


def test_everything_or_nothing_may_be_there(table_of, sheet_of):
    positions, labels = sheet_of(20)
    full, empty = table_of(positions, labels), table_of(np.zeros((0, 2)), [])

    assert compare(full, empty).sites_lost.found == len(labels)
    assert compare(empty, full).sites_appeared.found == len(labels)
    assert compare(empty, empty).atoms_lost.value == 0
    assert not compare(full, empty).drift.is_certain


def test_tables_of_different_areas_are_not_compared(table_of, sheet_of):
    here, there = sheet_of(40), sheet_of(40, angle=0.8)

    with pytest.raises(HrtemdError, match="compare tables of one area, or give drift_angstrom"):
        compare(table_of(*here), table_of(*there))
    with pytest.raises(HrtemdError, match="too few sites in common"):
        compare(table_of(*here), table_of(here[0] + 1000, here[1]))


def test_tables_of_different_models_are_not_compared(table_of, particle_of):
    positions, n_atoms = particle_of()
    counted = table_of(positions, [None] * len(positions), n_atoms=n_atoms, name="a", model="nanoparticle-triplet")
    uncounted = table_of(positions, [None] * len(positions), name="b", model="nanoparticle")

    said = r"of a \(model nanoparticle-triplet\) tells the number of atoms.*of b \(model nanoparticle\) does not"
    for tables in ((counted, uncounted), (uncounted, counted)):
        with pytest.raises(HrtemdError, match=said):
            compare(*tables)


def test_the_later_table_must_not_come_first(table_of, sheet_of):
    early = table_of(*sheet_of(20), name="early", acquired_at="2026-11-22T10:00:00+00:00")
    late = table_of(*sheet_of(20), name="late", acquired_at="2026-11-22T10:01:00+00:00")

    with pytest.raises(HrtemdError, match=r"table of early was acquired 60 s before .* of late; give the earlier"):
        compare(late, early)
