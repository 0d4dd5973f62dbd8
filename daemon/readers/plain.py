"""Formats that carry pixels and nothing else: PNG and NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.readers.stack import LAZY_FROM_BYTES, ImageStack


def read_png(path: Path) -> list[ImageStack]:
    """Read an 8- or 16-bit grey image; one in colour whose channels are equal is grey too."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "PA", "LA") else image)
        return [ImageStack(_without_channels(pixels, path.name))]


def read_npy(path: Path) -> list[ImageStack]:
    """Read one array, (height, width) or (images, height, width)."""
    mmap_mode: Literal["r"] | None = "r" if path.stat().st_size >= LAZY_FROM_BYTES else None
    array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    return [ImageStack(_without_channels(_checked(array, path), path.name))]


def read_npz(path: Path) -> list[ImageStack]:
    """Read the one array of an archive."""
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            held = ", ".join(archive.files) or "none"
            raise FrameError(
                f"{path.name}: an .npz file must hold one array, this one holds {held}; save just the frame."
            )
        return [ImageStack(_without_channels(_checked(archive[archive.files[0]], path), path.name))]


READERS: dict[str, Callable[[Path], list[ImageStack]]] = {".png": read_png, ".npy": read_npy, ".npz": read_npz}


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
    if array.ndim != 3 or array.shape[-1] not in (3, 4):
        return array
    red, green, blue = (array[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    raise FrameError(f"{where}: this is a colour image, not a camera frame; export the raw grey values instead.")
