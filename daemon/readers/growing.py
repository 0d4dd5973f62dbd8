"""Stacks that a camera is still adding to: how many of their images are whole, and reading those.

Nothing is memory-mapped here: a program that empties a mapped file would take the whole process with it.
"""

import importlib
import struct
import sys
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.readers import rosettasciio
from daemon.readers.guard import cannot_be_read, demote_log, errors_logged, guarded
from daemon.readers.limits import ReadLimits
from daemon.readers.stack import ImagesInFile, ImageStack

MRC_SUFFIXES = frozenset({".mrc", ".mrcs"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

_MRC_HEADER_BYTES = 1024
_MRC_EXTENDED_HEADER_AT = 92  # its length stands here, https://www.ccpem.ac.uk/mrc_format/mrc2014.php
_MOST_EXTENDED_HEADER_BYTES = 2**28
_LONGEST_SIDE = 2**17
_MOST_ANNOUNCED = 2**24  # -1 and the like stand where nobody knows

_TIFF_ENTRY_BYTES = 12
_BEGINNING_BYTES = 2**16


@dataclass(frozen=True)
class Extent:
    """How far a stack has been written.

    Attributes:
        whole: Images of which all bytes are there.
        announced: Images that the header promises, 0 where it has yet to be filled in; None where the format has no
            such number.
        is_torn: Whether a part of one more image is there.
        beginning: The same as long as images are only added; another where the file was written anew.
    """

    whole: int
    announced: int | None
    is_torn: bool
    beginning: int

    @property
    def is_complete(self) -> bool:
        """Whether the file, should nothing more come, is as its header says."""
        # What follows the promised images of an MRC file is no image.
        return not self.is_torn if self.announced is None else self.whole == self.announced


def may_grow(path: Path) -> bool:
    """Whether the images of such a file can be told apart while it is written."""
    return path.suffix.lower() in MRC_SUFFIXES | TIFF_SUFFIXES


def extent_of(path: Path, within_bytes: int | None = None, known: int = 0) -> Extent | None:
    """Look at how far a stack has been written.

    Args:
        path: See `may_grow`.
        within_bytes: Only the file's first bytes count as written; all of them where None.
        known: So many images are known to be whole, and not looked at again.

    Returns:
        None where the file must be whole before its images can be told apart: its header is not there yet, or it is one
        of the many other things that a TIFF file can be.
    """
    try:
        size = path.stat().st_size
        layout = guarded(path.name, lambda: _layout_of(path, size, known))
        if layout is None:
            return None
        with path.open("rb") as file:
            file.seek(layout.first_at)
            beginning = file.read(min(_BEGINNING_BYTES, layout.image_bytes))
    except (FrameError, OSError):
        return None
    return Extent(
        whole=layout.images_within(size if within_bytes is None else min(within_bytes, size)),
        announced=layout.announced,
        is_torn=layout.is_torn,
        beginning=crc32(beginning, crc32(repr((layout.shape, layout.dtype, layout.first_at)).encode())),
    )


def read_growing(path: Path, images: range, limits: ReadLimits) -> tuple[ImageStack, int]:
    """Open a stack of which these images are whole; each is read when it is loaded.

    Returns:
        The stack, up to the last of the images, and how many the file is to hold as far as it tells.

    Raises:
        FrameError: It holds no HRTEM images, or images beyond the limits.
    """
    layout = _layout_of(path, path.stat().st_size, images.start)
    if layout is None:
        raise cannot_be_read(path.name, "its images cannot be told apart")
    limits.check_frame(layout.shape, path.name)
    limits.check_bytes(layout.image_bytes, path.name)
    pixels = _Images(path, layout, (images.stop, *layout.shape))
    return replace(rosettasciio.read_beginning(path), pixels=pixels), max(images.stop, layout.announced or 0)


def read_mrc(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Open an MRC file that is whole; its images are read when they are loaded.

    Raises:
        FrameError: It holds no HRTEM images, or fewer than its header says.
    """
    (stack,) = rosettasciio.read(path, limits)
    size = path.stat().st_size
    layout = _layout_of(path, size, 0)
    if not isinstance(layout, _MrcLayout):
        return [stack]
    shape = stack.pixels.shape
    if layout.images_within(size) < prod(shape[:-2]):
        raise cannot_be_read(path.name, f"its header promises {prod(shape[:-2])} images")
    return [replace(stack, pixels=layout.images(path, shape))]


class _MrcLayout:
    """Images one after the other behind a header, whatever that says of their number."""

    def __init__(self, header: bytes, size: int) -> None:
        width, height, announced, mode = struct.unpack_from("<4I", header)
        (extended_bytes,) = struct.unpack_from("<I", header, _MRC_EXTENDED_HEADER_AT)
        is_filled_in = 0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE
        if not is_filled_in or extended_bytes > _MOST_EXTENDED_HEADER_BYTES:
            raise cannot_be_read("MRC", "its header is not filled in")
        self.shape = (height, width)
        self.dtype: np.dtype[Any] = rosettasciio.mrc_dtype(mode)
        self.first_at = _MRC_HEADER_BYTES + extended_bytes
        self.image_bytes = prod(self.shape) * self.dtype.itemsize
        self.announced: int | None = announced if announced <= _MOST_ANNOUNCED else 0
        self.is_torn = max(size - self.first_at, 0) % self.image_bytes > 0

    def images_within(self, n_bytes: int) -> int:
        return int(max(n_bytes - self.first_at, 0) // self.image_bytes)

    def read(self, path: Path, index: int) -> NDArray[Any]:
        return self.images(path, (index + 1, *self.shape))[(index,)]

    def images(self, path: Path, shape: tuple[int, ...]) -> ImagesInFile:
        return ImagesInFile(path, self.dtype.newbyteorder("<"), self.first_at, shape)


class _TiffLayout:
    """Pages of one kind, each with a directory of its own; only those from number `known` on are looked at."""

    announced: int | None = None

    def __init__(self, path: Path, size: int, known: int) -> None:
        tifffile = importlib.import_module("tifffile")
        with errors_logged("tifffile") as errors, tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            is_grey = first.samplesperpixel == 1 and first.photometric in (0, 1)
            if tiff.is_ome or tiff.is_stk or tiff.is_lsm or not is_grey:
                raise cannot_be_read(path.name, "its pages are not simply images")
            self.shape, self.dtype = first.shape, first.dtype
            self.first_at, self.image_bytes = first.dataoffsets[0], first.nbytes
            n_listed = len(tiff.pages)  # as far as the chain of directories leads
            self._known = min(known, n_listed)
            pages = _pages_until_torn(tiff, range(self._known, n_listed))
            if any((page.shape, page.dtype) != (first.shape, first.dtype) or page.is_reduced for page in pages):
                raise cannot_be_read(path.name, "its pages differ")
        self._offsets = [page.offset for page in pages]
        self._ends = [_end_of(page) for page in pages]
        is_chain_torn = any("offset" in error or "tag list" in error for error in errors)
        self.is_torn = is_chain_torn or len(pages) < n_listed - self._known or any(end > size for end in self._ends)

    def images_within(self, n_bytes: int) -> int:
        is_whole = [end <= n_bytes for end in self._ends]
        return self._known + (is_whole.index(False) if False in is_whole else len(is_whole))

    def read(self, path: Path, index: int) -> NDArray[Any]:
        tifffile = importlib.import_module("tifffile")
        with tifffile.TiffFile(path) as tiff:
            tiff.filehandle.seek(self._offsets[index - self._known])
            image: NDArray[Any] = tifffile.TiffPage(tiff, index).asarray()
        return image


def _pages_until_torn(tiff: Any, numbers: range) -> list[Any]:
    """Return the pages before the first whose directory is not all there."""
    pages: list[Any] = []
    for number in numbers:
        try:
            pages.append(tiff.pages[number])
        except importlib.import_module("tifffile").TiffFileError:
            break
    return pages


def _end_of(page: Any) -> int:
    """Return where the last byte of a TIFF page ends; beyond any file where some have no place yet."""
    if not page.dataoffsets or 0 in page.dataoffsets or 0 in page.databytecounts:
        return sys.maxsize
    ends = (offset + n_bytes for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True))
    return int(max(page.offset + _TIFF_ENTRY_BYTES * len(page.tags), *ends))


def _layout_of(path: Path, size: int, known: int) -> _MrcLayout | _TiffLayout | None:
    demote_log("tifffile")
    if path.suffix.lower() in TIFF_SUFFIXES:
        return _TiffLayout(path, size, known)
    if rosettasciio.is_described_movie(path):
        return None
    with path.open("rb") as file:
        header = file.read(_MRC_HEADER_BYTES)
    return _MrcLayout(header, size) if len(header) == _MRC_HEADER_BYTES else None


@dataclass(frozen=True)
class _Images:
    """Stands for the array (images, height, width) that a stack would be if it were loaded."""

    path: Path
    layout: _MrcLayout | _TiffLayout
    shape: tuple[int, ...]

    def __getitem__(self, position: tuple[int, ...]) -> NDArray[Any]:
        (index,) = position
        return self.layout.read(self.path, index)
