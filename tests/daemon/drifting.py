"""Frames of a sheet that drifts under a beam so weak that a single frame is nearly noise."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame, make_frame_id
from daemon.sources.source import Arrival, Failure

PIXEL_SIZE_ANGSTROM = 0.2
DOSE_PER_SQUARE_ANGSTROM = 10.0
LATTICE_ANGSTROM = 3.16
SIDE = 320
"""Pixels of a frame."""
MARGIN = 60
STARTED_AT = datetime(2024, 1, 1, tzinfo=UTC)


class Sheet:
    """A honeycomb in which a share of the atoms is missing, as a lens shows it: 1 ± its contrast."""

    def __init__(
        self,
        missing: float = 0.04,
        seed: int = 0,
        lattice_angstrom: float = LATTICE_ANGSTROM,
        contrast: float = 0.12,
        side: int = SIDE,
    ) -> None:
        extent = side + 2 * MARGIN
        field = extent * PIXEL_SIZE_ANGSTROM
        i, j = (index.ravel() for index in np.mgrid[-60:60, -60:60])
        metal = np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=1) * lattice_angstrom
        sheet = np.concatenate([metal, metal + [0, lattice_angstrom / np.sqrt(3)]])
        turn = np.deg2rad(11)
        sheet = sheet @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + field / 2
        there = ((sheet >= 0) & (sheet < field)).all(axis=1)
        there &= np.random.default_rng(seed).random(len(sheet)) >= missing
        self._x = np.fft.rfftfreq(extent, PIXEL_SIZE_ANGSTROM)
        self._y = np.fft.fftfreq(extent, PIXEL_SIZE_ANGSTROM)
        points = np.zeros((extent, extent))
        # Rounded to whole pixels, a lattice would be none.
        corner, part = np.divmod(sheet[there] / PIXEL_SIZE_ANGSTROM, 1)
        for right, below in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = ((corner + [right, below]) % extent).astype(int).T
            np.add.at(points, (row, column), np.abs(1 - right - part[:, 0]) * np.abs(1 - below - part[:, 1]))
        k2 = self._x[None, :] ** 2 + self._y[:, None] ** 2
        self._spectrum = np.fft.rfft2(points) * -np.exp(-2 * (np.pi * 0.35) ** 2 * k2)
        self._spectrum[0, 0] = 0
        self._spectrum *= contrast / np.fft.irfft2(self._spectrum, s=points.shape).std()
        self._extent = extent

    def seen(self, drift_angstrom: Sequence[float] = (0.0, 0.0)) -> NDArray[np.float64]:
        """What an endless dose would show after this drift, x to the right and y down; mean 1."""
        x, y = drift_angstrom
        turned = self._spectrum * np.exp(-2j * np.pi * (self._x[None, :] * x + self._y[:, None] * y))
        image = 1 + np.fft.irfft2(turned, s=(self._extent, self._extent))
        return np.maximum(image[MARGIN:-MARGIN, MARGIN:-MARGIN], 0.05)

    def counts(
        self, drift_angstrom: Sequence[float], seed: int, dose: float = DOSE_PER_SQUARE_ANGSTROM
    ) -> NDArray[np.uint16]:
        """Electrons that a frame of this dose counts."""
        rng = np.random.default_rng(seed)
        return rng.poisson(dose * PIXEL_SIZE_ANGSTROM**2 * self.seen(drift_angstrom)).astype(np.uint16)


def frame_of(pixels: NDArray[Any], index: int, **acquisition: Any) -> Frame:
    """Number `index` of the frames of a movie, one a second."""
    acquisition.setdefault("dose_per_square_angstrom", DOSE_PER_SQUARE_ANGSTROM)
    return Frame(
        pixels=pixels,
        frame_id=make_frame_id("camera", "movie", index, pixels),
        name=f"movie-{index:04d}",
        calibration=Calibration(PIXEL_SIZE_ANGSTROM, CalibrationSource.SIDECAR),
        acquisition=Acquisition(**acquisition),
        acquired_at=STARTED_AT + timedelta(seconds=index),
    )


class Feed:
    """A source that yields what it is given, frames as arrivals."""

    name = "camera"

    def __init__(self, items: Sequence[Frame | Arrival | Failure | None]) -> None:
        self._items = items

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """See `Source`."""
        for item in self._items:
            if stop.is_set():
                return
            yield Arrival("camera", f"/data/{item.name}.tif", item, read_ms=1.0) if isinstance(item, Frame) else item
