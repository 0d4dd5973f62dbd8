"""What every reader returns: the images of one data set, not yet calibrated or named."""

from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from pathlib import Path
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
class ImagesInFile:
    """Stands for an array whose bytes lie in a file as they are; each image is read when it is asked for.

    It is not mapped into memory: a program that cuts a mapped file short takes the whole process with it.

    Attributes:
        path: The file.
        dtype: Of a pixel, with its byte order.
        first_at: Where the array begins, in bytes.
        shape: Of the array, (..., height, width).
    """

    path: Path
    dtype: np.dtype[Any]
    first_at: int
    shape: tuple[int, ...]

    def __getitem__(self, position: tuple[int, ...]) -> NDArray[Any]:
        index = int(np.ravel_multi_index(position, self.shape[:-2])) if position else 0
        size = prod(self.shape[-2:]) * self.dtype.itemsize
        with self.path.open("rb") as file:
            file.seek(self.first_at + index * size)
            content = file.read(size)
        if len(content) < size:
            raise EOFError("the file has become shorter")
        return np.frombuffer(content, self.dtype).reshape(self.shape[-2:])


@dataclass(frozen=True)
class ImageStack:
    """One image, or several of the same size.

    Attributes:
        pixels: Shape (..., height, width); a NumPy array, or something like it that loads when it is read.
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
