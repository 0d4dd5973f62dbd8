"""Particles and films of fcc metals in vacuum, on amorphous carbon and on oxides, every column a site."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.amorphous import amorphous_carbon, atoms_in_vacuum
from trainer.specimens.fcc import (
    LATTICE_CONSTANTS_ANGSTROM,
    Crystal,
    Floats,
    Integers,
    random_particle,
    random_slab,
)
from trainer.specimens.fields import random_field
from trainer.specimens.oxide import OXYGEN, random_oxide
from trainer.specimens.specimen import Specimen

CARBON = atomic_numbers["C"]
CONTACT_ANGSTROM = 2.1  # Atoms of different crystals, or of film and crystal, come no closer.
CARBON_BOND_ANGSTROM = 1.4
# Spread of a column's atoms seen along the beam. The ends of a column tilted by more stand farther from its middle than
# the 0.5 Å within which positions count as found, and its image shows one end or the other.
SMEARED_ANGSTROM = 0.3
STANDING_OUT = 2.0  # times the mass of the oxide below
OVERLAPPING_ANGSTROM = 0.9
COVERED_ANGSTROM = 1.7  # Nowhere within a particle is farther from a column of metal.
SHADOWING_ANGSTROM = 0.7
SHADOWING_SHARE = 0.5


@dataclass(frozen=True)
class Scene:
    """Everything in a field, before it is cut to the field and labelled.

    Attributes:
        crystals: Metal and oxide.
        carbon: Shape (atoms, 3), film.
    """

    crystals: list[Crystal]
    carbon: Floats


METALS = tuple(LATTICE_CONSTANTS_ANGSTROM)
GOLD = ("Au",)
THICK_ATOMS = 5.0  # in a column, on average over a specimen
FEWEST_THICK_COLUMNS = 60


def random_gold(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """Draws the same of gold alone: the atoms of a column can only be counted where its element is known."""
    return random_nanoparticle(rng, size_angstrom, GOLD)


def random_thick_gold(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """Draws gold until its columns are many and deep: tilt changes their contrast as much as an atom more does."""
    while True:
        specimen = random_gold(rng, size_angstrom)
        counts = [
            atoms
            for atoms, name, ignored in zip(
                specimen.site_atom_counts.tolist(), specimen.site_species, specimen.site_ignored, strict=True
            )
            if name in GOLD and not ignored
        ]
        if len(counts) >= FEWEST_THICK_COLUMNS and np.mean(counts) >= THICK_ATOMS:
            return specimen


def random_gold_on_oxide(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """Draws gold on an oxide, or the oxide alone: crystals of which some look like thin gold."""
    draw = _on_oxide_slab if rng.random() < 0.5 else _on_oxide_edge
    return _specimen(rng, size_angstrom, draw(rng, size_angstrom, GOLD))


def random_nanoparticle(rng: np.random.Generator, size_angstrom: float, elements: Sequence[str] = METALS) -> Specimen:
    """Draws fcc metal particles, or a film of metal, and what surrounds them.

    Columns of metal are sites named after their element; columns of oxide are sites named `support`, the pure oxygen
    ones ignored. Also ignored are columns smeared by tilt and columns of different crystals that overlap.

    Args:
        rng: The source of randomness.
        size_angstrom: The side of the square field. Particles are cut at its border.
        elements: Of which metals.
    """
    draw = SCENES[rng.choice(len(SCENES), p=SCENE_SHARES)]
    return _specimen(rng, size_angstrom, draw(rng, size_angstrom, elements))


def _specimen(rng: np.random.Generator, size: float, scene: Scene) -> Specimen:
    """Cut a scene to the field, and label it; a skin of carbon may grow around the metal first."""
    carbon = scene.carbon
    if scene.crystals and rng.random() < 0.2:
        carbon = np.concatenate([carbon, _halo(rng, scene, size)])
    crystals = [crystal.where(_in_field(crystal.positions, size)) for crystal in scene.crystals]
    return label_columns(crystals, carbon, size)


def _in_vacuum(rng: np.random.Generator, size: float, elements: Sequence[str]) -> Scene:
    """Particles, or a slab, with nothing around."""
    return Scene(_random_metal(rng, size, elements), np.empty((0, 3)))


def _on_film(rng: np.random.Generator, size: float, elements: Sequence[str]) -> Scene:
    """Metal on a carbon film, or half sunk into it; the film may end within the field."""
    thickness = min(10 + rng.exponential(12), 60)
    carbon = amorphous_carbon(rng, size, thickness) - [0, 0, thickness]
    if rng.random() < 0.4:
        carbon = carbon[random_field(rng, size)(carbon) > rng.uniform(-1, 0.5)]
    if rng.random() < 0.15:
        return Scene([], carbon)
    depth = 0 if rng.random() < 0.6 else rng.uniform(0, 1) * thickness
    metal = [crystal.moved([0, 0, -depth]) for crystal in _random_metal(rng, size, elements)]
    return Scene(metal, carbon[_clear_of(carbon, _positions(metal))])


def _on_oxide_slab(rng: np.random.Generator, size: float, elements: Sequence[str]) -> Scene:
    """Metal on a thin oxide crystal, seen from above; the oxide may end within the field."""
    thickness = rng.uniform(6, 30)
    oxide = random_oxide(rng, size, thickness).moved([0, 0, -thickness])
    if rng.random() < 0.7:
        oxide = oxide.where(random_field(rng, size)(oxide.positions) > rng.uniform(-1, 0.3))
    if rng.random() < 0.15:
        return Scene([oxide], np.empty((0, 3)))
    metal = [crystal.moved([0, 0, CONTACT_ANGSTROM]) for crystal in _random_metal(rng, size, elements)]
    oxide = oxide.where(_clear_of(oxide.positions, _positions(metal)))
    return Scene([*metal, oxide], np.empty((0, 3)))


def _on_oxide_edge(rng: np.random.Generator, size: float, elements: Sequence[str]) -> Scene:
    """Particles on the edge of an oxide crystal, seen in profile."""
    thickness = rng.uniform(10, 40)
    oxide = random_oxide(rng, size, thickness).moved([-size / 2, -size / 2, -thickness / 2])
    direction, edge = rng.uniform(0, 2 * np.pi), rng.uniform(-0.4, 0.2) * size
    outward = np.array([np.cos(direction), np.sin(direction), 0])
    along = np.array([-outward[1], outward[0], 0])
    roughness = rng.uniform(0, 1.5) * random_field(rng, 10)(oxide.positions)
    oxide = oxide.where(oxide.positions @ outward + roughness < edge)
    crystals = [oxide]

    def beside_edge(radius: float) -> Floats:
        place: Floats = (edge + radius * rng.uniform(0.2, 0.9)) * outward + rng.uniform(-0.6, 0.6) * size * along
        return place

    if rng.random() < 0.85:
        for particle in _random_particles(rng, size, beside_edge, elements):
            sitting = particle.where(particle.positions @ outward > edge + 1)
            crystals.append(sitting.where(_clear_of(sitting.positions, _positions(crystals))))
    return Scene([crystal.moved([size / 2, size / 2, 0]) for crystal in crystals], np.empty((0, 3)))


SCENES: tuple[Callable[[np.random.Generator, float, Sequence[str]], Scene], ...]
SCENES = (_in_vacuum, _on_film, _on_oxide_slab, _on_oxide_edge)
SCENE_SHARES = (0.35, 0.35, 0.13, 0.17)


def _random_metal(rng: np.random.Generator, size: float, elements: Sequence[str]) -> list[Crystal]:
    """Draws a slab or particles beside each other, their lowest atoms at z = 0."""
    if rng.random() < 0.15:
        symbol = str(rng.choice(elements))
        thickness = np.exp(rng.uniform(np.log(8), np.log(60)))
        return [random_slab(rng, symbol, size, thickness)]

    def anywhere(radius: float) -> Floats:
        x, y = rng.uniform(-0.3 * radius, size + 0.3 * radius, size=2)
        return np.array([x, y, 0])

    placed: list[Crystal] = []
    for particle in _random_particles(rng, size, anywhere, elements):
        lying = particle.moved([0, 0, -particle.positions[:, 2].min()])
        placed.append(lying.where(_clear_of(lying.positions, _positions(placed))))
    return placed


def _random_particles(
    rng: np.random.Generator, size: float, random_centre: Callable[[float], Floats], elements: Sequence[str]
) -> list[Crystal]:
    """Draws particles of similar size, rarely of two elements and rarely touching.

    Args:
        rng: The source of randomness.
        size: The side of the field in Å.
        random_centre: Draws where a particle of a radius in Å is centred, x, y and z.
        elements: Of which metals.
    """
    largest = float(np.exp(rng.uniform(np.log(12), np.log(80))))
    present = rng.permutation(elements)[: 2 if rng.random() < 0.15 else 1]
    closest = 0.9 if rng.random() < 0.15 else 1.1
    wanted_area = rng.uniform(0.1, 0.8) * size**2
    centres, radii = np.empty((0, 3)), np.empty(0)
    for _ in range(12):
        if len(radii) and np.pi * np.sum(radii**2) > wanted_area:
            break
        radius = max(largest * rng.uniform(0.5, 1), 10) / 2
        centre = random_centre(radius)
        if np.all(np.linalg.norm(centres - centre, axis=1) > closest * (radii + radius)):
            centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
    return [
        random_particle(rng, str(rng.choice(present)), 2 * radius).moved(centre)
        for centre, radius in zip(centres, radii, strict=True)
    ]


def _halo(rng: np.random.Generator, scene: Scene, size: float) -> Floats:
    """Draws a thin skin of amorphous carbon around the metal."""
    metal = _positions([crystal for crystal in scene.crystals if crystal.species != "support"])
    if len(metal) == 0:
        return metal
    width = rng.uniform(1, 5)
    lowest, highest = metal[:, 2].min() - 5, metal[:, 2].max() + 5
    carbon = amorphous_carbon(rng, size, highest - lowest) + [0, 0, lowest]
    carbon = carbon[~_clear_of(carbon, metal, CONTACT_ANGSTROM + width)]
    carbon = carbon[_clear_of(carbon, scene.carbon, CARBON_BOND_ANGSTROM)]
    return np.asarray(carbon[_clear_of(carbon, _positions(scene.crystals))])


def _in_field(positions: Floats, size: float) -> NDArray[np.bool_]:
    """Shape (atoms,), true inside the square field."""
    return np.asarray(np.all((positions[:, :2] >= 0) & (positions[:, :2] < size), axis=1))


def _positions(crystals: list[Crystal]) -> Floats:
    """Shape (atoms, 3), the atoms of all crystals."""
    return np.concatenate([np.empty((0, 3)), *(crystal.positions for crystal in crystals)])


def _clear_of(positions: Floats, taken: Floats, distance_angstrom: float = CONTACT_ANGSTROM) -> NDArray[np.bool_]:
    """Shape (atoms,), true where no taken position is within the distance."""
    if len(taken) == 0 or len(positions) == 0:
        return np.ones(len(positions), dtype=bool)
    distances, _ = cKDTree(taken).query(positions, distance_upper_bound=distance_angstrom)
    return np.asarray(np.isinf(distances))


def label_columns(crystals: list[Crystal], carbon: Floats, size: float) -> Specimen:
    """Makes a specimen: each column of each crystal a site, ignored where it cannot be judged.

    Atoms of a crystal seen off its zone axis are ignored sites one by one: there may be something like columns to see,
    and a network taught that crystal is nothing becomes blind to crystals.

    Args:
        crystals: Metal and oxide, which lie in the field.
        carbon: Shape (atoms, 3) in Å, film, cut here to the field.
        size: The side of the field in Å.
    """
    carbon = carbon[_in_field(carbon, size)]
    site_of_atom: list[Integers] = []
    species: list[str] = []
    for crystal in crystals:
        seen = crystal.columns >= 0
        columns, renumbered = np.unique(crystal.columns[seen], return_inverse=True)
        sites = np.full(len(seen), -1)
        sites[seen] = renumbered + len(species)
        site_of_atom.append(sites)
        species += [crystal.species] * len(columns)
    site_of_atom.append(np.full(len(carbon), -1))
    sites = np.concatenate(site_of_atom)
    positions = np.concatenate([_positions(crystals), carbon])
    numbers = np.concatenate([*(crystal.numbers for crystal in crystals), np.full(len(carbon), CARBON)])
    in_crystal = np.arange(len(numbers)) < len(numbers) - len(carbon)
    atoms = atoms_in_vacuum([chemical_symbols[number] for number in numbers], positions, size)
    ignored = _ignored(positions[in_crystal], numbers[in_crystal], sites[in_crystal], np.array(species))
    strays = _strays(crystals, positions[in_crystal], sites[in_crystal], ignored)
    sites[strays] = len(species) + np.arange(len(strays))
    names = np.repeat([crystal.species for crystal in crystals], [len(crystal.columns) for crystal in crystals])
    return Specimen(
        atoms,
        sites.astype(np.int32),
        (*species, *names[strays].tolist()),
        np.concatenate([ignored, np.ones(len(strays), dtype=bool)]),
    )


def _strays(crystals: list[Crystal], positions: Floats, sites: Integers, ignored: NDArray[np.bool_]) -> Integers:
    """Indices of the atoms off their zone axis, but for those beside a column that is judged."""
    # In an oxide on its axis the atoms of no column are oxygen beside cations, and belong to what is seen there.
    off_axis = [
        crystal.columns < 0
        if crystal.species != "support"
        else np.full(len(crystal.columns), (crystal.columns < 0).all())
        for crystal in crystals
    ]
    strays = np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *off_axis]))
    judged = sites >= 0
    judged[judged] = ~ignored[sites[judged]]
    return strays[_clear_of(positions[strays, :2], positions[judged, :2], OVERLAPPING_ANGSTROM)]


def _ignored(positions: Floats, numbers: Integers, sites: Integers, species: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Tells the columns that are pure oxygen, smeared by tilt, or mixed up with another crystal's.

    Args:
        positions: Shape (atoms, 3) in Å, of crystals only: film does not hide a column.
        numbers: Shape (atoms,), atomic numbers.
        sites: Shape (atoms,), the site of each atom or -1.
        species: Shape (sites,), their names.
    """
    count = len(species)
    if count == 0:
        return np.zeros(0, dtype=bool)
    labelled = sites >= 0
    column, flat = sites[labelled], positions[labelled, :2]
    atoms = np.bincount(column, minlength=count)
    mass = np.bincount(column, numbers[labelled], count).astype(np.float64)
    centres = np.stack([np.bincount(column, axis, count) / atoms for axis in flat.T], axis=1)

    spread = np.bincount(column, ((flat - centres[column]) ** 2).sum(axis=1), count) / atoms
    smeared = spread > SMEARED_ANGSTROM**2
    pure_oxygen = mass == atoms * OXYGEN
    overlapping = _overlapping(centres, mass, species != "support")
    shadowed = _shadowed(centres, mass, positions[~labelled, :2], numbers[~labelled])
    return np.asarray(smeared | pure_oxygen | overlapping | shadowed)


def _overlapping(centres: Floats, mass: Floats, is_metal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Shape (sites,), true where two columns are seen as one, and for oxide under metal."""
    tree = cKDTree(centres)
    overlapping = np.zeros(len(centres), dtype=bool)
    close = tree.query_pairs(OVERLAPPING_ANGSTROM, output_type="ndarray")
    covered = tree.query_pairs(COVERED_ANGSTROM, output_type="ndarray")
    for site, other in (close.T, close.T[::-1]):
        # Of metal over oxide the metal is what one sees, if there is much more of it.
        stands_out = is_metal[site] & ~is_metal[other] & (mass[site] > STANDING_OUT * mass[other])
        overlapping[site[~stands_out]] = True
    for site, other in (covered.T, covered.T[::-1]):
        overlapping[site[~is_metal[site] & is_metal[other]]] = True
    return overlapping


def _shadowed(centres: Floats, mass: Floats, strays: Floats, stray_numbers: Integers) -> NDArray[np.bool_]:
    """Shape (sites,), true where atoms of a crystal seen off its zone axis lie on the column."""
    near = cKDTree(centres).query_ball_tree(cKDTree(strays), SHADOWING_ANGSTROM)
    shadow = np.array([stray_numbers[indices].sum() for indices in near])
    return np.asarray(shadow > SHADOWING_SHARE * mass)
