"""What training relies on: real lattices, and a site for just the columns that can be seen."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from trainer.specimens.fcc import (
    FCC_BASIS,
    HABITS,
    LATTICE_CONSTANTS_ANGSTROM,
    Crystal,
    Habit,
    decahedron,
    lattice_block,
    random_particle,
    random_slab,
    twinned_block,
    zone_axis_frame,
)
from trainer.specimens.nanoparticle import (
    THICK_ATOMS,
    label_columns,
    random_gold_on_oxide,
    random_nanoparticle,
    random_thick_gold,
)
from trainer.specimens.oxide import OXIDES, oxide_block
from trainer.specimens.specimen import Specimen

SIZE = 60.0
LATTICE = 4.0
NEIGHBOUR = LATTICE / np.sqrt(2)
NO_FILM = np.empty((0, 3))
MAGNESIA, CERIA, _RUTILE, ANATASE = OXIDES


@pytest.fixture(scope="module")
def specimens() -> list[Specimen]:
    return [random_nanoparticle(np.random.default_rng(seed), SIZE) for seed in range(60)]


def cube(
    zone_axis: tuple[int, int, int] = (1, 0, 0),
    half_extents: tuple[float, float, float] = (12.0, 12.0, 8.0),
    symbol: str = "Au",
    tilt_degrees: float = 0.0,
) -> Crystal:
    """A block of fcc crystal with LATTICE = 4 Å in the middle of the field, tilted as a whole."""
    positions, _, columns = lattice_block([LATTICE] * 3, FCC_BASIS, zone_axis, zone_axis_frame(zone_axis), half_extents)
    tilted = positions @ Rotation.from_euler("x", tilt_degrees, degrees=True).as_matrix().T
    numbers = np.full(len(positions), {"Au": 79, "Cu": 29}[symbol])
    return Crystal(symbol, tilted, numbers, columns).moved([SIZE / 2, SIZE / 2, 0])


def ceria(thickness: float) -> Crystal:
    """A block of CeO2 along ⟨110⟩, where cations and oxygen stand in columns of their own."""
    frame = zone_axis_frame((1, 1, 0))
    return oxide_block(CERIA, (1, 1, 0), frame, np.array([15, 15, thickness / 2])).moved([SIZE / 2, SIZE / 2, -20])


def of_species(specimen: Specimen, name: str) -> NDArray[np.bool_]:
    return np.array([species == name for species in specimen.site_species])


def nearest_distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cKDTree(points).query(points, k=2)[0][:, 1])


def assert_bulk_has_twelve_neighbours(
    positions: NDArray[np.float64], interior: NDArray[np.bool_], tolerance: float
) -> None:
    neighbours = cKDTree(positions).query(positions[interior], k=14)[0][:, 1:]
    assert interior.any()
    np.testing.assert_allclose(neighbours[:, :12], NEIGHBOUR, rtol=tolerance)
    assert (neighbours[:, 12] > 1.2 * NEIGHBOUR).all()


def test_same_seed_same_specimen() -> None:
    first, second = (random_nanoparticle(np.random.default_rng(5), SIZE) for _ in range(2))
    assert first.atoms == second.atoms
    assert first.site_species == second.site_species
    np.testing.assert_array_equal(first.site_of_atom, second.site_of_atom)
    np.testing.assert_array_equal(first.site_ignored, second.site_ignored)


def test_atoms_and_sites_lie_inside_the_field(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        extent = specimen.atoms.cell.lengths()
        assert len(specimen.atoms) > 0
        np.testing.assert_array_equal(extent[:2], SIZE)
        assert (specimen.atoms.positions >= 0).all()
        assert (specimen.atoms.positions < extent).all()
        assert (specimen.site_atom_counts > 0).all()


def test_no_two_atoms_collide(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        assert nearest_distances(specimen.atoms.positions).min() > 1.0


def test_every_metal_and_every_surrounding_is_drawn(specimens: list[Specimen]) -> None:
    names = [set(specimen.site_species) for specimen in specimens]
    with_film = ["C" in specimen.atoms.symbols for specimen in specimens]
    assert set().union(*names) == {*LATTICE_CONSTANTS_ANGSTROM, "support"}
    assert any(not name for name in names), "film alone"
    assert any(name == {"support"} for name in names), "oxide alone"
    assert any(name and not film and "support" not in name for name, film in zip(names, with_film, strict=True))


def test_film_has_no_sites(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        assert (specimen.site_of_atom[specimen.atoms.numbers == 6] == -1).all()


def test_judged_columns_can_be_told_apart(specimens: list[Specimen]) -> None:
    for specimen in specimens:
        judged = specimen.site_positions()[~specimen.site_ignored]
        if len(judged) > 1:
            assert nearest_distances(judged).min() >= 0.9


@pytest.mark.parametrize(
    ("zone_axis", "distance"),
    [((1, 0, 0), LATTICE / 2), ((1, 1, 0), LATTICE * np.sqrt(6) / 4), ((1, 1, 1), LATTICE / np.sqrt(6))],
)
def test_columns_are_spaced_as_in_the_crystal(zone_axis: tuple[int, int, int], distance: float) -> None:
    specimen = label_columns([cube(zone_axis)], NO_FILM, SIZE)
    np.testing.assert_allclose(nearest_distances(specimen.site_positions()), distance)
    assert not specimen.site_ignored.any()


def test_atoms_of_a_column_are_counted() -> None:
    # Along ⟨100⟩ atoms follow each other every 4 Å: at -8, -4, 0, 4, 8, or between these.
    specimen = label_columns([cube()], NO_FILM, SIZE)
    at_origin = np.all(np.isclose(specimen.site_positions() % LATTICE, (SIZE / 2) % LATTICE), axis=1)
    assert at_origin.sum() == 49
    assert set(specimen.site_atom_counts[at_origin]) == {5}
    assert set(specimen.site_atom_counts) == {4, 5}
    assert specimen.site_atom_counts.sum() == len(specimen.atoms)


@pytest.mark.parametrize("seed", range(40))
def test_columns_of_a_particle_are_straight_rows_of_atoms(seed: int) -> None:
    particle = random_particle(np.random.default_rng(seed), "Au", 30.0)
    steps = []
    for column in np.unique(particle.columns[particle.columns >= 0]):
        atoms = particle.positions[particle.columns == column]
        atoms = atoms[np.argsort(atoms[:, 2])]
        steps.extend(np.diff(atoms, axis=0))
    steps_angstrom = np.array(steps).reshape(-1, 3)
    # A missing atom doubles a step but does not turn it.
    directions = steps_angstrom / np.linalg.norm(steps_angstrom, axis=1, keepdims=True)
    assert (directions[:, 2] > np.cos(np.deg2rad(5.1))).all()
    if len(directions):
        np.testing.assert_allclose(directions, np.broadcast_to(directions[0], directions.shape), atol=1e-6)


@pytest.mark.parametrize("habit", HABITS)
def test_inside_every_habit_is_close_packed(habit: Habit) -> None:
    for seed in range(4):
        sites = habit(np.random.default_rng(seed), LATTICE, 18.0)
        assert_bulk_has_twelve_neighbours(sites.positions, sites.depths > NEIGHBOUR, tolerance=0.04)


def test_twin_is_mirrored_and_shares_its_plane() -> None:
    signs = np.where(np.arange(17) <= 8, 1, -1)
    positions, columns, mirrored = twinned_block(LATTICE, signs, 20.0, 10.0)
    inner = np.abs(positions[:, 0]) < 15
    reflected = positions[inner] * [1, -1, 1]
    distances, partner = cKDTree(positions).query(reflected)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    on_plane = np.isclose(positions[inner][:, 1], 0)
    np.testing.assert_array_equal(columns[partner][on_plane], columns[inner][on_plane])
    np.testing.assert_array_equal(mirrored, positions[:, 1] > 1e-6)


def test_stacking_without_twins_is_a_single_crystal() -> None:
    positions, _, _ = twinned_block(LATTICE, np.ones(17, dtype=np.int64), 20.0, 10.0)
    inner = (np.abs(positions) < [8, 8, 4]).all(axis=1)
    # Only in fcc, not at a twin plane, has every atom a partner opposite each of its twelve neighbours.
    tree = cKDTree(positions)
    for centre, neighbours in zip(
        positions[inner], tree.query_ball_point(positions[inner], 1.1 * NEIGHBOUR), strict=True
    ):
        assert len(neighbours) == 13
        np.testing.assert_allclose(tree.query(2 * centre - positions[neighbours])[0], 0, atol=1e-6)


def test_decahedron_has_five_sectors() -> None:
    sites = decahedron(LATTICE, radius_angstrom=20.0, half_height_angstrom=15.0, notch_angstrom=20.0)
    turn = Rotation.from_euler("z", 72, degrees=True).as_matrix()
    distances, partner = cKDTree(sites.positions).query(sites.positions @ turn.T)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    np.testing.assert_allclose(sites.depths[partner], sites.depths, atol=1e-6)

    first = np.array([sites.positions[sites.columns == column][0, :2] for column in np.unique(sites.columns)])
    around_axis = first[(np.linalg.norm(first, axis=1) > 0.1) & (np.linalg.norm(first, axis=1) < 2.6)]
    angles = np.sort(np.rad2deg(np.arctan2(*around_axis.T)))
    np.testing.assert_allclose(np.diff(angles), 72)


def test_oxide_columns_are_support_and_pure_oxygen_is_ignored() -> None:
    oxide = ceria(20.0)
    specimen = label_columns([oxide], NO_FILM, SIZE)
    is_cation_site = np.zeros(len(specimen.site_species), dtype=bool)
    is_cation_site[specimen.site_of_atom[specimen.atoms.numbers == 58]] = True
    assert set(specimen.site_species) == {"support"}
    np.testing.assert_array_equal(specimen.site_ignored, ~is_cation_site)
    np.testing.assert_allclose(
        nearest_distances(specimen.site_positions()[is_cation_site]), CERIA.cell_angstrom[0] * np.sqrt(6) / 4
    )


def test_magnesia_seen_along_a_cube_edge_has_mixed_columns() -> None:
    oxide = oxide_block(MAGNESIA, (1, 0, 0), zone_axis_frame((1, 0, 0)), np.array([15, 15, 10]))
    specimen = label_columns([oxide.moved([SIZE / 2, SIZE / 2, 0])], NO_FILM, SIZE)
    assert not specimen.site_ignored.any()
    np.testing.assert_allclose(nearest_distances(specimen.site_positions()), MAGNESIA.cell_angstrom[0] / 2)


def test_oxygen_hidden_beside_a_cation_column_does_not_shift_its_site() -> None:
    # Along ⟨100⟩ of anatase half of the oxygen stands 0.4 Å from a column of titanium, the other half apart.
    frame = zone_axis_frame((1, 0, 0))
    oxide = oxide_block(ANATASE, (1, 0, 0), frame, np.array([15, 15, 10])).moved([SIZE / 2, SIZE / 2, 0])
    specimen = label_columns([oxide], NO_FILM, SIZE)
    numbers, sites = specimen.atoms.numbers, specimen.site_of_atom
    assert not np.isin(sites[numbers == 22], np.append(sites[numbers == 8], -1)).any()
    assert not specimen.site_ignored[sites[numbers == 22]].any()
    assert (sites[numbers == 8] == -1).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("tilt_degrees", "ignored"), [(0.0, False), (1.0, False), (6.0, True)])
def test_columns_smeared_by_tilt_are_ignored(tilt_degrees: float, ignored: bool) -> None:
    # Atoms over 16 Å of depth spread by 5.6 Å times the tangent of the tilt, root mean square.
    specimen = label_columns([cube(tilt_degrees=tilt_degrees)], NO_FILM, SIZE)
    assert (specimen.site_ignored == ignored).all()


def test_overlapping_metal_is_ignored() -> None:
    below = cube((1, 1, 0)).moved([0.3, 0.2, -40])
    specimen = label_columns([cube((1, 1, 0)), below], NO_FILM, SIZE)
    assert specimen.site_ignored.mean() > 0.9


def test_metal_stays_labelled_on_thinner_oxide_only() -> None:
    gold = cube((1, 1, 0), (8.0, 8.0, 12.0))
    for thickness, gold_stays in ((8.0, True), (60.0, False)):
        specimen = label_columns([gold, ceria(thickness)], NO_FILM, SIZE)
        under_gold = np.all(np.abs(specimen.site_positions() - SIZE / 2) < 6, axis=1)
        assert specimen.site_ignored[of_species(specimen, "support") & under_gold].all()
        assert specimen.site_ignored[of_species(specimen, "Au")].any() != gold_stays
        assert not specimen.site_ignored[of_species(specimen, "support")].all()


def test_icosahedron_shows_columns_in_some_sectors_only() -> None:
    icosahedron = HABITS[3](np.random.default_rng(1), LATTICE, 20.0)
    inside = icosahedron.depths > 0
    share = (icosahedron.columns[inside] >= 0).mean()
    assert 0.1 < share < 0.9


def test_slab_reaches_the_given_thickness() -> None:
    for seed in range(4):
        slab = random_slab(np.random.default_rng(seed), "Cu", SIZE, 25.0)
        assert np.ptp(slab.positions[:, 2]) == pytest.approx(25.0, abs=5.0)


def test_smear_is_what_tilt_makes_of_a_column() -> None:
    tilt_degrees = 2.0
    specimen = label_columns([cube(tilt_degrees=tilt_degrees)], NO_FILM, SIZE)

    smears = specimen.site_smears()

    counts = specimen.site_atom_counts
    full = counts == counts.max()
    expected = -np.tan(np.deg2rad(tilt_degrees)) * (counts.max() - 1) * LATTICE
    np.testing.assert_allclose(smears[full, 0], 0, atol=1e-6)
    np.testing.assert_allclose(smears[full, 1], expected, rtol=1e-2)
    assert np.isnan(smears[counts == 1]).all()


def test_thick_gold_has_many_deep_columns() -> None:
    for seed in range(4):
        specimen = random_thick_gold(np.random.default_rng(seed), SIZE)
        judged = of_species(specimen, "Au") & ~specimen.site_ignored
        assert specimen.site_atom_counts[judged].mean() >= THICK_ATOMS


def test_gold_on_oxide_always_has_oxide_and_mostly_gold() -> None:
    drawn = [random_gold_on_oxide(np.random.default_rng(seed), SIZE) for seed in range(20)]
    assert sum("support" in specimen.site_species for specimen in drawn) >= 18
    assert 12 <= sum("Au" in specimen.site_species for specimen in drawn) < 20
