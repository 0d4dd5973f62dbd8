"""What training relies on: every label says who stands at its site, and only what can be found has one."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from trainer.simulation import simulate
from trainer.specimens.mos2 import labelled_lattice, lattice_species, random_mos2
from trainer.specimens.mos2_damage import (
    ANTISITES_ON_METAL,
    ANTISITES_ON_SULPHUR,
    ON_METAL,
    ON_SULPHUR,
    add_clusters,
    add_lines,
    add_vacancies,
    relax_around_vacancies,
    substitute,
)
from trainer.specimens.mos2_lattice import Lattice, crystal, random_grains
from trainer.specimens.specimen import Specimen

SIZE = 40.0
FORMULA_UNIT_SQUARE_ANGSTROM = 3.16**2 * np.sqrt(3) / 2
EXPECTED_ATOMS = {"Mo": ["Mo"], "S2": ["S", "S"], "S": ["S"], "vacancy": []}
NO_SYMBOLS = np.array([], dtype=np.str_)
NO_DIRT = np.empty((0, 3))


@pytest.fixture(scope="module")
def specimens() -> list[Specimen]:
    return [random_mos2(np.random.default_rng(seed), SIZE) for seed in range(60)]


def perfect_lattice(extent: float = 60.0) -> Lattice:
    return Lattice.perfect(*crystal(extent, 0.2, np.zeros(2)))


def flat_in_field(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return positions + [SIZE / 2, SIZE / 2, 0]


def in_field(lattice: Lattice) -> Specimen:
    return labelled_lattice(lattice, flat_in_field, NO_SYMBOLS, NO_DIRT, SIZE)


def middle_site(lattice: Lattice, *, metal: bool) -> int:
    sites = np.flatnonzero(lattice.is_metal == metal)
    return int(sites[np.argmin(np.linalg.norm(lattice.positions[sites], axis=1))])


def check(specimen: Specimen) -> None:
    """Everything that has to be so for any specimen, recomputed from nothing but its atoms and positions."""
    cell = specimen.atoms.cell.lengths()
    atoms, sites = specimen.atoms.positions, specimen.site_positions()
    species = np.array(specimen.site_species)
    assert ((atoms >= 0) & (atoms < cell)).all()
    assert sites.shape == (len(species), 2)
    assert ((sites >= 0) & (sites < cell[:2])).all()
    assert not cKDTree(atoms).query_pairs(1.2)

    vacant = species == "vacancy"
    assert np.array_equal(
        np.flatnonzero(vacant), len(species) - len(specimen.vacant_positions) + np.arange(vacant.sum())
    )
    assert np.array_equal(specimen.site_atom_counts == 0, vacant)

    lateral = cKDTree(atoms[:, :2])
    judged = np.flatnonzero(~specimen.site_ignored)
    for site in judged:
        found = sorted(specimen.atoms.symbols[lateral.query_ball_point(sites[site], 0.7)])
        if species[site] == "substitution":
            assert found
        else:
            assert found == EXPECTED_ATOMS[species[site]]
    empty = sites[vacant & ~specimen.site_ignored]
    assert not lateral.query_ball_point(empty, 0.8, return_length=True).sum()
    assert not cKDTree(sites[judged]).query_pairs(0.8)


def test_labels_say_who_stands_at_each_site(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        check(specimen)


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(16, 40))
@settings(max_examples=25, deadline=None)
def test_labels_are_right_for_any_seed_and_size(seed: int, size: float) -> None:
    check(random_mos2(np.random.default_rng(seed), size))


def test_the_same_seed_gives_the_same_specimen() -> None:
    first, second = (random_mos2(np.random.default_rng(5), SIZE) for _ in range(2))
    assert first.atoms == second.atoms
    assert first.site_species == second.site_species
    assert np.array_equal(first.site_positions(), second.site_positions())


def test_every_kind_occurs_rare_and_frequent(specimens: list[Specimen]) -> None:
    counts = [Counter(np.array(specimen.site_species)[~specimen.site_ignored]) for specimen in specimens]
    for kind in ("S", "vacancy", "substitution"):
        of_kind = np.array([count[kind] / max(1, count["S2"]) for count in counts])
        assert np.mean(of_kind > 0) > 0.3
        assert np.mean(of_kind == 0) > 0.1
        assert (of_kind > 0.03).any()
    hosts = sum(count["Mo"] + count["S2"] for count in counts)
    assert hosts > 0.9 * sum(map(Counter.total, counts))


def test_specimens_range_from_full_sheets_to_vacuum_and_from_clean_to_dirty(specimens: list[Specimen]) -> None:
    full = 2 * SIZE**2 / FORMULA_UNIT_SQUARE_ANGSTROM
    shares = np.array([len(specimen.site_species) / full for specimen in specimens])
    assert np.mean(shares > 0.9) > 0.3
    assert np.mean(shares < 0.7) > 0.1
    assert shares.max() < 1.15
    dirty = np.mean([(specimen.site_of_atom < 0).any() for specimen in specimens])
    assert 0.2 < dirty < 0.7


def test_a_perfect_sheet_has_two_sulphur_a_metal_and_its_density() -> None:
    specimen = in_field(perfect_lattice())
    counts = Counter(specimen.site_species)
    formula_units = SIZE**2 / FORMULA_UNIT_SQUARE_ANGSTROM
    assert counts.keys() == {"Mo", "S2"}
    assert counts["Mo"] == pytest.approx(formula_units, rel=0.03)
    assert counts["S2"] == pytest.approx(counts["Mo"], rel=0.03)
    assert specimen.atoms.symbols.count("S") == 2 * counts["S2"]
    assert not specimen.site_ignored.any()
    inner = (np.abs(specimen.atoms.positions[:, :2] - SIZE / 2) < 15).all(axis=1)
    nearest = cKDTree(specimen.atoms.positions).query(specimen.atoms.positions[inner], k=2)[0][:, 1]
    assert nearest == pytest.approx(np.hypot(3.16 / np.sqrt(3), 1.565))


@pytest.mark.parametrize("metal", [True, False])
def test_a_missing_site_inside_the_sheet_is_a_vacancy_where_the_lattice_says(metal: bool) -> None:
    lattice = perfect_lattice()
    site = middle_site(lattice, metal=metal)
    lattice.occupants[site] = 0
    specimen = in_field(lattice)
    assert specimen.site_species[-1] == "vacancy"
    assert specimen.site_species.count("vacancy") == 1
    assert specimen.site_atom_counts[-1] == 0
    assert specimen.site_positions()[-1] == pytest.approx(lattice.positions[site] + SIZE / 2)


def test_a_missing_bond_is_two_vacancies_but_a_hole_and_an_edge_are_none() -> None:
    lattice = perfect_lattice()
    metal = middle_site(lattice, metal=True)
    lattice.occupants[[metal, lattice.neighbours[metal, 0]]] = 0
    assert in_field(lattice).site_species.count("vacancy") == 2

    hole = perfect_lattice()
    hole.occupants[np.linalg.norm(hole.positions, axis=1) < 8] = 0
    assert "vacancy" not in in_field(hole).site_species

    for across in (np.array([-np.sin(0.2), np.cos(0.2)]), np.array([np.cos(0.2), np.sin(0.2)])):
        for border in np.arange(0, 3, 0.4):
            edge = perfect_lattice()
            edge.occupants[edge.positions @ across > border] = 0
            assert "vacancy" not in in_field(edge).site_species


def test_lines_take_sulphur_from_zigzag_rows() -> None:
    widths = set()
    for seed in range(20):
        lattice = perfect_lattice()
        add_lines(np.random.default_rng(seed), lattice, 1)
        lost = (lattice.occupants[~lattice.is_metal] == 0).sum(axis=1) - 1
        places = lattice.positions[~lattice.is_metal][lost > 0]
        assert (lattice.occupants[lattice.is_metal] == [0, 42, 0]).all()
        assert len(places) >= 2
        assert len(set(lost[lost > 0])) == 1
        assert cKDTree(places).query(places, k=2)[0][:, 1] == pytest.approx(3.16)
        extents = np.linalg.svd(places - places.mean(axis=0))[1]
        widths.add((int(lost.max()), bool(extents[1] > 1)))
    assert widths == {(1, False), (1, True), (2, False), (2, True)}


def test_vacancies_come_in_the_shares_asked_for() -> None:
    lattice = perfect_lattice(200.0)
    add_vacancies(np.random.default_rng(0), lattice, (0.1, 0.05, 0.02))
    species = Counter(lattice_species(lattice))
    sites = len(lattice.positions) / 2
    assert species["S"] / sites == pytest.approx(0.1, abs=0.02)
    assert species["vacancy"] / sites == pytest.approx(0.07, abs=0.02)
    assert "substitution" not in species


def test_a_cluster_takes_neighbouring_sites() -> None:
    for seed in range(10):
        lattice = perfect_lattice()
        add_clusters(np.random.default_rng(seed), lattice, 1)
        changed = np.flatnonzero(lattice_species(lattice) != np.where(lattice.is_metal, "Mo", "S2"))
        assert 2 <= len(changed) <= 6
        assert cKDTree(lattice.positions[changed]).query(lattice.positions[changed], k=2)[0][:, 1].max() < 2


@pytest.mark.parametrize(("on_metal", "substitutes"), [(True, ON_METAL), (False, ON_SULPHUR)])
def test_foreign_atoms_are_substitutions(on_metal: bool, substitutes: tuple[tuple[int, int, int], ...]) -> None:
    lattice = perfect_lattice()
    substitute(np.random.default_rng(0), lattice, 0.3, on_metal=on_metal, substitutes=substitutes)
    changed = lattice.is_metal == on_metal
    species = lattice_species(lattice)
    host = "Mo" if on_metal else "S2"
    assert set(species[changed]) == {host, "substitution"}
    assert np.mean(species[changed] == "substitution") == pytest.approx(0.3, abs=0.1)
    assert set(species[~changed]) == {"S2" if on_metal else "Mo"}
    assert {tuple(sorted(row)) for row in lattice.occupants[species == "substitution"]} == {
        tuple(sorted(substitutes_row)) for substitutes_row in substitutes
    }


def test_host_atoms_on_the_wrong_sublattice_are_substitutions() -> None:
    lattice = perfect_lattice()
    for on_metal, antisites in ((True, ANTISITES_ON_METAL), (False, ANTISITES_ON_SULPHUR)):
        for occupants in antisites:
            lattice.occupants[middle_site(lattice, metal=on_metal)] = occupants
            assert lattice_species(lattice)[middle_site(lattice, metal=on_metal)] == "substitution"


def test_neighbours_of_a_vacancy_move_a_little_and_the_vacancy_does_not() -> None:
    lattice = perfect_lattice()
    before = lattice.positions.copy()
    site = middle_site(lattice, metal=False)
    lattice.occupants[site] = 0
    relax_around_vacancies(np.random.default_rng(1), lattice)
    moved = np.linalg.norm(lattice.positions - before, axis=1)
    assert set(np.flatnonzero(moved)) == set(lattice.neighbours[site]) - {-1}
    assert moved.max() <= 0.12


@pytest.mark.parametrize("seed", range(8))
def test_grains_meet_in_dense_relaxed_boundaries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = Lattice.perfect(*random_grains(rng, 60.0, rng.uniform(0, 2 * np.pi)))
    inner = (np.abs(lattice.positions) < 24).all(axis=1)
    assert inner.sum() == pytest.approx(2 * 48**2 / FORMULA_UNIT_SQUARE_ANGSTROM, rel=0.1)
    bonds = (lattice.neighbours >= 0).sum(axis=1)
    assert bonds.min() >= 1
    assert 0 < np.mean(bonds[inner] != 3) < 0.25
    assert not lattice.vacancies().any()
    assert cKDTree(lattice.positions).query(lattice.positions, k=2)[0][:, 1].min() > 1.4
    for sublattice in (lattice.is_metal, ~lattice.is_metal):
        assert cKDTree(lattice.positions[sublattice]).query(lattice.positions[sublattice], k=2)[0][:, 1].min() > 2.1


def test_sulphur_is_ignored_where_the_sheet_is_steep() -> None:
    def ignored(degrees: float) -> tuple[float, float]:
        tilt = Rotation.from_euler("x", degrees, degrees=True)
        specimen = labelled_lattice(
            perfect_lattice(), lambda flat: flat_in_field(tilt.apply(flat)), NO_SYMBOLS, NO_DIRT, SIZE
        )
        metal = np.array(specimen.site_species) == "Mo"
        return float(specimen.site_ignored[metal].mean()), float(specimen.site_ignored[~metal].mean())

    assert ignored(8.0) == (0, 0)
    assert ignored(12.0) == (0, 1)


def test_what_lies_under_dirt_is_ignored_even_if_it_is_a_vacancy() -> None:
    lattice = perfect_lattice()
    site = middle_site(lattice, metal=False)
    lattice.occupants[site] = 0
    above = np.append(lattice.positions[site], 3.5)[None]
    specimen = labelled_lattice(lattice, flat_in_field, np.array(["C"]), above, SIZE)
    near = np.linalg.norm(specimen.site_positions() - lattice.positions[site] - SIZE / 2, axis=1) < 2
    assert near.sum() == 4
    assert np.array_equal(specimen.site_ignored, near)
    assert specimen.site_of_atom.tolist().count(-1) == 1


def test_a_vacancy_keeps_its_place_and_its_name_in_the_exit_wave() -> None:
    lattice = perfect_lattice()
    lattice.occupants[middle_site(lattice, metal=False)] = 0
    specimen = in_field(lattice)
    exit_wave = simulate(specimen, 128, 80.0, np.random.default_rng(0))
    assert exit_wave.species == specimen.site_species
    assert exit_wave.atom_counts[-1] == 0
    assert exit_wave.positions_angstrom[-1] == pytest.approx(specimen.vacant_positions[0], abs=1e-5)
    # Half of the sites end in the metal's plane, half of them in the upper sulphur, 3 Å before the end of the cell.
    assert exit_wave.depth_angstrom == pytest.approx(3.0 + 1.565 / 2, abs=0.05)


def test_a_vacancy_cannot_have_atoms() -> None:
    specimen = Specimen(Atoms("Mo", cell=[5, 5, 5]), np.zeros(1, np.int32), ("Mo",), np.zeros(1, bool))
    with pytest.raises(ValueError, match="vacant"):
        replace(specimen, vacant_positions=np.ones((1, 2)))
