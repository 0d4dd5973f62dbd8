"""Microscopy formats, through RosettaSciIO."""

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import FrameError
from daemon.frames import MIN_FRAME_PIXELS
from daemon.readers import calibration, metadata, quirks
from daemon.readers.guard import cannot_be_read, demote_log, errors_logged
from daemon.readers.limits import ReadLimits
from daemon.readers.stack import LAZY_FROM_BYTES, Axis, ImageStack

PLUGINS = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".emi": "tia",
    ".ser": "tia",
    ".hspy": "hspy",
    ".mrc": "mrc",
    ".mrcs": "mrc",
    ".tif": "tiff",
    ".tiff": "tiff",
}

# Of the other formats, RosettaSciIO would read the whole file anew for each image.
_HDF5_PLUGINS = frozenset({"emd", "hspy"})
_LAZY_PLUGINS = frozenset({"digitalmicrograph", "emd", "mrc"})
_EMD_OPTIONS = {"select_type": "images", "stack_group": False}


def read(path: Path, limits: ReadLimits) -> list[ImageStack]:
    """Read the images of a file and leave the rest: spectra, colour snapshots, Fourier transforms, thumbnails.

    Raises:
        FrameError: No data set of the file is an image.
    """
    stacks, objections = [], []
    for signal in _signals(path, limits):
        quirks.tidy(signal)
        objection = _objection(signal)
        if objection is None:
            stacks.append(_image_stack(signal))
        else:
            objections.append(objection)
    if not stacks:
        raise _no_image(path, objections)
    return stacks


def read_beginning(path: Path) -> ImageStack:
    """Read what the header of an MRC or TIFF file says of its first image, though others may still be written.

    Returns:
        That one image, its pixels not loaded.

    Raises:
        FrameError: It is no HRTEM image.
    """
    signal = _first_signal(path)
    quirks.tidy(signal)
    if (objection := _objection(signal)) is not None:
        raise _no_image(path, [objection])
    return _image_stack(signal)


def mrc_dtype(mode: int) -> np.dtype[Any]:
    """Return the type of the pixels of an MRC file.

    Raises:
        ValueError: There is no such mode.
    """
    dtype: np.dtype[Any] = importlib.import_module("rsciio.mrc._api").get_data_type([mode])
    return dtype


def is_described_movie(path: Path) -> bool:
    """Whether an MRC file is a movie of Direct Electron with the text file that describes it."""
    if not path.name.endswith("_movie.mrc"):
        return False
    return importlib.import_module("rsciio.mrc._api").find_related_de_files(str(path))["info_file"] is not None


def _signals(path: Path, limits: ReadLimits) -> list[dict[str, Any]]:
    """Return the data sets as RosettaSciIO gives them: `data`, `axes`, `metadata`, `original_metadata`."""
    plugin = PLUGINS[path.suffix.lower()]
    importlib.import_module("rsciio")
    demote_log("rsciio")
    demote_log("tifffile")
    reader = importlib.import_module(f"rsciio.{plugin}")
    loads_by_image = plugin in _LAZY_PLUGINS and path.stat().st_size >= LAZY_FROM_BYTES
    if not loads_by_image:
        limits.check_bytes(_bytes_in_memory(path, plugin), path.name)
    lazy = loads_by_image or plugin == "mrc"  # of which only the header is wanted; see `daemon.readers.growing`
    options = _EMD_OPTIONS if plugin == "emd" else {}
    with errors_logged("tifffile") as errors:
        try:
            signals = quirks.separate_planes(path) if plugin == "tiff" else []
            signals = signals or reader.file_reader(str(path), lazy=lazy, **options)
        except ModuleNotFoundError:
            # Of a Velox file with a spectrum image, RosettaSciIO reads the images and then asks for the package
            # `sparse`, which only the spectra need.
            signals = _velox_images(path)
    cut = next((error for error in errors if "offset" in error), None)
    if cut is not None:  # tifffile would return the pages before the cut as if they were all
        raise cannot_be_read(path.name, cut)
    if not signals and path.suffix.lower() == ".emi":
        raise FrameError(f"{path.name}: its pixels are in {path.stem}_1.ser, which is not beside it; copy both files.")
    if not signals:
        raise cannot_be_read(path.name, "it holds no data")
    return signals


def _bytes_in_memory(path: Path, plugin: str) -> int:
    """Return what a file's arrays take once loaded, from what it declares of them."""
    sizes: list[int] = []
    if plugin == "tiff":
        tifffile = importlib.import_module("tifffile")
        with tifffile.TiffFile(path) as tiff:
            sizes = [series.size * series.dtype.itemsize for series in tiff.series]
    elif plugin in _HDF5_PLUGINS:
        h5py = importlib.import_module("h5py")
        with h5py.File(path, "r") as file:
            file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    else:  # never compressed
        sizes = [path.stat().st_size]
    return sum(sizes)


def _first_signal(path: Path) -> dict[str, Any]:
    """Return the first image of an MRC or TIFF file as a data set of its own."""
    importlib.import_module("rsciio")
    demote_log("rsciio")
    demote_log("tifffile")
    signal: dict[str, Any]
    if PLUGINS[path.suffix.lower()] == "mrc":
        # So that it does not believe the number of images in the header, which may be filled in last.
        (signal,) = importlib.import_module("rsciio.mrc").file_reader(str(path), lazy=True, navigation_shape=(1,))
    else:
        tifffile = importlib.import_module("tifffile")
        with tifffile.TiffFile(path) as tiff:
            read_page = importlib.import_module("rsciio.tiff._api")._read_tiff  # noqa: SLF001
            signal = read_page(tiff, tiff.pages.first, str(path), lazy=True)
    return signal


def _no_image(path: Path, objections: list[str]) -> FrameError:
    found = " and ".join(dict.fromkeys(objections))
    return FrameError(f"{path.name}: no HRTEM image in this file, which holds {found}; choose or export the image.")


def _velox_images(path: Path) -> list[dict[str, Any]]:
    from rsciio.emd import _api as emd
    from rsciio.emd._emd_velox import FeiEMDReader

    reader = FeiEMDReader(select_type="images")
    with emd.h5py.File(path, "r") as file, contextlib.suppress(ModuleNotFoundError):
        reader.read_file(file)
    return list(reader.dictionaries)


def _objection(signal: Mapping[str, Any]) -> str | None:
    """Say what a data set is if it is not an image of the specimen."""
    if quirks.is_thumbnail(signal):
        return "a thumbnail"
    data, axes = signal["data"], signal["axes"]
    units = [axis.get("units") for axis in axes]
    n_image_axes = sum(not axis.get("navigate", False) for axis in axes)
    is_spectral = signal["metadata"].get("Signal", {}).get("signal_type", "").startswith(("EELS", "EDS", "CL"))
    if data.ndim < 2 or n_image_axes == 1 or is_spectral or any(calibration.is_energy(unit) for unit in units):
        return "a spectrum"
    if any(calibration.is_reciprocal(unit) for unit in units[-2:]):
        return "a diffraction pattern"
    if data.dtype.names is not None:
        return "a colour (RGB) image"
    if data.dtype.kind == "c":
        return "complex numbers (a Fourier transform or a reconstructed wave)"
    if data.dtype.kind not in "uif":
        return f"data of type {data.dtype}"
    height, width = data.shape[-2:]
    if min(height, width) < MIN_FRAME_PIXELS or data.size == 0:
        return f"only {width} by {height} pixels ({MIN_FRAME_PIXELS} by {MIN_FRAME_PIXELS} are needed)"
    return None


def _image_stack(signal: Mapping[str, Any]) -> ImageStack:
    y, x = (_axis(axis) for axis in signal["axes"][-2:])
    return ImageStack(signal["data"], y, x, metadata.acquisition(signal), metadata.acquired_at(signal))


def _axis(axis: Mapping[str, Any]) -> Axis:
    unit = axis.get("units")
    return Axis(float(np.ravel(axis.get("scale", 1.0))[0]), None if unit is None else str(unit))
