import numpy as np
import pytest

from daemon.analysis import column_heights, height_map
from daemon.errors import HrtemdError


def test_columns_and_their_atoms(table_of, particle_of):
    positions, n_atoms = particle_of()
    table = table_of(positions, [None] * len(positions), n_atoms=n_atoms, n_atoms_probability=1.0)

    heights = column_heights(table)

    assert heights.positions_angstrom == pytest.approx(positions, abs=1e-4)
    assert heights.n_atoms.tolist() == n_atoms.tolist()
    assert heights.atoms.found == n_atoms.sum()
    assert heights.atoms.expected == pytest.approx(n_atoms.sum())
    assert heights.atoms.standard_deviation == 0


def test_support_is_no_part_of_the_particle(table_of, particle_of):
    positions, n_atoms = particle_of()
    species = ["support" if x < 40 else "Au" for x in positions[:, 0]]
    counted = [None if name == "support" else n for name, n in zip(species, n_atoms.tolist(), strict=True)]

    heights = column_heights(table_of(positions, species, n_atoms=counted, n_atoms_probability=0.9))

    assert heights.atoms.found == n_atoms[positions[:, 0] >= 40].sum()
    assert len(heights.n_atoms) == species.count("Au")
    # A model that guesses at the support's columns too says nothing of the particle.
    guessed = table_of(positions, species, n_atoms=n_atoms, n_atoms_probability=0.9)
    assert column_heights(guessed).atoms == heights.atoms


def test_the_spread_of_the_total_is_that_of_a_calibrated_model(table_of, particle_of):
    rng = np.random.default_rng(0)
    positions, n_atoms = particle_of()
    there, right = rng.uniform(0.9, 1, len(n_atoms)), rng.uniform(0.5, 1, len(n_atoms))
    table = table_of(positions, [None] * len(positions), probability=there, n_atoms=n_atoms, n_atoms_probability=right)

    atoms = column_heights(table).atoms

    shape = (4000, len(n_atoms))
    off_by_one = np.where(rng.random(shape) < right, 0, rng.choice([-1, 1], shape))
    totals = np.where(rng.random(shape) < there, n_atoms + off_by_one, 0).sum(axis=1)
    assert atoms.found == n_atoms.sum()
    assert atoms.expected == pytest.approx(totals.mean(), rel=0.01)
    assert atoms.standard_deviation == pytest.approx(totals.std(), rel=0.05)


def test_the_map_shows_each_column_where_it_stands_and_nothing_beside(table_of, particle_of):
    positions, n_atoms = particle_of()
    table = table_of(positions, [None] * len(positions), n_atoms=n_atoms)

    drawn = height_map(column_heights(table), pixel_angstrom=0.2)

    column, row = np.rint((positions - drawn.origin_angstrom) / drawn.pixel_angstrom).astype(int).T
    assert drawn.n_atoms[row, column].tolist() == n_atoms.tolist()
    y, x = np.mgrid[: drawn.n_atoms.shape[0], : drawn.n_atoms.shape[1]] * 0.2
    from_middle = np.hypot(x + drawn.origin_angstrom[0] - 40, y + drawn.origin_angstrom[1] - 40)
    assert np.isnan(drawn.n_atoms[from_middle > 14 + 2.5]).all()
    assert np.isfinite(drawn.n_atoms[from_middle < 11]).all()  # no gaps between columns
    left, right, bottom, top = drawn.extent_angstrom
    assert left < positions[:, 0].min() < positions[:, 0].max() < right
    assert top < positions[:, 1].min() < positions[:, 1].max() < bottom
    assert (right - left, bottom - top) == pytest.approx((drawn.n_atoms.shape[1] * 0.2, drawn.n_atoms.shape[0] * 0.2))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_columns_make_no_map(table_of, count):
    heights = column_heights(table_of(np.zeros((count, 2)), [None] * count, n_atoms=[5] * count))

    assert heights.atoms.found == 5 * count
    assert height_map(heights).n_atoms.size == 0


def test_a_model_that_does_not_count_is_an_error(table_of, particle_of):
    positions, _ = particle_of()
    with pytest.raises(HrtemdError, match=r"p7 \(model nanoparticle\).*model nanoparticle-triplet"):
        column_heights(table_of(positions, [None] * len(positions), name="p7", model="nanoparticle"))
