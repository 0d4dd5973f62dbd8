"""Made-up atom tables: pieces of MoS2, gold and graphene in which everything is known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from daemon.atoms import SCHEMA, with_header

LATTICE_ANGSTROM = 3.18
BOND_ANGSTROM = LATTICE_ANGSTROM / np.sqrt(3)

TableOf = Callable[..., pa.Table]
PieceOf = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def table_of() -> TableOf:
    """Build a table from positions and labels; `header` travels with it."""

    def build(
        positions_angstrom: np.ndarray,
        labels: Sequence[str | None],
        *,
        pixel_size_angstrom: float = 0.2,
        probability: float | Sequence[float] = 1.0,
        label_probability: float | Sequence[float] | None = None,
        n_atoms: Sequence[int | None] | None = None,
        n_atoms_probability: float | Sequence[float] | None = None,
        kind: str = "column",
        **header: Any,
    ) -> pa.Table:
        count = len(positions_angstrom)
        x, y = np.reshape(positions_angstrom, (-1, 2)).T
        columns = {
            "x_px": x / pixel_size_angstrom,
            "y_px": y / pixel_size_angstrom,
            "x_angstrom": x,
            "y_angstrom": y,
            "kind": ["vacancy" if label == "vacancy" else kind for label in labels],
            "species": [None if label == "vacancy" else label for label in labels],
            "n_atoms": n_atoms if n_atoms is not None else [None] * count,
            "n_atoms_probability": _column(n_atoms_probability, count),
            "species_probability": _column(label_probability, count),
            "probability": _column(probability, count),
            "sigma_angstrom": [0.1] * count,
        }
        arrays = [pa.array(list(columns[field.name]), field.type) for field in SCHEMA]
        header.setdefault("pixel_size_angstrom", pixel_size_angstrom)
        return with_header(pa.Table.from_arrays(arrays, schema=SCHEMA), header)

    return build


def _column(values: Any, count: int) -> list[float | None]:
    return [None] * count if values is None else np.broadcast_to(values, count).tolist()


@pytest.fixture(scope="session")
def sheet_of() -> PieceOf:
    """Cut a square of this side out of a MoS2 sheet that is turned and shifted against it; positions and labels."""

    def build(
        side_angstrom: float, angle: float = 0.3, shift_angstrom: Sequence[float] = (0.0, 0.0)
    ) -> tuple[np.ndarray, np.ndarray]:
        cells = np.stack(np.meshgrid(np.arange(-40, 41), np.arange(-40, 41)), axis=-1).reshape(-1, 2)
        corners = cells @ np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]) * LATTICE_ANGSTROM
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        positions = np.concatenate([corners, corners + [0, BOND_ANGSTROM]]) @ turn + side_angstrom / 2 + shift_angstrom
        labels = np.repeat(["Mo", "S2"], len(corners)).astype("<U12")
        inside = ((positions > 0) & (positions < side_angstrom)).all(axis=1)
        return positions[inside], labels[inside]

    return build


@pytest.fixture(scope="session")
def particle_of() -> PieceOf:
    """A round piece of gold seen along ⟨110⟩, thickest in its middle; positions and atoms in each column."""

    def build(radius_angstrom: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.mgrid[-12:13, -12:13]
        grid = np.stack([2.88 * columns, 4.08 * rows], axis=-1).reshape(-1, 2)
        positions = np.concatenate([grid, grid + [1.44, 2.04]]) + [0.3, 0.1]
        distance = np.hypot(*positions.T)
        inside = distance < radius_angstrom
        heights = np.rint(2 * np.sqrt(radius_angstrom**2 - distance[inside] ** 2) / 2.88).astype(int)
        return positions[inside] + 40, heights.clip(min=1)

    return build
