"""Formats that carry pixels and nothing else: PNG and NumPy."""

import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.readers.limits import ReadLimits
from daemon.readers.stack import LAZY_FROM_BYTES, ImagesInFile, ImageStack

_CHANNELS = (3, 4)
"""Red, green, blue, and perhaps opacity."""

_ARCHIVE = b"PK"
"""How a ZIP file, and so an `.npz`, begins."""


def read_png(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read an 8- or 16-bit grey image; one in colour whose channels are equal is grey too."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        limits.check_frame((image.height, image.width), path.name)
        pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "PA", "LA") else image)
        return [ImageStack(_without_channels(pixels, path.name))]


def read_npy(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read one array, (height, width) or (images, height, width)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        declared = _check_header(file, path, limits, loads_by_image=size >= LAZY_FROM_BYTES)
    if declared is None or size < LAZY_FROM_BYTES or not declared.can_be_read_by_image:
        return [ImageStack(_without_channels(_checked(np.load(path, allow_pickle=False), path), path.name))]
    if size < declared.first_at + prod(declared.shape) * declared.dtype.itemsize:
        raise EOFError(f"its header promises an array of shape {declared.shape}")
    return [ImageStack(ImagesInFile(path, declared.dtype, declared.first_at, declared.shape))]


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
        _check_header(member, archive, limits, loads_by_image=False)


class _Declared(NamedTuple):
    """What an array's header says of it."""

    shape: tuple[int, ...]
    is_fortran_ordered: bool
    dtype: np.dtype[Any]
    first_at: int

    @property
    def can_be_read_by_image(self) -> bool:
        is_stack = len(self.shape) in (2, 3) and self.shape[-1] not in _CHANNELS
        return is_stack and not self.is_fortran_ordered and self.dtype.kind in "uif"


def _check_header(file: IO[bytes], path: Path, limits: ReadLimits, loads_by_image: bool) -> _Declared | None:
    """Look at the size that an array declares of itself; a file cut short and an archive are left to `np.load`."""
    magic = file.read(len(np.lib.format.MAGIC_PREFIX))
    if magic != np.lib.format.MAGIC_PREFIX:
        if len(magic) == len(np.lib.format.MAGIC_PREFIX) and not magic.startswith(_ARCHIVE):
            raise _misnamed(path)  # NumPy would offer to load it unsafely
        return None
    version = tuple(file.read(2))
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    declared = _Declared(*read_header(file), file.tell())
    shape = declared.shape
    limits.check_frame(shape if len(shape) < 3 or shape[-1] not in _CHANNELS else shape[:-1], path.name)
    if not (loads_by_image and declared.can_be_read_by_image):
        limits.check_bytes(prod(shape) * declared.dtype.itemsize, path.name)
    return declared


def _misnamed(path: Path) -> FrameError:
    return FrameError(f"{path.name}: the content does not fit the ending {path.suffix}; rename or save it again.")


def _checked(array: Any, path: Path) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):  # np.load opens by content: an archive may be named .npy
        raise _misnamed(path)
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
