"""From a file's axes to Å per pixel, or the reason why not."""

import math
import unicodedata
from pathlib import Path

from daemon.errors import FrameError
from daemon.frames import Calibration, CalibrationSource
from daemon.readers.stack import Axis, ImageStack

ATOMIC_RESOLUTION_ANGSTROM = (0.005, 2.0)
"""Smallest and largest pixel that can show atoms: beyond them the size is a slip of unit or another magnification."""

_ANISOTROPY = 0.01
_ENERGY_UNITS = frozenset({"ev", "kev"})
_ANGULAR_UNITS = frozenset({"rad", "mrad", "µrad"})

# Keyed by unit as `_normal` writes it. Inches and centimetres are missing on purpose: they come from the print
# resolution (72 dpi) of image editors, never from a microscope.
_ANGSTROM_PER_UNIT = {
    **dict.fromkeys(("m", "meter", "meters", "metre"), 1e10),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), 1e7),
    **dict.fromkeys(("μm", "um", "micron", "microns", "micrometer", "micrometers"), 1e4),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 10.0),
    **dict.fromkeys(("å", "a", "angstrom", "angstroms", "ångström"), 1.0),
    **dict.fromkeys(("pm", "picometer", "picometers"), 0.01),
}

_ORIGINS = {
    CalibrationSource.OVERRIDE: "given as --pixel-size or `pixel_size_angstrom`",
    CalibrationSource.SIDECAR: "from the sidecar",
    CalibrationSource.METADATA: "from the file's own metadata",
}


def calibrate(
    stack: ImageStack, path: Path, override_angstrom: float | None, sidecar_angstrom: float | None
) -> Calibration | None:
    """Choose the most trusted pixel size: override, then sidecar, then the file's metadata.

    Raises:
        FrameError: The size is not that of an atomic-resolution frame, or the file's pixels are not square.
    """
    if override_angstrom is not None:
        calibration = Calibration(override_angstrom, CalibrationSource.OVERRIDE)
    elif sidecar_angstrom is not None:
        calibration = Calibration(sidecar_angstrom, CalibrationSource.SIDECAR)
    else:
        size = _square_pixel_angstrom(stack.y, stack.x, path)
        if size is None:
            return None
        calibration = Calibration(size, CalibrationSource.METADATA)
    smallest, largest = ATOMIC_RESOLUTION_ANGSTROM
    if not smallest <= calibration.pixel_size_angstrom <= largest:
        raise FrameError(
            f"{path.name}: not an atomic-resolution frame: its pixel is {calibration.pixel_size_angstrom:.4g} Å "
            f"({_ORIGINS[calibration.source]}), outside {smallest:g} to {largest:g} Å; {_remedy(path)}."
        )
    return calibration


def is_energy(unit: str | None) -> bool:
    """Tell whether an axis counts eV, so that the data are spectra or filtered by energy."""
    return _normal(unit) in _ENERGY_UNITS


def is_reciprocal(unit: str | None) -> bool:
    """Tell whether an axis counts spatial frequency or angle, so that the image is a diffraction pattern."""
    unit = _normal(unit)
    return unit.startswith("1/") or unit.endswith("-1") or unit in _ANGULAR_UNITS


def _square_pixel_angstrom(y: Axis, x: Axis, path: Path) -> float | None:
    height, width = _step_angstrom(y), _step_angstrom(x)
    if height is None or width is None:
        return None
    if abs(height - width) > _ANISOTROPY * max(height, width):
        raise FrameError(
            f"{path.name}: the pixels are not square: {width:.4g} Å wide and {height:.4g} Å high "
            f"({_ORIGINS[CalibrationSource.METADATA]}); {_remedy(path)}."
        )
    return math.sqrt(height * width)


def _step_angstrom(axis: Axis) -> float | None:
    factor = _ANGSTROM_PER_UNIT.get(_normal(axis.unit))
    # Zero, -1 and NaN stand in headers where nobody knew the size.
    if factor is None or not math.isfinite(axis.scale) or axis.scale <= 0:
        return None
    return axis.scale * factor


def _remedy(path: Path) -> str:
    sidecar = path.with_suffix(".json").name
    return (
        "if that is wrong, give the right size as `pixel_size_angstrom` in config.toml or in a sidecar "
        f"{sidecar}, or to `hrtemd process` as --pixel-size"
    )


def _normal(unit: str | None) -> str:
    """Bring a unit to one spelling: both µ and both Å, superscripts, `1 / nm`, `[n_m]` as in EMD files."""
    unit = unicodedata.normalize("NFKC", unit or "").replace("\N{MINUS SIGN}", "-").casefold()
    return unit.translate(str.maketrans("", "", " [](){}_^*\0"))
