from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.atoms import atom_table
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.graphene_geometry import (
    RealImage,
    SheetGeometry,
    judge_real_graphene,
    sheet_geometry,
    summarise,
)

PIXEL_SIZE = 0.3
SIDE = 200  # 60 Å
CLEAN = np.zeros((SIDE, SIDE), bool)


def graphene_px(bond_angstrom=1.42):
    """Pixel coordinates of a sheet that fills the image."""
    a = bond_angstrom * np.sqrt(3)
    cells = np.stack(np.meshgrid(np.arange(-40, 80), np.arange(-40, 80)), axis=-1).reshape(-1, 2)
    corners = cells @ np.array([[a, 0], [a / 2, a * np.sqrt(3) / 2]])
    atoms = np.concatenate([corners, corners + [a / 2, a / (2 * np.sqrt(3))]])
    inside = ((atoms > -0.1) & (atoms < SIDE * PIXEL_SIZE - 0.2)).all(axis=1)
    return atoms[inside] / PIXEL_SIZE


def test_a_perfect_sheet():
    geometry = sheet_geometry(graphene_px(), CLEAN, PIXEL_SIZE)
    assert geometry.three_coordinated_share == 1
    assert geometry.bond_length_angstrom == pytest.approx(1.42, abs=1e-3)
    assert geometry.density_per_square_angstrom == pytest.approx(0.382, abs=0.005)
    assert geometry.clean_area_square_angstrom == pytest.approx(56**2, rel=0.02)


def test_a_noisy_sheet_is_still_a_sheet():
    positions = graphene_px()
    noise = np.random.default_rng(8).normal(0, 0.1 / PIXEL_SIZE, positions.shape)
    assert sheet_geometry(positions + noise, CLEAN, PIXEL_SIZE).three_coordinated_share > 0.95


def test_a_missing_atom_costs_its_three_neighbours():
    positions = graphene_px()
    middle = np.linalg.norm(positions - SIDE / 2, axis=1).argmin()
    geometry = sheet_geometry(np.delete(positions, middle, axis=0), CLEAN, PIXEL_SIZE)
    assert geometry.three_coordinated_share == pytest.approx(1 - 3 / geometry.atoms)


def test_hexagon_centres_found_as_atoms_spoil_everything():
    positions = graphene_px()
    # The lattice of inverted contrast: shift one sublattice onto the centres, so that these are found as well.
    centres = positions[: len(positions) // 2] - [0, 1.42 / PIXEL_SIZE]
    assert sheet_geometry(np.concatenate([positions, centres]), CLEAN, PIXEL_SIZE).three_coordinated_share < 0.1


def test_an_atom_found_twice_is_not_a_bond():
    positions = graphene_px()
    twice = np.concatenate([positions, positions + [0.5 / PIXEL_SIZE, 0]])
    assert sheet_geometry(twice, CLEAN, PIXEL_SIZE).three_coordinated_share == 0


def test_random_points_are_no_lattice():
    positions = np.random.default_rng(9).uniform(0, SIDE, (1200, 2))
    assert sheet_geometry(positions, CLEAN, PIXEL_SIZE).three_coordinated_share < 0.2


def test_nothing_found_deserves_nothing():
    assert sheet_geometry(np.zeros((0, 2)), CLEAN, PIXEL_SIZE).three_coordinated_share == 0


def test_contamination_and_its_margin_are_left_out():
    contamination = CLEAN.copy()
    contamination[:, :100] = True
    positions = graphene_px()
    garbage = np.random.default_rng(10).uniform(0, (99, SIDE), (500, 2))
    dirty = np.concatenate([positions[positions[:, 0] > 100], garbage])
    geometry = sheet_geometry(dirty, contamination, PIXEL_SIZE)
    assert geometry.three_coordinated_share == 1
    # 60 Å wide, half of it masked, then 6 Å of margin and 2 Å of border.
    assert geometry.clean_area_square_angstrom == pytest.approx((30 - 8) * 56, rel=0.03)


def test_warnings_are_held_against_the_share_of_good_atoms():
    def image(share, *warnings):
        return RealImage("x.png", SheetGeometry(100, 500.0, share, 1.42), warnings)

    result = summarise([image(0.2, "no lattice"), image(0.5), image(0.8, "tilt"), image(0.95), image(0.99), image(1.0)])
    assert result.warned_among_poor == 0.5
    assert result.warned_among_good == 0
    assert result.mean_share == pytest.approx(0.74)
    assert result.median_share == pytest.approx(0.875)
    assert np.isnan(summarise([image(0.95)]).warned_among_poor)


class FindsThePerfectSheet:
    def recognise(self, frame):
        positions = graphene_px()
        ones = np.ones(len(positions))
        table = atom_table(positions, frame.calibration.pixel_size_angstrom, "atom", ones, ones)
        return Recognition(frame, frame.calibration, table, [], {}, "fake", "", "none")


def test_a_folder_of_images_is_read_with_its_masks_and_pixel_sizes(tmp_path):
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:100] = 255
    Image.fromarray(mask).save(tmp_path / "a_LABEL.png")
    (tmp_path / "calibration.csv").write_text(f"file,pixel_size_angstrom,lattice_ring\na.png,{PIXEL_SIZE},10-10\n")
    (image,) = judge_real_graphene(FindsThePerfectSheet(), tmp_path).images
    assert image.geometry.three_coordinated_share == 1
    assert image.geometry.clean_area_square_angstrom == pytest.approx((30 - 8) * 56, rel=0.03)


def test_the_real_images_can_be_read():
    folder = Path(__file__).parents[3] / "shared/real/graphene"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    result = judge_real_graphene(FindsThePerfectSheet(), folder)
    assert len(result.images) == 49
    assert all(image.geometry.clean_area_square_angstrom > 300 for image in result.images)
