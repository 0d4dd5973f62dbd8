"""What training relies on: real bond lengths, and labels for just the atoms that can be found."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from trainer.specimens.amorphous import CARBON_ATOMS_PER_ANGSTROM3, amorphous_carbon, random_amorphous_film
from trainer.specimens.bending import Ripple
from trainer.specimens.contamination import OPAQUE_COUNT
from trainer.specimens.graphene import labelled_sheet, random_graphene
from trainer.specimens.rings import disordered, grains, lattice_centres, sheet_of
from trainer.specimens.sheet import Sheet
from trainer.specimens.specimen import Specimen

SIZE = 48.0
CONTAMINATED_SEED = 3
NOWHERE = np.empty((0, 3))


@pytest.fixture(scope="module")
def specimens() -> list[Specimen]:
    return [random_graphene(np.random.default_rng(seed), SIZE) for seed in range(30)]


def sheet_positions(specimen: Specimen) -> NDArray[np.float64]:
    return np.asarray(specimen.atoms.positions[specimen.site_of_atom >= 0])


def perfect_sheet() -> Sheet:
    return sheet_of(lattice_centres(50.0, 0.2, np.zeros(2))).compressed()


def bond_lengths(sheet: Sheet) -> NDArray[np.float64]:
    first, second = sheet.bonds().T
    return np.asarray(np.linalg.norm(sheet.positions[first] - sheet.positions[second], axis=1))


def interior(sheet: Sheet) -> NDArray[np.bool_]:
    return np.asarray((np.abs(sheet.positions) < 18).all(axis=1))


def ring_size_counts(centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many interior rings have 0, 1, 2 ... atoms."""
    sizes = np.bincount(Delaunay(centres).simplices.ravel(), minlength=len(centres))
    return np.bincount(sizes[(np.abs(centres) < 18).all(axis=1)], minlength=9)


def test_the_same_seed_gives_the_same_specimen_in_another_process() -> None:
    here = random_graphene(np.random.default_rng(CONTAMINATED_SEED), 24.0)
    assert (here.site_of_atom < 0).any()
    draw = (
        "import numpy; from trainer.specimens.graphene import random_graphene;"
        f"specimen = random_graphene(numpy.random.default_rng({CONTAMINATED_SEED}), 24.0);"
        "print(specimen.atoms.positions.tobytes().hex())"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", draw], cwd=root, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here.atoms.positions.tobytes().hex()


def test_atoms_lie_in_the_cell_and_sites_in_the_field(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        cell = specimen.atoms.cell.lengths()
        assert (specimen.atoms.positions >= 0).all()
        assert (specimen.atoms.positions < cell).all()
        assert cell[:2] == pytest.approx([SIZE, SIZE])
        sites = specimen.site_positions()
        assert len(sites) == len(specimen.site_species)
        assert ((sites >= 0) & (sites < SIZE)).all()
        assert (specimen.site_atom_counts == 1).all()


def test_bond_lengths_are_those_of_carbon(specimens: list[Specimen]) -> None:
    nearest = np.concatenate(
        [cKDTree(sheet).query(sheet, k=2)[0][:, 1] for sheet in map(sheet_positions, specimens) if len(sheet) > 1]
    )
    assert nearest.min() > 1.15
    assert np.mean((nearest > 1.25) & (nearest < 1.65)) > 0.99


def test_no_atoms_overlap(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        assert not cKDTree(specimen.atoms.positions).query_pairs(1.15)


def test_specimens_range_from_pristine_to_badly_damaged(specimens: list[Specimen]) -> None:
    clean = [specimen for specimen in specimens if (specimen.site_of_atom >= 0).all()]
    counts = np.array([len(specimen.site_species) for specimen in clean])
    full = SIZE**2 / 2.62
    assert np.mean(counts > 0.93 * full) > 0.2
    assert np.mean(counts < 0.8 * full) > 0.1


def test_a_perfect_sheet_is_three_coordinated_with_equal_bonds() -> None:
    sheet = perfect_sheet()
    assert (sheet.coordination()[interior(sheet)] == 3).all()
    assert bond_lengths(sheet) == pytest.approx(1.42, abs=1e-6)


@pytest.mark.parametrize("kind", ["grains", "disordered"])
def test_boundaries_and_random_networks_are_relaxed_and_three_coordinated(kind: str) -> None:
    rng = np.random.default_rng(1)
    if kind == "grains":
        centres = grains(rng, 50.0, np.array([0.0, 0.4]))
    else:
        centres = disordered(rng, lattice_centres(50.0, 0.2, np.zeros(2)))
    sheet = sheet_of(centres).compressed()
    perfect = len(perfect_sheet().positions)
    sheet.relax(120)
    # Rings of other than six atoms are what distinguishes them from a lattice.
    ring_sizes = ring_size_counts(centres)
    assert ring_sizes[5] > 3
    assert ring_sizes[7] > 3
    assert (sheet.coordination()[interior(sheet)] == 3).all()
    assert len(sheet.positions) == pytest.approx(perfect, rel=0.1)
    assert bond_lengths(sheet).min() > 1.25
    assert bond_lengths(sheet).max() < 1.65


def test_a_rotated_bond_keeps_every_atom_three_coordinated() -> None:
    sheet = perfect_sheet()
    first = int(np.argmin(np.hypot(*sheet.positions.T)))
    second = sorted(sheet.neighbours[first])[0]
    before = sheet.positions[first].copy()
    sheet.rotate_bond(first, second)
    sheet.relax(120)
    assert (sheet.coordination()[interior(sheet)] == 3).all()
    assert np.hypot(*(sheet.positions[first] - before)) > 0.5
    assert bond_lengths(sheet).min() > 1.25


def test_a_ripple_bends_but_does_not_stretch() -> None:
    sheet = perfect_sheet()
    ripple = Ripple(3.0, np.array([2 * np.pi / 80, 0.0]), 0.3)
    bent = ripple(np.column_stack([sheet.positions, np.zeros(len(sheet.positions))]))
    first, second = sheet.bonds().T
    assert np.ptp(bent[:, 2]) > 3.0
    assert np.linalg.norm(bent[first] - bent[second], axis=1) == pytest.approx(1.42, abs=0.01)


def test_contamination_is_not_labelled(specimens: list[Specimen]) -> None:
    dirty = [specimen for specimen in specimens if (specimen.site_of_atom < 0).any()]
    assert 0.25 < len(dirty) / len(specimens) < 0.75
    for specimen in specimens:
        assert set(specimen.site_species) <= {"C"}
        assert set(specimen.atoms.symbols[specimen.site_of_atom >= 0]) <= {"C"}


def test_what_thin_dirt_covers_is_ignored_and_what_thick_dirt_covers_is_no_site() -> None:
    clean, thin, thick = [10.0, 10.0, 0.0], [20.0, 10.0, 0.0], [30.0, 10.0, 0.0]
    stack = [[30.0 + 0.1 * layer, 10.0, 2.0 + 1.5 * layer] for layer in range(OPAQUE_COUNT)]
    dirt = np.array([[21.5, 10.0, 2.0], [12.5, 10.0, 2.0], *stack])
    specimen = labelled_sheet(np.array([clean, thin, thick]), np.array(["C"] * len(dirt)), dirt, 40.0)
    assert specimen.site_positions() == pytest.approx(np.array([clean, thin])[:, :2])
    assert specimen.site_ignored.tolist() == [False, True]
    assert (specimen.site_of_atom[2:] == -1).all()


def test_eight_angstrom_of_carbon_hides_most_of_a_sheet_and_three_do_not() -> None:
    rng = np.random.default_rng(0)
    flat = perfect_sheet().positions
    flat = flat[interior(perfect_sheet())]
    sheet = np.column_stack([flat + 25, np.zeros(len(flat))])

    def found_under(thickness_angstrom: float) -> float:
        carbon = amorphous_carbon(rng, 50.0, thickness_angstrom) + [0, 0, 2]
        return len(labelled_sheet(sheet, np.array(["C"] * len(carbon)), carbon, 50.0).site_species) / len(sheet)

    assert found_under(3.0) > 0.9
    assert found_under(16.0) < 0.1


def test_atoms_that_overlap_in_projection_are_ignored() -> None:
    sheet = np.array([[10.0, 10.0, 0.0], [10.3, 10.4, 1.3], [11.0, 10.9, 0.0]])
    specimen = labelled_sheet(sheet, np.array([], dtype=np.str_), NOWHERE, 20.0)
    assert specimen.site_ignored.tolist() == [True, True, False]


@pytest.mark.parametrize("seed", range(4))
def test_amorphous_carbon_is_as_dense_and_ordered_as_the_real_one(seed: int) -> None:
    carbon = amorphous_carbon(np.random.default_rng(seed), 50.0, 30.0)
    density = len(carbon) / (50.0 * 50.0 * 30.0) / CARBON_ATOMS_PER_ANGSTROM3
    assert 1.4 < density < 2.3
    assert (carbon.min(axis=0) >= 0).all()
    assert (carbon.max(axis=0) < [50, 50, 30]).all()
    assert carbon.max(axis=0) == pytest.approx([50, 50, 30], abs=0.5)

    inner = carbon[((carbon > 4) & (carbon < [46, 46, 26])).all(axis=1)]
    tree = cKDTree(carbon)
    assert tree.query(inner, k=2)[0][:, 1].min() > 1.2
    bonded = tree.query_ball_point(inner, 1.85, return_length=True) - 1
    assert np.mean(bonded == 3) > 0.55
    # The gap between first and second neighbours, where a gas would have one atom.
    between = tree.query_ball_point(inner, 2.1, return_length=True) - 1 - bonded
    assert between.mean() < 0.1


def test_a_film_has_no_sites_and_its_stated_thickness() -> None:
    films = [random_amorphous_film(np.random.default_rng(seed), 40.0) for seed in range(12)]
    heights = np.array([np.ptp(film.atoms.positions[:, 2]) for film in films])
    assert heights.min() < 20 < 40 < heights.max() < 105
    for film in films:
        assert film.site_species == ()
        assert (film.site_of_atom == -1).all()
        assert len(film.atoms) > 100


def test_a_lone_atom_can_be_relaxed() -> None:
    sheet = Sheet(np.array([[1.0, 2.0]]), [set()])

    sheet.relax(steps=3)

    np.testing.assert_array_equal(sheet.positions, [[1.0, 2.0]])
