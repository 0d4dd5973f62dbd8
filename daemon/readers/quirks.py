"""What RosettaSciIO leaves to its caller, put right in the signals it returns."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import FrameError

_IMAGEJ_UNIT = re.compile(r"^unit=(.+)$", re.MULTILINE)
_ESCAPED_LETTER = re.compile(r"\\u([0-9a-fA-F]{4})")
_FEI_PIXEL_SIZE = re.compile(r"<pixel(Width|Height)(?:\s+unit=\"(\w+)\")?\s*>\s*([-+.\deE]+)\s*<", re.IGNORECASE)


def tidy(signal: dict[str, Any]) -> None:
    """Correct one signal (`data`, `axes`, `original_metadata`) in place."""
    original = signal["original_metadata"]
    _put_rows_before_columns(signal)
    image_axes = signal["axes"][-2:]
    if _is_imagej(original):
        _name_imagej_unit(image_axes, original["ImageDescription"])
    if "FEI_TITAN" in original:
        _read_fei_pixel_size(image_axes, str(original["FEI_TITAN"]))
    if _is_uncalibrated_mrc(original):
        for axis in image_axes:
            axis["units"] = None


def is_thumbnail(signal: Mapping[str, Any]) -> bool:
    """Tell whether a TIFF image is marked as a smaller copy of another one in the file."""
    return bool(int(signal["original_metadata"].get("NewSubfileType", 0)) & 1)


def separate_planes(path: Path) -> list[dict[str, Any]]:
    """Return the stack that `tifffile.imwrite` makes of three images, which it labels red, green and blue.

    RosettaSciIO fails on colour in separate planes. No signal is returned for any other TIFF file.

    Raises:
        FrameError: The planes were written as colours by another program.
    """
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages.first
        is_separate = first.photometric == tifffile.PHOTOMETRIC.RGB and first.planarconfig == 2
        if not is_separate:
            return []
        if not first.is_shaped:  # tifffile notes the shape of the array it was given
            raise FrameError(f"{path.name}: this is a colour image; export the raw grey values instead.")
        data = tiff.asarray()
    axes = [{"name": None, "navigate": i < data.ndim - 2} for i in range(data.ndim)]
    return [{"data": data, "axes": axes, "metadata": {}, "original_metadata": {}}]


def _put_rows_before_columns(signal: dict[str, Any]) -> None:
    """Undo a transposition: EMD writers other than RosettaSciIO store rows first, and it reverses every axis."""
    data, axes = signal["data"], signal["axes"]
    names = [axis.get("name") for axis in axes]
    if data.ndim == len(axes) and names.count("y") == names.count("x") == 1 and names.index("x") < names.index("y"):
        leading = [i for i, name in enumerate(names) if name not in ("x", "y")][::-1]
        order = [*leading, names.index("y"), names.index("x")]
        signal["data"] = data.transpose(order)
        axes[:] = [axes[i] for i in order]


def _is_imagej(original: Mapping[str, Any]) -> bool:
    return str(original.get("ImageDescription", "")).startswith("ImageJ=")


def _name_imagej_unit(image_axes: list[dict[str, Any]], description: str) -> None:
    """RosettaSciIO takes ImageJ's scale, but its unit only where that is the micrometre."""
    unit = _IMAGEJ_UNIT.search(description)
    if unit:
        # ImageJ writes letters beyond ASCII, such as Å and µ, as escapes.
        name = _ESCAPED_LETTER.sub(lambda escape: chr(int(escape[1], 16)), unit[1].strip())
        for axis in image_axes:
            axis["units"] = axis.get("units") or name


def _read_fei_pixel_size(image_axes: list[dict[str, Any]], xml: str) -> None:
    """RosettaSciIO knows the tags of FEI's SEMs, not the one of its TEMs."""
    sizes = {side.lower(): (float(size), unit or "m") for side, unit, size in _FEI_PIXEL_SIZE.findall(xml)}
    for axis, side in zip(image_axes, ("height", "width"), strict=True):
        if side in sizes:
            axis["scale"], axis["units"] = sizes[side]


def _is_uncalibrated_mrc(original: Mapping[str, Any]) -> bool:
    """Programs that do not know the pixel size leave the grid 0 or write 1 Å; no HRTEM frame has 1 Å to the digit."""
    header = original.get("std_header")
    if header is None or "fei_header" in original or "de_metadata" in original:
        return False
    return bool(np.any(header["MX"] == 0) or np.any(header["MY"] == 0) or np.any(header["Xlen"] == header["MX"]))
