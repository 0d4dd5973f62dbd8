"""Formats that carry pixels and nothing else: PNG and NumPy."""

import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.readers.limits import ReadLimits
from daemon.readers.stack import LAZY_FROM_BYTES, ImageStack

_CHANNELS = (3, 4)
"""Red, green, blue, and perhaps opacity."""


def read_png(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read an 8- or 16-bit grey image; one in colour whose channels are equal is grey too."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        limits.check_frame((image.height, image.width), path.name)
        pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "PA", "LA") else image)
        return [ImageStack(_without_channels(pixels, path.name))]


def read_npy(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read one array, (height, width) or (images, height, width)."""
    is_lazy = path.stat().st_size >= LAZY_FROM_BYTES
    with path.open("rb") as file:
        _check_header(file, path, limits, is_lazy)
    mmap_mode: Literal["r"] | None = "r" if is_lazy else None
    array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    return [ImageStack(_without_channels(_checked(array, path), path.name))]


def read_npz(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read the one array of an archive."""
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            held = ", ".join(archive.files) or "none"
            raise FrameError(
                f"{path.name}: an .npz file must hold one array, this one holds {held}; save just the frame."
            )
        _check_header_within(path, limits)
        return [ImageStack(_without_channels(_checked(archive[archive.files[0]], path), path.name))]


READERS: dict[str, Callable[[Path, ReadLimits], list[ImageStack]]] = {
    ".png": read_png,
    ".npy": read_npy,
    ".npz": read_npz,
}


def _check_header_within(archive: Path, limits: ReadLimits) -> None:
    with zipfile.ZipFile(archive) as members, members.open(members.infolist()[0]) as member:
        _check_header(member, archive, limits, is_lazy=False)


def _check_header(file: IO[bytes], path: Path, limits: ReadLimits, is_lazy: bool) -> None:
    """Look at the size that an array declares of itself; what is no array is left to `np.load`."""
    if file.read(6) != np.lib.format.MAGIC_PREFIX:
        return
    version = tuple(file.read(2))
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    limits.check_frame(shape if len(shape) < 3 or shape[-1] not in _CHANNELS else shape[:-1], path.name)
    if not is_lazy:
        limits.check_bytes(prod(shape) * dtype.itemsize, path.name)


def _checked(array: Any, path: Path) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):  # np.load opens by content: an archive may be named .npy
        raise FrameError(f"{path.name}: the content does not fit the ending {path.suffix}; rename or save it again.")
    if array.ndim not in (2, 3):
        raise FrameError(
            f"{path.name}: a frame has two dimensions and a stack three, this array has shape {array.shape}."
        )
    if array.size == 0:
        raise FrameError(f"{path.name}: the array of shape {array.shape} is empty.")
    return array


def _without_channels(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return the one channel of a grey image that was saved in colour."""
    if array.ndim != 3 or array.shape[-1] not in _CHANNELS:
        return array
    red, green, blue = (array[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    raise FrameError(f"{where}: this is a colour image, not a camera frame; export the raw grey values instead.")
