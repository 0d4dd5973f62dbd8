"""The atom table says of each row what stands there, and keeps saying it in files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from daemon.atoms import (
    SCHEMA,
    atom_table,
    counts_by_species,
    found_in_words,
    read_parquet,
    row_classes,
    write_csv,
    write_parquet,
)


@pytest.fixture
def table() -> pa.Table:
    """Two columns of gold, one of oxide, and an empty site."""
    return atom_table(
        np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]),
        0.1,
        ["column", "column", "column", "vacancy"],
        np.full(4, 0.9),
        np.full(4, 0.1),
        species=["Au", "Au", "support", None],
        species_probability=np.array([0.99, 0.98, 0.97, 0.75]),
        n_atoms=[3, 24, None, None],
        n_atoms_probability=[0.8, 0.5, None, None],
    )


def test_rows_say_what_stands_there(table: pa.Table) -> None:
    assert table.schema.equals(SCHEMA)
    assert table.column("kind").to_pylist() == ["column", "column", "column", "vacancy"]
    assert table.column("species").to_pylist() == ["Au", "Au", "support", None]
    assert table.column("n_atoms").to_pylist() == [3, 24, None, None]
    assert table.column("n_atoms_probability").to_pylist() == [pytest.approx(0.8), 0.5, None, None]
    assert table.column("species_probability").to_pylist()[3] == 0.75
    assert table.column("x_angstrom").to_pylist() == pytest.approx([0.1, 0.3, 0.5, 0.7])


def test_vacancies_are_counted_as_such(table: pa.Table) -> None:
    assert counts_by_species(table) == {"Au": 2, "support": 1, "vacancy": 1}


def test_a_vacancy_counts_as_one_even_if_it_is_known_what_is_missing() -> None:
    missing = atom_table(np.ones((2, 2)), 0.1, ["vacancy", "atom"], np.ones(2), np.ones(2), species=["S", "S"])

    assert row_classes(missing) == ["vacancy", "S"]


def test_parquet_keeps_everything(table: pa.Table, tmp_path: Path) -> None:
    write_parquet(table, tmp_path / "atoms.parquet")

    assert read_parquet(tmp_path / "atoms.parquet").equals(table)


def test_csv_keeps_every_value_and_what_is_not_known(table: pa.Table, tmp_path: Path) -> None:
    write_csv(table, tmp_path / "atoms.csv")

    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    kept = pyarrow.csv.read_csv(tmp_path / "atoms.csv", convert_options=options)
    assert kept.column_names == SCHEMA.names
    for name in ("kind", "species", "n_atoms", "x_px"):
        assert kept.column(name).to_pylist() == table.column(name).to_pylist()
    np.testing.assert_allclose(kept.column("probability").to_numpy(), 0.9, rtol=1e-6)


def test_a_table_of_nothing_has_the_same_columns() -> None:
    empty = atom_table(np.zeros((0, 2)), 0.1, [], np.zeros(0), np.zeros(0), [], np.zeros(0), [], [])

    assert empty.schema.equals(SCHEMA)
    assert counts_by_species(empty) == {}


def test_it_is_told_in_words_what_was_found(table: pa.Table) -> None:
    assert found_in_words(table) == "3 columns, 27 atoms counted"
    assert found_in_words(table.slice(2)) == "1 column"
    assert found_in_words(table.slice(3)) == "nothing"
    assert found_in_words(atom_table(np.ones((1, 2)), 0.1, "atom", np.ones(1), np.ones(1), species=["C"])) == "1 atom"
