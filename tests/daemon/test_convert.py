"""Exported tables mean the same in the programs that read them."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from roifile import ROI_TYPE, ImagejRoi

from daemon.atoms import atom_table, with_header, write_csv
from daemon.errors import ConfigurationError, HrtemdError
from daemon.publish.convert import convert_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ase on import
    from ase.io import read

POSITIONS_PX = np.array([[0.0, 0.0], [10.25, 20.5], [100.125, 3.75]])
HEADER = {"name": "frame-0001", "frame_id": "camera/-/1/0123", "pixel_size_angstrom": 0.2, "model": "graphene"}


def table(species: list[str] | None = None, header: dict[str, Any] = HEADER, kind: str = "atom") -> pa.Table:
    probability, sigma = np.array([0.9, 0.75, 1.0]), np.array([0.05, 0.1, 0.2])
    return with_header(atom_table(POSITIONS_PX, 0.2, kind, probability, sigma, species), header)


def read_extxyz(converted: bytes) -> Any:
    return read(io.StringIO(converted.decode()), format="extxyz")


def test_csv_is_what_the_daemon_writes(tmp_path: Path) -> None:
    write_csv(table(["C", "C", "C"]), tmp_path / "atoms.csv")
    assert convert_table(table(["C", "C", "C"]), "csv") == (tmp_path / "atoms.csv").read_bytes()


def test_ase_reads_positions_species_and_certainty() -> None:
    atoms = read_extxyz(convert_table(table(["C", "Au", "C"]), "extxyz"))
    assert atoms.get_chemical_symbols() == ["C", "Au", "C"]
    np.testing.assert_allclose(atoms.positions, np.column_stack([POSITIONS_PX * 0.2, [0, 0, 0]]), atol=1e-4)
    np.testing.assert_allclose(atoms.arrays["probability"], [0.9, 0.75, 1.0])
    np.testing.assert_allclose(atoms.arrays["sigma_angstrom"], [0.05, 0.1, 0.2])
    assert atoms.arrays["n_atoms"].tolist() == [0, 0, 0]
    assert atoms.info["frame_id"] == "camera/-/1/0123"
    assert not atoms.pbc.any()
    assert not atoms.cell.any(), "the field of view is not known"


def test_what_is_no_element_is_x_and_keeps_its_name() -> None:
    atoms = read_extxyz(convert_table(table(["metal", "S2", "Mo"]), "extxyz"))
    assert atoms.get_chemical_symbols() == ["X", "X", "Mo"]
    assert atoms.arrays["label"].tolist() == ["metal", "S2", "Mo"]


def test_a_vacancy_is_not_an_atom() -> None:
    atoms = read_extxyz(convert_table(table(["S", "S", "S"], kind="vacancy"), "extxyz"))
    assert atoms.get_chemical_symbols() == ["X", "X", "X"]
    assert atoms.arrays["label"].tolist() == ["vacancy-S"] * 3


def test_atoms_of_unknown_species_carry_their_kind() -> None:
    atoms = read_extxyz(convert_table(table(), "extxyz"))
    assert atoms.arrays["label"].tolist() == ["atom"] * 3


def test_the_field_of_view_is_the_cell_but_not_periodic() -> None:
    atoms = read_extxyz(convert_table(table(header=HEADER | {"shape": [256, 512]}), "extxyz"))
    np.testing.assert_allclose(np.diag(atoms.cell)[:2], [102.4, 51.2])
    assert not atoms.pbc.any()


def test_names_from_the_wire_do_not_break_the_file() -> None:
    atoms = read_extxyz(convert_table(table(header={"name": 'a "b"\n1\nC 0 0 0 \\', "model": "graphene"}), "extxyz"))
    assert len(atoms) == 3
    assert atoms.info["model"] == "graphene"


def test_a_name_that_is_not_unicode_is_exported_all_the_same() -> None:
    odd = table(header={"name": "bad\udcff", "model": "graphene"})
    assert read_extxyz(convert_table(odd, "extxyz")).info["name"] == "bad?"
    assert ImagejRoi.frombytes(convert_table(odd, "imagej-roi")).name == "bad?"


def test_imagej_shows_the_points_on_the_atoms() -> None:
    selection = ImagejRoi.frombytes(convert_table(table(), "imagej-roi"))
    assert selection.roitype == ROI_TYPE.POINT
    assert selection.name == "frame-0001"
    # The centre of the top-left pixel is at (0.5, 0.5) in ImageJ.
    np.testing.assert_allclose(selection.coordinates(), POSITIONS_PX + 0.5)


def test_imagej_roi_is_in_imagej_own_byte_order() -> None:
    converted = convert_table(table(), "imagej-roi")
    assert converted[:4] == b"Iout"
    assert converted[6] == 10, "the point type"
    assert int.from_bytes(converted[16:18], "big") == 3


def test_a_large_table_converts_to_every_format() -> None:
    count = 70_000
    many = atom_table(np.random.default_rng(0).random((count, 2)) * 4096, 0.1, "atom", np.ones(count), np.ones(count))
    assert len(ImagejRoi.frombytes(convert_table(many, "imagej-roi")).coordinates()) == count
    assert convert_table(many, "extxyz").startswith(b"70000\n")
    assert convert_table(many, "csv").count(b"\n") == count + 1


def test_a_table_without_atoms_is_an_empty_file_but_no_selection() -> None:
    empty = table().slice(0, 0)
    assert convert_table(empty, "csv").count(b"\n") == 1
    assert len(read_extxyz(convert_table(empty, "extxyz"))) == 0
    with pytest.raises(HrtemdError, match="no rows"):
        convert_table(empty, "imagej-roi")


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="csv, extxyz, imagej-roi"):
        convert_table(table(), "xls")
