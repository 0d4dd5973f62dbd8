"""Puts files into a watched folder in the ways acquisition programs do; for tests and demonstrations."""

import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from time import sleep
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


def rename_in(file: Path, folder: Path) -> Path:
    """Write a file under a temporary name and rename it, as careful programs do; return its new path."""
    destination = folder / file.name
    temporary = folder / f".{file.name}.part"
    shutil.copyfile(file, temporary)
    return temporary.replace(destination)


def write_in_pieces(file: Path, folder: Path, pieces: int, pause_seconds: float) -> Path:
    """Write a file under its final name in equal pieces, as slow links do, closed between them; return its path."""
    content = file.read_bytes()
    destination = folder / file.name
    length = -(-len(content) // pieces)
    for start in range(0, len(content), length):
        with destination.open("ab") as writer:
            writer.write(content[start : start + length])
        sleep(pause_seconds)
    return destination


class MrcWriter:
    """Writes an MRC stack image by image, as cameras do; little-endian, without an extended header unless asked for.

    Args:
        path: Where to.
        image_shape: Height and width.
        announced: Number of images that the header gives from the start.
        counts: Whether the header's number follows the images as they come; it is kept at `announced` where not.
        pixel_size_angstrom: Å per pixel.
        extended_header_bytes: Length of the extended header, which is left empty.
    """

    def __init__(
        self,
        path: Path,
        image_shape: tuple[int, int],
        *,
        announced: int = 0,
        counts: bool = False,
        pixel_size_angstrom: float = 0.1,
        extended_header_bytes: int = 0,
    ) -> None:
        self.path = path
        self._counts = counts
        self._written = 0
        self._file: BufferedRandom = path.open("w+b")
        height, width = image_shape
        header = bytearray(1024)
        struct.pack_into("<10i", header, 0, width, height, announced, 6, 0, 0, 0, width, height, max(announced, 1))
        struct.pack_into("<3f", header, 40, width * pixel_size_angstrom, height * pixel_size_angstrom, 0.0)
        struct.pack_into("<3i", header, 64, 1, 2, 3)
        struct.pack_into("<i", header, 92, extended_header_bytes)
        header[208:212] = b"MAP "
        self._file.write(bytes(header) + bytes(extended_header_bytes))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, image: NDArray[np.uint16]) -> None:
        """Write one whole image."""
        self.add_part(image, 0.0, 1.0)

    def add_part(self, image: NDArray[np.uint16], start: float, stop: float) -> None:
        """Write the bytes of an image from one fraction to another: a writer that stalls stops below 1."""
        content = image.astype("<u2").tobytes()
        self._file.write(content[int(start * len(content)) : int(stop * len(content))])
        self._file.flush()
        if stop == 1.0:
            self._written += 1
            if self._counts:
                self.announce(self._written)

    def announce(self, number: int) -> None:
        """Put a number of images into the header, as some programs do only at the end."""
        self._file.seek(8)
        self._file.write(struct.pack("<i", number))
        self._file.seek(0, 2)
        self._file.flush()


@contextmanager
def tiff_writer(path: Path) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Yield a function that adds a page to a TIFF file, its pixels first and then its directory, as libtiff does."""
    with path.open("w+b") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 0))
        link_at = 4

        def add(image: NDArray[Any]) -> None:
            nonlocal link_at
            height, width = image.shape
            pixels_at = file.seek(0, 2)
            pixels = image.astype("<u2").tobytes()
            # Tags, their types (3: short, 4: long) and values: size, 16 bits, uncompressed, black is zero, one strip.
            entries = [
                (256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, pixels_at),
                (277, 3, 1), (278, 4, height), (279, 4, len(pixels)),
            ]  # fmt: skip
            file.write(pixels)
            file.flush()
            directory_at = file.tell()
            file.write(struct.pack("<H", len(entries)))
            file.write(b"".join(struct.pack("<HHII", tag, type_, 1, value) for tag, type_, value in entries))
            file.write(struct.pack("<I", 0))
            file.flush()
            file.seek(link_at)
            file.write(struct.pack("<I", directory_at))
            file.flush()
            link_at = directory_at + 2 + 12 * len(entries)

        yield add
