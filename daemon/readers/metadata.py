"""How a frame was taken, from the metadata trees of the vendors."""

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from daemon.frames import Acquisition

_log = logging.getLogger(__name__)

_DM = "ImageList.TagGroup0.ImageTags"
_TIA = "ObjectInfo.ExperimentalDescription"

# Where each vendor writes a quantity, and the factor to our unit; the first that holds a number wins.
_VOLTAGE_KV = (
    (f"{_DM}.Microscope Info.Voltage", 1e-3),
    (f"{_TIA}.High tension_kV", 1.0),
    ("Optics.AccelerationVoltage", 1e-3),  # Velox
    ("TVIPS.TemHighTension", 1e-3),
    ("ImageDescription.ElectronGun.AccelerationVoltage", 1e-3),  # JEOL SightX
    ("Acquisition_instrument.TEM.beam_energy", 1.0),  # HyperSpy
)
# FEI and Thermo Fisher count overfocus as positive, hrtemd underfocus.
_DEFOCUS_ANGSTROM = (
    (f"{_TIA}.Defocus_um", -1e4),
    ("Optics.Defocus", -1e10),  # Velox, metres
    ("fei_header.defocus", -1e10),  # MRC extended header, metres
)
_EXPOSURE_SECONDS = (
    (f"{_DM}.Acquisition.Parameters.High Level.Exposure (s)", 1.0),
    (f"{_DM}.DataBar.Exposure Time (s)", 1.0),
    ("ObjectInfo.AcquireInfo.DwellTimePath", 1.0),
    ("Detectors.{detector}.ExposureTime", 1.0),  # Velox
    ("TVIPS.ExposureTime", 1e-3),
    ("fei_header.exp_time", 1.0),
    ("Acquisition_instrument.TEM.Detector.Camera.exposure", 1.0),  # HyperSpy
    ("Acquisition_instrument.TEM.Camera.exposure", 1.0),
)
# Seconds since 1970, UTC.
_ACQUIRED_AT = (
    ("Acquisition.AcquisitionStartDatetime.DateTime", 1.0),  # Velox
    ("ser_header_parameters.Time", 1.0),
)


def acquisition(signal: Mapping[str, Any]) -> Acquisition:
    """Gather what a signal of RosettaSciIO tells; no vendor writes the dose on the specimen."""
    tree = {**signal["metadata"], **signal["original_metadata"]}
    return Acquisition(
        defocus_angstrom=_number(tree, _DEFOCUS_ANGSTROM),
        voltage_kv=_positive(_number(tree, _VOLTAGE_KV)),
        exposure_seconds=_positive(_number(tree, _EXPOSURE_SECONDS)),
    )


def acquired_at(signal: Mapping[str, Any]) -> datetime | None:
    """Return when the camera took the image, in UTC, or None where the file does not tell.

    DigitalMicrograph writes its date in the spelling of the PC's language (`3/4/2024`), so it is not used.
    """
    tree = {**signal["metadata"], **signal["original_metadata"]}
    seconds = _positive(_number(tree, _ACQUIRED_AT))
    date, time = _leaf(tree, "General.date"), _leaf(tree, "General.time")
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds, UTC)
        if date and time:
            return datetime.fromisoformat(f"{date}T{time}").astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        _log.debug("the acquisition date %r, %r, %r is unusable: %s", seconds, date, time, error)
    return None


def _number(tree: Mapping[str, Any], places: tuple[tuple[str, float], ...]) -> float | None:
    detector = f"Detector-{_leaf(tree, 'BinaryResult.DetectorIndex')}"
    for path, factor in places:
        value = _leaf(tree, path.format(detector=detector))
        try:
            number = float(np.ravel(value)[0]) * factor + 0.0  # no -0.0
        except (TypeError, ValueError, IndexError):
            continue
        if math.isfinite(number):
            return number
    return None


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _leaf(tree: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree
