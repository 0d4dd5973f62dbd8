"""How much of what two frames show they would have in common after each shift.

The farther frames are shifted, the less of them overlaps, and the less they correlate: a perfect lattice would fit best
where it did not move, a particle where it is not cut off. Divided by what they share, a correlation says how well they
agree.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.series.spectra import PAIRS, Grid, Image, Spectrum, fade

CELL_PIXELS = 4
"""Of the map that says how much is shown where."""

LEAST_WINDOW = 0.02
"""Where a frame fades out further, nothing is made of it."""

LEAST_SHARE = 0.05
"""Of the most that is shared after any shift; a smaller share says nothing."""


def shared_contrast(frames: Spectrum, band: NDArray[np.float32], grid: Grid, reach: tuple[int, int]) -> list[Image]:
    """For each of `PAIRS` and each shift, the geometric mean of what either frame shows in the part that overlaps.

    Args:
        frames: Shape (3, rows, columns), their spectra.
        band: Shape (RINGS + 1,), the weight of each ring in the correlation of two frames.
        grid: Of the spectra.
        reach: Rows and columns of the largest shift from the first frame to another; between others twice as many.

    Returns:
        Maps with zero shift in their middles, the largest value 1.
    """
    extent = np.multiply(grid.frame, grid.frame_sampling_angstrom)
    sampling = grid.sampling_angstrom[::-1]
    cells = [max(1, int(length / step) // CELL_PIXELS) for length, step in zip(extent, sampling, strict=True)]
    rows, columns = (CELL_PIXELS * number for number in cells)
    shown = np.square(grid.invert(frames * np.sqrt(band).take(grid.ring)))[:, :rows, :columns]

    # How far a frame has faded out at each of its cells, and where they lie after shifts a cell apart.
    maps = [4 * most + 1 for most in reach]
    down, across = (
        fade((CELL_PIXELS * (np.arange(number) + 0.5) + _places(pixels)[:, None] - pixels // 2) * step, length)
        for number, pixels, step, length in zip(cells, maps, sampling, extent, strict=True)
    )
    window = np.outer(
        *(
            fade(CELL_PIXELS * (np.arange(number) + 0.5) * step, length)
            for number, step, length in zip(cells, sampling, extent, strict=True)
        )
    )
    # The window stands in it twice, and in the correlation once for each frame.
    by_cell = [
        cv2.resize(each, cells[::-1], interpolation=cv2.INTER_AREA) / window.clip(LEAST_WINDOW) for each in shown
    ]
    under_shifted = [down @ each @ across.T for each in by_cell]
    shared = []
    for one, other in PAIRS:
        both = np.sqrt(under_shifted[one] * under_shifted[other][::-1, ::-1])
        both = cv2.resize(both, maps[::-1], interpolation=cv2.INTER_LINEAR)
        if one == 0:
            both = both[reach[0] : -reach[0], reach[1] : -reach[1]]
        shared.append(np.maximum(both / max(both.max(), 1e-20), LEAST_SHARE))
    return shared


def _places(pixels: int) -> NDArray[np.float64]:
    """Where the pixels of a map lie that is enlarged to so many, `CELL_PIXELS` times as many."""
    number = max(1, pixels // CELL_PIXELS)
    return (np.arange(number) + 0.5) * pixels / number - 0.5
