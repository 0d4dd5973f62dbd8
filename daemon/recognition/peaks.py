"""From the network's heads to sites: sub-pixel positions with probability, sigma, class and number of atoms.

Each cell of the output (a few input pixels square) says how probable it is that a site's centre lies in it, where
that centre is, and how sure it is of that. At low dose the probability of one site spreads over several cells, so a
site's probability is the sum over 3 × 3 cells around a maximum, and its position the weighted mean of what these
cells say. The idea of cells with probability, offset and uncertainty is that of DECODE (Speiser et al., Nature
Methods 18, 1082, 2021), from single-molecule microscopy.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CENTRE_WEIGHTS = np.array([0.25, 0.5, 0.25], np.float32)

RIVALS = (np.add.outer(np.square(np.arange(-2, 3)), np.square(np.arange(-2, 3))) <= 4).astype(np.uint8)
"""Cells of which only one can be a site: all closer than a bond's length, in any direction."""

LOG_SIGMA_RANGE = (-4.0, 2.0)
"""Beyond it training does not tell the network anything, so whatever it says there is cut off."""

OWN_REACH = 1.375
"""Cells: half of the least distance between sites. A cell that sees its site farther from where the middle of the 3 × 3
cells sees it speaks of another site."""

LEAST_WEIGHT = 1e-3
"""Of a cell's opinion of how many atoms a column has. Most of the 3 × 3 cells have less, and cost as much."""

PADDING = ((0, 0), (1, 1), (1, 1))
NEIGHBOURS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


@dataclass(frozen=True)
class Peaks:
    """Sites found, in pixels of the network's input and before calibration.

    Attributes:
        positions: Shape (n, 2), x and y.
        probability: Shape (n,), that a site is there.
        sigma: Shape (n,), standard deviation of the position along each axis, in input pixels.
        class_probability: Shape (n, classes), that it is of this class if it is there.
        atoms_probability: Shape (n, deepest column), that the column has 1, 2, ... atoms if it is there; None where the
            network does not count.
    """

    positions: NDArray[np.float32]
    probability: NDArray[np.float32]
    sigma: NDArray[np.float32]
    class_probability: NDArray[np.float32]
    atoms_probability: NDArray[np.float32] | None = None


def find_peaks(heads: NDArray[np.float32], stride: int, lowest_probability: float, deepest_column: int = 0) -> Peaks:
    """Decode the output of a network.

    Args:
        heads: Shape (1 + classes + deepest_column + 3, height, width) in cells: one logit for nothing and one for each
            class, one logit for each number of atoms, the offset of the site from the cell's centre along x and y in
            cells, and the logarithm of its standard deviation.
        stride: Input pixels per cell.
        lowest_probability: Sites of a lower probability are left out.
        deepest_column: Atoms in the deepest column that the network counts, 0 where it does not count.
    """
    class_logits, atoms_logits = np.split(heads[:-3], [len(heads) - 3 - deepest_column])
    rows, columns, shares = _sites(class_occupancy(class_logits), heads[-3:-1], lowest_probability)

    weights = shares.sum(axis=0)
    probability = weights.sum(axis=0)
    weights = weights / np.maximum(probability, 1e-9)
    geometry = np.pad(heads[-3:], PADDING)
    width = geometry.shape[2]
    offset_x, offset_y, log_sigma = _at(geometry, _cells_around((rows + 1) * width + columns + 1, width))
    log_sigma = np.clip(log_sigma, *LOG_SIGMA_RANGE)
    x = columns + NEIGHBOURS[:, 1:] + offset_x
    y = rows + NEIGHBOURS[:, :1] + offset_y
    mean_x, mean_y = (weights * x).sum(axis=0), (weights * y).sum(axis=0)
    scatter = (weights * ((x - mean_x) ** 2 + (y - mean_y) ** 2)).sum(axis=0) / 2
    variance = (weights * np.exp(2 * log_sigma)).sum(axis=0) + scatter
    by_class = shares.sum(axis=1).T
    return Peaks(
        positions=(np.stack([mean_x, mean_y], axis=1) * stride + (stride - 1) / 2).astype(np.float32),
        probability=np.clip(probability, 0, 1),
        sigma=(np.sqrt(variance) * stride).astype(np.float32),
        class_probability=by_class / np.maximum(by_class.sum(axis=1, keepdims=True), 1e-9),
        atoms_probability=_count_atoms(atoms_logits, rows, columns, weights) if deepest_column else None,
    )


def _sites(
    occupancy: NDArray[np.float32], offsets: NDArray[np.float32], lowest_probability: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Find the cell of each site, and what of the occupancy around it is this site's own.

    A cell between two sites can outrank the one whose site lies where four cells meet, and is no site itself. So what
    belongs to the sites found is taken away, and what is left is looked at again until nothing is found in it.

    Returns:
        Rows and columns, each of shape (n,), in order; and the shares of each site's 3 × 3 cells, (classes, 9, n).
    """
    left, total = np.pad(occupancy, PADDING), np.pad(occupancy.sum(axis=0), 1)
    cells_xy, tie_break = _grid(*occupancy.shape[1:])
    places = np.pad(offsets + cells_xy, PADDING)
    is_free = np.pad(np.ones(occupancy.shape[1:], np.uint8), 1)
    sites, shares = [np.zeros(0, np.intp)], [np.zeros((len(occupancy), 9, 0), np.float32)]
    while True:
        window = cv2.boxFilter(total, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        may_be_site = (window >= lowest_probability) & (is_free > 0)
        if not may_be_site.any():
            break
        # Weighted towards the middle, so that the cell between two neighbouring sites does not outrank both. A step too
        # small to matter, different for all 25 cells of a neighbourhood, decides between equals.
        ranking = cv2.sepFilter2D(total, -1, CENTRE_WEIGHTS, CENTRE_WEIGHTS, borderType=cv2.BORDER_CONSTANT)
        ranking = (ranking + tie_break) * is_free
        is_site = may_be_site & (ranking == cv2.dilate(ranking, RIVALS))
        found = np.flatnonzero(is_site)
        if not len(found):
            break
        cells = _cells_around(found, total.shape[1])
        x, y = _at(places, cells)
        is_own = np.hypot(x - x[4], y - y[4]) < OWN_REACH
        sites.append(found)
        shares.append(_at(left, cells) * is_own)
        taken = cells[is_own]
        left.reshape(len(left), -1)[:, taken] = 0.0
        total.ravel()[taken] = 0.0
        is_free &= 1 - cv2.dilate(is_site.astype(np.uint8), RIVALS)
    order = np.argsort(np.concatenate(sites))
    rows, columns = np.divmod(np.concatenate(sites)[order], total.shape[1])
    return rows - 1, columns - 1, np.concatenate(shares, axis=2)[:, :, order]


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of each cell, shape (2, height, width), and the padded step that decides between equals."""
    row, column = np.ogrid[:height, :width]
    cells_xy = np.stack(np.broadcast_arrays(column, row)).astype(np.float32)
    tie_break = np.pad((1e-6 * ((5 * row + column) % 25)).astype(np.float32), 1)
    for shared in (cells_xy, tie_break):
        shared.flags.writeable = False
    return cells_xy, tie_break


def _cells_around(cells: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Shape (9, n): the cells of `NEIGHBOURS` around each of n cells, where a row has so many."""
    return np.asarray((NEIGHBOURS @ (width, 1))[:, None] + cells)


def _at(padded: NDArray[np.float32], cells: NDArray[np.intp]) -> NDArray[np.float32]:
    """Shape (planes, *cells.shape): what stands in cells, which are counted row by row."""
    return padded.reshape(len(padded), -1).take(cells, axis=1)


def class_occupancy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability that a site of each class is centred in each cell.

    Args:
        logits: Shape (1 + classes, height, width), of nothing and of each class.

    Returns:
        Shape (classes, height, width).
    """
    return _softmax(logits)[1:]


def _count_atoms(
    logits: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], weights: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Average what the cells around each site say, by their weights of shape (9, n); shape (n, deepest column)."""
    site, neighbour = np.nonzero(weights.T >= LEAST_WEIGHT)
    by_cell = _softmax(logits[:, rows[site] + NEIGHBOURS[neighbour, 0], columns[site] + NEIGHBOURS[neighbour, 1]])
    first_of_site = np.searchsorted(site, np.arange(len(rows)))
    summed = np.add.reduceat(by_cell * weights[neighbour, site], first_of_site, axis=1) if len(site) else by_cell
    return np.asarray((summed / summed.sum(axis=0)).T, np.float32)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=0))
    probability: NDArray[np.float32] = exponentials / exponentials.sum(axis=0)
    return probability
