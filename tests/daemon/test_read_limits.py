"""A small file that declares more pixels than there is memory is refused before they are loaded."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from daemon.errors import FrameError
from daemon.readers import ReadLimits, read_frames

SHAPE = (4, 1500, 1500)


def write_npz(path: Path) -> None:
    np.savez_compressed(path, np.zeros(SHAPE, np.uint16))


def write_npy(path: Path) -> None:
    np.save(path, np.zeros(SHAPE, np.uint16))


def write_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros(SHAPE, np.uint16), compression="zlib", photometric="minisblack")


def write_hspy(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("Experiments/x/data", SHAPE, np.uint16, compression="gzip")


WRITERS: dict[str, Callable[[Path], None]] = {
    "npz": write_npz, "npy": write_npy, "tif": write_tiff, "hspy": write_hspy, "emd": write_hspy,
}  # fmt: skip


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_that_unfolds_to_too_much_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.{suffix}"
    WRITERS[suffix](path)
    limits = ReadLimits(frame_pixels=3000**2, decompressed_bytes=4_000_000)
    with pytest.raises(FrameError, match=r"^bomb\..*raise `limits\.decompressed_bytes` in config\.toml\.$"):
        list(read_frames(path, limits=limits))  # the libraries are imported here
    tracemalloc.start()
    with pytest.raises(FrameError):
        list(read_frames(path, limits=limits))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4_000_000


@pytest.mark.parametrize("suffix", ["npz", "npy", "tif", "png"])
def test_a_frame_of_too_many_pixels_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"huge.{suffix}"
    if suffix == "png":
        Image.fromarray(np.zeros(SHAPE[1:], np.uint8)).save(path)
    else:
        WRITERS[suffix](path)
    with pytest.raises(FrameError, match=r"1500 × 1500 pixels are more than the 1,000,000 .*`limits\.frame_pixels`"):
        list(read_frames(path, limits=ReadLimits(frame_pixels=1000**2)))


def test_a_stack_of_three_images_is_not_taken_for_colours(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).poisson(100, (3, 64, 64)).astype(np.uint16)
    np.save(tmp_path / "movie.npy", pixels)
    assert len(list(read_frames(tmp_path / "movie.npy", limits=ReadLimits(64 * 64, pixels.nbytes)))) == 3
