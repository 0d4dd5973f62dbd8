"""Frames of focal series for tests: small, each with pixels of its own."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import numpy as np

from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame, make_frame_id
from daemon.recognition.package import StatedRanges
from daemon.sources.source import Arrival

CYCLE_ANGSTROM = (-120.0, -80.0, -40.0)

RANGES = StatedRanges(
    pixel_size_angstrom=(0.05, 0.2),
    dose_per_square_angstrom=(10, 1e5),
    voltage_kv=(60, 300),
    spherical_aberration_um=(-20, 20),
    defocus_angstrom=(-100, -60),
    defocus_step_angstrom=(30, 50),
)


def focal_frame(
    name: str,
    defocus_angstrom: float | None,
    seed: int | None = None,
    series: tuple[str, int | None, int | None] | None = None,
    images_in_file: int = 1,
    side: int = 32,
) -> Frame:
    """A frame of noise; by default its name decides its pixels. `series` is its id, index and length."""
    rng = np.random.default_rng(crc32(name.encode()) if seed is None else seed)
    pixels = rng.normal(100, 10, (side, side)).astype(np.float32)
    id_, index, length = series or (None, None, None)
    acquisition = Acquisition(
        defocus_angstrom=defocus_angstrom, series_id=id_, series_index=index, series_length=length
    )
    frame_id = make_frame_id("camera", id_ or name, index or 0, pixels)
    calibration = Calibration(0.1, CalibrationSource.SIDECAR)
    at = datetime(2024, 1, 1, tzinfo=UTC)
    return Frame(pixels, frame_id, name, calibration, acquisition, images_in_file, at, at)


def with_acquisition(frame: Frame, **changes: Any) -> Frame:
    return replace(frame, acquisition=replace(frame.acquisition, **changes))


def arriving(frame: Frame, folder: str = "/data", resumed: bool = False) -> Arrival:
    return Arrival("camera", f"{folder}/{frame.name}.tif", frame, read_ms=1.0, resumed=resumed)


def series_of_ids(id_: str, length: int | None = 3, defocus: Sequence[float] = CYCLE_ANGSTROM) -> list[Frame]:
    """The frames of one series with ids and indices, named ID-INDEX."""
    return [focal_frame(f"{id_}-{index}", value, series=(id_, index, length)) for index, value in enumerate(defocus)]
