"""Graphene as a microscopist meets it, from pristine to badly damaged."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.amorphous import atoms_in_vacuum
from trainer.specimens.bending import random_bending
from trainer.specimens.contamination import (
    OPAQUE_COUNT,
    clear_of,
    hidden_by,
    random_adatoms,
    random_patch,
)
from trainer.specimens.damage import (
    SMALLEST_FRAGMENT,
    add_vacancies,
    carbon_chains,
    cut_edge,
    cut_flakes,
    cut_holes,
    erode_edges,
    rebond,
    rotate_bonds,
)
from trainer.specimens.rings import disordered, grains, lattice_centres, sheet_of
from trainer.specimens.specimen import Specimen

PRISTINE_SHARE = 0.25
CONTAMINATED_SHARE = 0.45
ADATOM_SHARE = 0.1
# Atoms that overlap in projection cannot be told apart.
OVERLAP_ANGSTROM = 0.6
# Tilt, strain and the frayed rim of a network take this from the field.
FORESHORTENING = 1.12
RIM_ANGSTROM = 14.0
RELAXATION_STEPS = 120


def random_graphene(rng: np.random.Generator, size_angstrom: float) -> Specimen:
    """One sheet of graphene that fills a square field, every carbon atom of it a site.

    Args:
        rng: Source of every random choice.
        size_angstrom: Edge length of the field.

    Returns:
        The sheet with its contamination. Atoms below thick contamination are no sites, those below thin
        contamination and those that overlap are ignored.
    """
    extent = FORESHORTENING * size_angstrom + RIM_ANGSTROM
    flat = _random_sheet(rng, extent)
    symbols, dirt = _random_dirt(rng, flat, extent)

    bending = random_bending(rng)
    middle = np.array([size_angstrom / 2, size_angstrom / 2, 0.0])
    sheet = bending(np.column_stack([flat, np.zeros(len(flat))])) + middle
    dirt = bending(dirt) + middle

    sheet = sheet[_in_field(sheet, size_angstrom)]
    if not len(sheet):
        # All of it lies outside, or was cut away.
        return random_graphene(rng, size_angstrom)
    kept = np.flatnonzero(_in_field(dirt, size_angstrom))
    kept = kept[clear_of(dirt[kept], sheet)]
    return labelled_sheet(sheet, symbols[kept], dirt[kept], size_angstrom)


def labelled_sheet(
    sheet: NDArray[np.float64], symbols: NDArray[np.str_], dirt: NDArray[np.float64], size_angstrom: float
) -> Specimen:
    """Says which atoms of a sheet can be found under its contamination.

    Args:
        sheet: Shape (atoms, 3), the sheet's carbon atoms in Å.
        symbols: Chemical symbols of the contamination.
        dirt: Shape (contamination atoms, 3), in Å.
        size_angstrom: Edge length of the field.

    Returns:
        Sheet and contamination with their sites.
    """
    hiding = hidden_by(sheet, dirt)
    overlapping = np.zeros(len(sheet), dtype=bool)
    overlapping[cKDTree(sheet[:, :2]).query_pairs(OVERLAP_ANGSTROM, output_type="ndarray").ravel()] = True

    findable = hiding < OPAQUE_COUNT
    sites = np.full(len(sheet) + len(dirt), -1, dtype=np.int32)
    sites[: len(sheet)][findable] = np.arange(findable.sum())
    return Specimen(
        atoms=atoms_in_vacuum(["C"] * len(sheet) + list(symbols), np.vstack([sheet, dirt]), size_angstrom),
        site_of_atom=sites,
        site_species=("C",) * int(findable.sum()),
        site_ignored=((hiding > 0) | overlapping)[findable],
    )


def _random_sheet(rng: np.random.Generator, extent_angstrom: float) -> NDArray[np.float64]:
    """Shape (atoms, 2), a flat relaxed sheet around the origin, in Å."""
    zigzag_angle = rng.uniform(0, 2 * np.pi)
    pristine = rng.random() < PRISTINE_SHARE
    boundary, disorder, defects, holes, edge = rng.random(5) < ([0.0] * 5 if pristine else [0.3, 0.2, 0.5, 0.4, 0.25])
    flakes = not pristine and rng.random() < 0.07

    if boundary:
        angles = zigzag_angle + np.append(0.0, rng.uniform(0, np.pi / 3, rng.integers(1, 3)))
        centres = grains(rng, extent_angstrom, angles)
    else:
        centres = lattice_centres(extent_angstrom, zigzag_angle, rng.uniform(-1.5, 1.5, 2))
    if disorder:
        centres = disordered(rng, centres)

    sheet = sheet_of(centres)
    if pristine:
        return sheet.compressed().positions
    sheet.trim(SMALLEST_FRAGMENT)
    sheet = sheet.compressed()
    if defects:
        # Up to one defect in 2 nm².
        most = max(2.0, extent_angstrom**2 / 200)
        rotate_bonds(rng, sheet, int(np.exp(rng.uniform(0, np.log(most)))))
        add_vacancies(rng, sheet, int(np.exp(rng.uniform(0, np.log(most)))))
    if holes:
        cut_holes(rng, sheet, round(np.exp(rng.uniform(0, np.log(15)))), zigzag_angle)
    if edge:
        cut_edge(rng, sheet, zigzag_angle)
    if flakes:
        cut_flakes(rng, sheet, 12)
    erode_edges(rng, sheet, rng.choice([0.0, 0.1, 0.4]))
    rebond(rng, sheet, rng.choice([0.0, 0.3, 0.9]))
    sheet.trim(SMALLEST_FRAGMENT)
    sheet = sheet.compressed()
    sheet.relax(RELAXATION_STEPS)
    chains = carbon_chains(rng, sheet, int(rng.integers(0, 4)) if holes or edge else 0)
    return np.concatenate([sheet.positions, chains])


def _random_dirt(
    rng: np.random.Generator, sheet: NDArray[np.float64], extent_angstrom: float
) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Symbols and positions, shape (atoms, 3), of what lies on a flat sheet at z = 0."""
    symbols: list[str] = []
    positions = [np.empty((0, 3))]
    if len(sheet) and rng.random() < CONTAMINATED_SHARE:
        sides = rng.permutation([-1.0, 1.0])[: rng.integers(1, 3)]
        positions += [random_patch(rng, sheet, extent_angstrom, side) for side in sides]
        symbols += ["C"] * sum(map(len, positions))
    if len(sheet) and rng.random() < ADATOM_SHARE:
        adatoms, places = random_adatoms(rng, sheet)
        symbols += adatoms
        positions.append(places)
    return np.array(symbols, dtype=np.str_), np.concatenate(positions)


def _in_field(positions: NDArray[np.float64], size_angstrom: float) -> NDArray[np.bool_]:
    """Shape (atoms,), true for atoms inside the field."""
    lateral = positions[:, :2]
    return np.asarray(((lateral >= 0) & (lateral < size_angstrom)).all(axis=1), dtype=np.bool_)
