"""Atom tables in the formats of other programs: spreadsheets, ASE and OVITO, ImageJ."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from roifile import ROI_TYPE, ImagejRoi

from daemon.atoms import header_of
from daemon.errors import ConfigurationError, HrtemdError

# A species that is none of these (`metal`, `support`, `S2`) is written as X, which ASE takes for an unknown atom.
_ELEMENTS = frozenset(
    re.findall(
        "[A-Z][a-z]?",
        "HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCe"
        "PrNdPmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRg"
        "CnNhFlMcLvTsOg",
    )
)


def convert_table(table: pa.Table, target: str) -> bytes:
    """Convert an atom table to a file of another format.

    Args:
        table: See `daemon.atoms`.
        target: `csv`; `extxyz`, for ASE and OVITO; or `imagej-roi`, one multi-point selection.

    Raises:
        ConfigurationError: There is no such format.
        HrtemdError: The table cannot be told in it.
    """
    converter = _CONVERTERS.get(target)
    if converter is None:
        raise ConfigurationError(f"There is no export format {target!r}; choose one of {', '.join(_CONVERTERS)}.")
    return converter(table)


def _to_csv(table: pa.Table) -> bytes:
    stream = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, stream)
    return bytes(stream.getvalue())


def _to_extxyz(table: pa.Table) -> bytes:
    """Write extended XYZ in Å with z = 0.

    y points down as in the table, so that positions compare number by number. Where the table tells of its frame's
    shape, the field of view is the cell; it is never periodic. `label` holds the species, or else the kind, as the
    table has it; `n_atoms` is 0 where the table does not tell.
    """
    columns = ["species:S:1", "pos:R:3", "label:S:1", "probability:R:1", "sigma_angstrom:R:1", "n_atoms:I:1"]
    comment = [f"Properties={':'.join(columns)}", 'pbc="F F F"', *_extxyz_header(header_of(table))]
    rows = [
        f"{_element(row)} {row['x_angstrom']:.4f} {row['y_angstrom']:.4f} 0.0 {_label(row)} "
        f"{row['probability']:.5f} {row['sigma_angstrom']:.5f} {row['n_atoms'] or 0}"
        for row in table.to_pylist()
    ]
    return "\n".join([str(table.num_rows), " ".join(comment), *rows, ""]).encode()


def _extxyz_header(header: dict[str, Any]) -> list[str]:
    entries = []
    pixel_size_angstrom, shape = header.get("pixel_size_angstrom"), header.get("shape")
    if pixel_size_angstrom and shape:
        height, width = (side * pixel_size_angstrom for side in shape)
        entries.append(f'Lattice="{width:.6g} 0 0 0 {height:.6g} 0 0 0 1"')
    for key in ("name", "frame_id", "pixel_size_angstrom", "calibration_source", "model", "model_sha256"):
        if header.get(key) is not None:
            # Names may come from anywhere; a quote or a line break would end the entry.
            value = " ".join(_as_unicode(header[key]).split()).replace("\\", "/").replace('"', "'")
            entries.append(f'{key}="{value}"')
    return entries


def _as_unicode(value: Any) -> str:
    # The name of a file need not be Unicode.
    return str(value).encode(errors="replace").decode()


def _element(row: dict[str, Any]) -> str:
    return str(row["species"]) if row["kind"] != "vacancy" and row["species"] in _ELEMENTS else "X"


def _label(row: dict[str, Any]) -> str:
    if row["kind"] == "vacancy" and row["species"]:
        return f"vacancy-{row['species']}"
    return str(row["species"] or row["kind"])


def _to_imagej_roi(table: pa.Table) -> bytes:
    """Write a multi-point selection; in ImageJ (0, 0) is the corner of the top-left pixel, not its centre."""
    if not table.num_rows:
        raise HrtemdError(
            "The table has no rows, and ImageJ has no selection without points; there is nothing to export."
        )
    points = np.column_stack([table.column("x_px").to_numpy(), table.column("y_px").to_numpy()]) + np.float32(0.5)
    selection = ImagejRoi.frompoints(points, name=_as_unicode(header_of(table).get("name", "atoms")))
    selection.roitype = ROI_TYPE.POINT
    return selection.tobytes()


_CONVERTERS: dict[str, Callable[[pa.Table], bytes]] = {
    "csv": _to_csv,
    "extxyz": _to_extxyz,
    "imagej-roi": _to_imagej_roi,
}
