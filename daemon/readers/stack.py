"""What every reader returns: the images of one data set, not yet calibrated or named."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.frames import Acquisition

LAZY_FROM_BYTES = 256 * 2**20
"""Larger files are loaded image by image where their format can; smaller ones at once, which holds no file open."""


class Axis(NamedTuple):
    """The step along one direction of an image, in the file's own unit; None where it has none."""

    scale: float = 1.0
    unit: str | None = None


UNCALIBRATED = Axis()


@dataclass(frozen=True)
class ImageStack:
    """One image, or several of the same size.

    Attributes:
        pixels: Shape (..., height, width); a NumPy array, or a Dask or memory-mapped one that loads when it is read.
        y: The step from row to row.
        x: The step from column to column.
        acquisition: As far as the file tells, the same for all images.
        acquired_at: None where the file does not tell.
    """

    pixels: Any
    y: Axis = UNCALIBRATED
    x: Axis = UNCALIBRATED
    acquisition: Acquisition = field(default_factory=Acquisition)
    acquired_at: datetime | None = None

    def positions(self) -> list[tuple[int, ...]]:
        """Return where each image is in `pixels`, in order."""
        return list(np.ndindex(*self.pixels.shape[:-2]))

    def load(self, position: tuple[int, ...]) -> NDArray[Any]:
        """Read one image into memory, in this machine's byte order."""
        image = self.pixels[position]
        if hasattr(image, "compute"):
            image = image.compute(scheduler="synchronous")
        image = np.array(image, copy=None if type(image) is np.ndarray else True)
        return image.astype(image.dtype.newbyteorder("="), copy=False)
