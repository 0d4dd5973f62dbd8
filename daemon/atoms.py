"""The atom table: its schema, written once, and the forms it is kept and sent in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
from numpy.typing import NDArray

_DICTIONARY = pa.dictionary(pa.int8(), pa.string())

SCHEMA = pa.schema(
    [
        # Pixels of the frame as acquired: x to the right, y down, (0, 0) the centre of the top-left pixel.
        pa.field("x_px", pa.float32(), nullable=False),
        pa.field("y_px", pa.float32(), nullable=False),
        pa.field("x_angstrom", pa.float32(), nullable=False),
        pa.field("y_angstrom", pa.float32(), nullable=False),
        pa.field("kind", _DICTIONARY, nullable=False),
        pa.field("species", _DICTIONARY),
        pa.field("n_atoms", pa.int16()),
        pa.field("n_atoms_probability", pa.float32()),
        pa.field("species_probability", pa.float32()),
        pa.field("probability", pa.float32(), nullable=False),
        # One sigma of the position, along each axis.
        pa.field("sigma_angstrom", pa.float32(), nullable=False),
    ]
)

VACANCY = "vacancy"
"""The kind of a site of the lattice that is empty."""
KINDS = ("atom", "column", VACANCY)
SUPPORT = "support"
"""The species of a column of the oxide under or beside a particle."""

_HEADER_KEY = b"hrtemd"


def atom_table(
    positions_px: NDArray[np.floating[Any]],
    pixel_size_angstrom: float,
    kind: str | Sequence[str],
    probability: NDArray[np.floating[Any]],
    sigma_angstrom: NDArray[np.floating[Any]],
    species: Sequence[str | None] | None = None,
    species_probability: NDArray[np.floating[Any]] | None = None,
    n_atoms: Sequence[int | None] | None = None,
    n_atoms_probability: Sequence[float | None] | None = None,
) -> pa.Table:
    """Build a table of atoms, columns and vacancies.

    Args:
        positions_px: Shape (n, 2), x and y in pixels of the acquired frame.
        pixel_size_angstrom: Of the acquired frame.
        kind: Of `KINDS`: one a row, or one for all.
        probability: Shape (n,), calibrated.
        sigma_angstrom: Shape (n,), calibrated, per axis.
        species: One name a row, or None where the model does not tell.
        species_probability: Shape (n,), calibrated: that a site is of its species, or empty, if it is there.
        n_atoms: One number a row, or None where the model does not tell.
        n_atoms_probability: One number a row, calibrated: that a column has so many atoms if it is there.
    """
    count = len(positions_px)
    angstrom = positions_px * pixel_size_angstrom
    columns: dict[str, Any] = {
        "x_px": positions_px[:, 0],
        "y_px": positions_px[:, 1],
        "x_angstrom": angstrom[:, 0],
        "y_angstrom": angstrom[:, 1],
        "kind": [kind] * count if isinstance(kind, str) else kind,
        "species": species,
        "n_atoms": n_atoms,
        "n_atoms_probability": n_atoms_probability,
        "species_probability": species_probability,
        "probability": probability,
        "sigma_angstrom": sigma_angstrom,
    }
    arrays = []
    for field in SCHEMA:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(count, field.type))
        elif field.type == _DICTIONARY:
            arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(_DICTIONARY))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def with_header(table: pa.Table, header: dict[str, Any]) -> pa.Table:
    """Attach the result's header (frame id, model, calibration, warnings ...) to its table as JSON."""
    return table.replace_schema_metadata({_HEADER_KEY: json.dumps(header).encode()})


def header_of(table: pa.Table) -> dict[str, Any]:
    """Return the header a table carries, empty where it carries none."""
    metadata = table.schema.metadata or {}
    header: dict[str, Any] = json.loads(metadata.get(_HEADER_KEY, b"{}"))
    return header


def row_classes(table: pa.Table) -> list[str]:
    """What each row is called: a vacancy so, others by their species, those without one by their kind."""
    classes: list[str] = _classes(table).to_pylist()
    return classes


def counts_by_species(table: pa.Table) -> dict[str, int]:
    """Count rows by what they are called; see `row_classes`."""
    return {found["values"]: found["counts"] for found in _classes(table).value_counts().to_pylist()}


def found_in_words(table: pa.Table) -> str:
    """Say what stands in a table, vacancies left out: `345 atoms`, or `53 columns, 205 atoms counted`."""
    from pyarrow import compute

    in_columns = compute.sum(table.column("n_atoms")).as_py()
    told = []
    for found in table.column("kind").cast(pa.string()).value_counts().to_pylist():
        kind, number = found["values"], found["counts"]
        if kind != VACANCY:
            told.append(f"{number} {kind}{'s' * (number != 1)}")
            if kind == "column" and in_columns:
                told[-1] += f", {in_columns} atoms counted"
    return ", ".join(told) or "nothing"


def _classes(table: pa.Table) -> pa.ChunkedArray:
    # By Arrow, since a frame may have tens of thousands of rows, each of which takes Python microseconds.
    # Imported here, because a client does not need it and would wait for it longest.
    from pyarrow import compute

    kind, species = (table.column(name).cast(pa.string()) for name in ("kind", "species"))
    return compute.if_else(compute.equal(kind, VACANCY), kind, compute.coalesce(species, kind))


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table with its header; lossless."""
    pyarrow.parquet.write_table(table, path)


def read_parquet(path: Path) -> pa.Table:
    """Read a table written by `write_parquet`, header included."""
    return pyarrow.parquet.read_table(path)


def to_stream(table: pa.Table) -> bytes:
    """Put a table with its header into an Arrow IPC stream, as it is sent to clients."""
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def from_stream(content: bytes) -> pa.Table:
    """Return the table of an Arrow IPC stream, header included.

    Raises:
        pyarrow.ArrowInvalid: It is none.
    """
    return pyarrow.ipc.open_stream(content).read_all()


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as CSV with a heading line; the header is not kept."""
    decoded = table.cast(pa.schema([_without_dictionary(field) for field in table.schema]))
    pyarrow.csv.write_csv(decoded, path)


def _without_dictionary(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string()) if field.type == _DICTIONARY else field
