"""Sheets of 1H-MoS2 with everything that may stand, or be missing, at a site of them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.atoms import VACANCY
from trainer.specimens.amorphous import atoms_in_vacuum
from trainer.specimens.bending import random_bending
from trainer.specimens.contamination import clear_of, hidden_by, random_adatoms, random_patch
from trainer.specimens.damage import SMALLEST_FRAGMENT, cut_edge, cut_flakes, cut_holes, erode_edges
from trainer.specimens.mos2_damage import (
    ANTISITES_ON_METAL,
    ANTISITES_ON_SULPHUR,
    CARBON,
    NITROGEN,
    ON_METAL,
    ON_SULPHUR,
    OXYGEN,
    SELENIUM,
    TELLURIUM,
    add_clusters,
    add_lines,
    add_vacancies,
    relax_around_vacancies,
    substitute,
    thin_edges,
)
from trainer.specimens.mos2_lattice import HOST_METAL, MIDDLE, MOLYBDENUM, SULPHUR, Lattice, crystal, random_grains
from trainer.specimens.specimen import Specimen

PRISTINE_SHARE = 0.1
CONTAMINATED_SHARE = 0.35
ADATOM_SHARE = 0.2
ADATOM_SPECIES = ("Mo", "S", "C", "O", "W")

# Of the sites of a kind: from a few in a field to as many as a beam makes before the sheet falls apart.
FEWEST = 1e-3
MOST_SINGLE = 0.1
MOST_DOUBLE = 0.05
MOST_METAL = 0.03
MOST_FOREIGN = 0.08
MOST_ANTISITES = 0.015

TILT_DEGREES = 10.0
# Of the two layers of sulphur where the sheet is steep, seen along the beam. The atoms of a column then show apart.
SPLIT_ANGSTROM = 0.5
OVERLAP_ANGSTROM = 0.8
# Tilt, strain and the frayed rim of what was cut take this from the field.
FORESHORTENING = 1.08
RIM_ANGSTROM = 10.0

HALF_THICKNESS_ANGSTROM = 1.565
UP = np.array([0.0, 0.0, 1.0])
# Above and below the metal's plane, for bonds to three atoms of molybdenum: 2.05 Å of a light atom, 2.40 of S, 2.53 of
# Se, 2.71 of Te, 2.60 of Mo.
HEIGHTS_ANGSTROM = {
    CARBON: 0.95,
    NITROGEN: 0.95,
    OXYGEN: 0.95,
    SULPHUR: HALF_THICKNESS_ANGSTROM,
    SELENIUM: 1.75,
    TELLURIUM: 2.0,
    MOLYBDENUM: 1.85,
}

Bend = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From positions on a flat sheet around the origin, shape (atoms, 3) in Å, to positions in the field."""


def random_mos2(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """One sheet of 1H-MoS2 that fills a square field, every site of its lattice a site.

    Sites are named `Mo`, `S2`, `S` where one sulphur of two is missing, `vacancy` where nothing is left, and
    `substitution` where a foreign atom stands, or one on the wrong sublattice.

    Args:
        rng: Source of every random choice.
        size_angstrom: Edge length of the field.

    Returns:
        The sheet with its contamination. Sites under contamination are ignored, and so are those that overlap and
        those whose atoms stand apart because the sheet is steep.
    """
    extent = FORESHORTENING * size_angstrom + RIM_ANGSTROM
    lattice = _random_lattice(rng, extent)
    symbols, dirt = _random_dirt(rng, lattice.positions[lattice.occupied()], extent)
    bending = random_bending(rng, TILT_DEGREES)
    middle = np.array([size_angstrom / 2, size_angstrom / 2, 0.0])
    specimen = labelled_lattice(lattice, lambda flat: bending(flat) + middle, symbols, dirt, size_angstrom)
    if not specimen.site_species:
        # All of it lies outside, or was cut away.
        return random_mos2(rng, size_angstrom)
    return specimen


def labelled_lattice(
    lattice: Lattice, bend: Bend, symbols: NDArray[np.str_], dirt: NDArray[np.float64], size_angstrom: float
) -> Specimen:
    """Puts a sheet into the field, and says what is to be found at its sites.

    Args:
        lattice: The flat sheet.
        bend: How it lies in the field.
        symbols: Chemical symbols of the contamination.
        dirt: Shape (contamination atoms, 3), in Å, on the flat sheet.
        size_angstrom: Edge length of the field.

    Returns:
        Sheet and contamination with their sites; a site that is not all in the field is left out with its atoms.
    """
    flat = np.column_stack([lattice.positions, np.zeros(len(lattice.positions))])
    site, layer = np.nonzero(lattice.occupants)
    numbers = lattice.occupants[site, layer]
    # The metals' own plane is at 0, whatever stands in it.
    heights = (layer - MIDDLE) * np.array([HEIGHTS_ANGSTROM.get(int(number), 0.0) for number in numbers])
    sheet = bend(flat[site] + heights[:, None] * UP)
    outside = np.bincount(site, ~_in_field(sheet, size_angstrom), len(flat))[site] > 0
    sheet, numbers, site = sheet[~outside], numbers[~outside], site[~outside]
    occupied, site_of_atom = np.unique(site, return_inverse=True)

    vacant = np.flatnonzero(lattice.vacancies())
    vacant = vacant[_in_field(bend(flat[vacant]), size_angstrom)]
    sites = np.append(occupied, vacant)
    layers = [bend(flat[sites] + side * HALF_THICKNESS_ANGSTROM * UP)[:, :2] for side in (-1, 1)]
    steep = ~lattice.is_metal[sites] & (np.linalg.norm(layers[1] - layers[0], axis=1) > SPLIT_ANGSTROM)

    dirt = bend(dirt)
    kept = np.flatnonzero(_in_field(dirt, size_angstrom))
    if len(sheet):
        kept = kept[clear_of(dirt[kept], sheet)]
    dirt, symbols = dirt[kept], symbols[kept]

    specimen = Specimen(
        atoms=atoms_in_vacuum(
            [chemical_symbols[number] for number in numbers] + list(symbols), np.vstack([sheet, dirt]), size_angstrom
        ),
        site_of_atom=np.append(site_of_atom, np.full(len(dirt), -1)).astype(np.int32),
        site_species=tuple(lattice_species(lattice)[sites].tolist()),
        site_ignored=steep,
        vacant_positions=bend(flat[vacant])[:, :2],
    )
    positions = specimen.site_positions()
    # One atom of carbon makes S look like S2, but no dirt drawn here is so thick that a site could not be seen at all.
    hidden = hidden_by(positions, dirt) > 0
    overlapping = np.zeros(len(sites), dtype=bool)
    overlapping[cKDTree(positions).query_pairs(OVERLAP_ANGSTROM, output_type="ndarray").ravel()] = True
    return replace(specimen, site_ignored=steep | hidden | overlapping)


def lattice_species(lattice: Lattice) -> NDArray[np.str_]:
    """Shape (sites,), the name of each site by who stands there."""
    only_sulphur = ~lattice.is_metal & np.isin(lattice.occupants, [0, SULPHUR]).all(axis=1)
    left = (lattice.occupants > 0).sum(axis=1)
    is_host = lattice.is_metal & (lattice.occupants == HOST_METAL).all(axis=1)
    return np.select(
        [left == 0, is_host, only_sulphur & (left == 2), only_sulphur & (left == 1)],
        [VACANCY, "Mo", "S2", "S"],
        "substitution",
    )


def _random_lattice(rng: np.random.Generator, extent_angstrom: float) -> Lattice:
    """A flat sheet around the origin, pristine or damaged."""
    zigzag_angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < PRISTINE_SHARE:
        return Lattice.perfect(*crystal(extent_angstrom, zigzag_angle, rng.uniform(-1.5, 1.5, 2)))
    boundary, holes, edge, flakes = rng.random(4) < [0.3, 0.3, 0.3, 0.06]
    if boundary:
        lattice = Lattice.perfect(*random_grains(rng, extent_angstrom, zigzag_angle))
    else:
        lattice = Lattice.perfect(*crystal(extent_angstrom, zigzag_angle, rng.uniform(-1.5, 1.5, 2)))
    if holes or edge or flakes:
        _cut(rng, lattice, zigzag_angle, holes, edge, flakes)
    _damage(rng, lattice)
    relax_around_vacancies(rng, lattice)
    return lattice


def _cut(
    rng: np.random.Generator, lattice: Lattice, zigzag_angle: float, holes: bool, edge: bool, flakes: bool
) -> None:
    sheet = lattice.sheet()
    if holes:
        cut_holes(rng, sheet, round(np.exp(rng.uniform(0, np.log(8)))), zigzag_angle)
    if edge:
        cut_edge(rng, sheet, zigzag_angle)
    if flakes:
        cut_flakes(rng, sheet, 12)
        # Flakes were turned, what was between them was not.
        lattice.neighbours[~sheet.present] = -1
    erode_edges(rng, sheet, rng.choice([0.0, 0.1, 0.4]))
    sheet.trim(SMALLEST_FRAGMENT)
    lattice.positions = sheet.positions
    lattice.occupants[~sheet.present] = 0
    thin_edges(rng, lattice, rng.choice([0.0, 0.3, 0.9]))


def _damage(rng: np.random.Generator, lattice: Lattice) -> None:
    """Draws which kinds of point defects there are, and how many of each."""

    def share(probability: float, most: float) -> float:
        drawn = np.exp(rng.uniform(np.log(FEWEST), np.log(most)))
        return float(drawn) if rng.random() < probability else 0.0

    lines, clusters = rng.random(2) < [0.25, 0.3]
    add_lines(rng, lattice, int(rng.integers(1, 6)) if lines else 0)
    add_clusters(rng, lattice, round(np.exp(rng.uniform(0, np.log(12)))) if clusters else 0)
    shares = share(0.8, MOST_SINGLE), share(0.7, MOST_DOUBLE), share(0.5, MOST_METAL)
    add_vacancies(rng, lattice, shares)
    for on_metal, foreign, antisites in (
        (True, ON_METAL, ANTISITES_ON_METAL),
        (False, ON_SULPHUR, ANTISITES_ON_SULPHUR),
    ):
        substitute(rng, lattice, share(0.5, MOST_FOREIGN), on_metal=on_metal, substitutes=foreign)
        substitute(rng, lattice, share(0.3, MOST_ANTISITES), on_metal=on_metal, substitutes=antisites)


def _random_dirt(
    rng: np.random.Generator, sheet: NDArray[np.float64], extent_angstrom: float
) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Symbols and positions, shape (atoms, 3), of what lies on a flat sheet whose metal is at z = 0."""
    symbols: list[str] = []
    positions = [np.empty((0, 3))]
    if len(sheet) and rng.random() < CONTAMINATED_SHARE:
        sides = rng.permutation([-1.0, 1.0])[: rng.integers(1, 3)]
        positions += [random_patch(rng, sheet, extent_angstrom, side) for side in sides]
        symbols += ["C"] * sum(map(len, positions))
    if len(sheet) and rng.random() < ADATOM_SHARE:
        adatoms, places = random_adatoms(rng, sheet, ADATOM_SPECIES)
        symbols += adatoms
        positions.append(places)
    dirt = np.concatenate(positions)
    dirt[:, 2] += np.sign(dirt[:, 2]) * HALF_THICKNESS_ANGSTROM
    return np.array(symbols, dtype=np.str_), dirt


def _in_field(positions: NDArray[np.float64], size_angstrom: float) -> NDArray[np.bool_]:
    """Shape (atoms,), true for atoms inside the field."""
    lateral = positions[:, :2]
    return np.asarray(((lateral >= 0) & (lateral < size_angstrom)).all(axis=1), dtype=np.bool_)
