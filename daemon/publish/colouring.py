"""What colours mean in an overlay: the number of atoms where the model counts, else the class, else probability."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon.atoms import row_classes
from daemon.publish.palette import Colour, class_colours, height_colours, probability_colours

_SCALE_STEP = 5
"""The scale of heights ends at a multiple of this, so that most frames of a session share one."""


@dataclass(frozen=True)
class Colouring:
    """The colour of each row of an atom table, and what it says.

    Attributes:
        rows: Shape (n, 3), red, green, blue.
        classes: Colour by class, of the classes whose rows are coloured so.
        deepest: Number of atoms at the upper end of the scale of heights; None where no row tells a number.
    """

    rows: NDArray[np.uint8]
    classes: dict[str, Colour]
    deepest: int | None


def colour_rows(table: pa.Table) -> Colouring:
    """Choose what colour means for a table, and colour its rows."""
    names = row_classes(table)
    n_atoms = np.array([number or 0 for number in table.column("n_atoms").to_pylist()], int)
    counted = n_atoms > 0
    if not counted.any() and len(set(names)) < 2:
        return Colouring(probability_colours(table.column("probability").to_numpy()), {}, None)
    # A class has its colour in every frame, whichever other classes are there.
    colours = class_colours(set(names))
    rows = np.array([colours[name] for name in names], np.uint8)
    if not counted.any():
        return Colouring(rows, colours, None)
    deepest = -(-int(n_atoms.max()) // _SCALE_STEP) * _SCALE_STEP
    rows[counted] = height_colours(n_atoms[counted], deepest)
    uncounted = {name for name, told in zip(names, counted.tolist(), strict=True) if not told}
    return Colouring(rows, {name: colour for name, colour in colours.items() if name in uncounted}, deepest)
