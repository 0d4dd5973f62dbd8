"""An image as it came, before it is unpacked, and the frame it becomes."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame, make_frame_id, validate_pixels
from daemon.readers import ReadLimits, parse_sidecar
from daemon.readers.calibration import ATOMIC_RESOLUTION_ANGSTROM
from daemon.readers.sidecar import merge
from daemon.sources.compression import Packing, unpack
from daemon.sources.fields import Buffer, shown


@dataclass(frozen=True)
class WireImage:
    """An image of a message that was understood; unpacking it can still fail.

    Attributes:
        number: Of the image, as its sender counts.
        shape: Height and width.
        dtype: Of a pixel.
        payload: The pixels, packed.
        packing: How they are packed.
        keys: What our sub-object `hrtem` gives, checked: the keys of a sidecar.
        acquisition: What the format's own fields tell.
        series: Its id, a word; None where the format has none.
        channel: Which of several images taken at once, a word; None where there is one.
        acquired_at: When the camera took it, where known.
    """

    number: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    payload: Buffer
    packing: Packing = "none"
    keys: dict[str, Any] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    series: str | None = None
    channel: str | None = None
    acquired_at: datetime | None = None

    def frame(self, source: str, received_at: datetime, limits: ReadLimits, pixel_size_angstrom: float | None) -> Frame:
        """Unpack it.

        Args:
            source: Name of the source.
            received_at: When all of the message was there; it stands in the frame's name, since numbers start again.
            limits: Sizes beyond which nothing is unpacked.
            pixel_size_angstrom: Å per pixel; beats what came with the image.

        Raises:
            FrameError: It is too large, damaged, or no frame.
        """
        series = None if self.series is None else f"s{self.series}"
        words = (f"{received_at:%Y%m%dT%H%M%S%f}"[:-3] + "Z", series, f"{self.number:06d}", self.channel)
        name = "-".join(word for word in words if word)
        acquisition = merge(self.acquisition, self.keys)
        pixels = validate_pixels(self._pixels(limits, name), name)
        place = "-".join(word for word in (self.series, self.channel) if word)
        return Frame(
            pixels=pixels,
            frame_id=make_frame_id(source, place or None, self.number, pixels),
            name=name,
            calibration=self._calibration(pixel_size_angstrom, name),
            acquisition=acquisition,
            acquired_at=self.acquired_at,
            received_at=received_at,
        )

    def _pixels(self, limits: ReadLimits, name: str) -> NDArray[Any]:
        limits.check_frame(self.shape, name)
        size = prod(self.shape) * self.dtype.itemsize
        limits.check_bytes(size, name)
        unpacked = unpack(self.payload, self.packing, self.dtype.itemsize, size)
        return np.frombuffer(unpacked, self.dtype).reshape(self.shape)

    def _calibration(self, override_angstrom: float | None, name: str) -> Calibration | None:
        if override_angstrom is not None:
            return Calibration(override_angstrom, CalibrationSource.OVERRIDE)
        size = self.keys.get("pixel_size_angstrom")
        if size is None:
            return None
        smallest, largest = ATOMIC_RESOLUTION_ANGSTROM
        if not smallest <= size <= largest:
            raise FrameError(
                f"{name}: not an atomic-resolution frame: its sender gives {size:.4g} Å per pixel, outside "
                f"{smallest:g} to {largest:g} Å; if that is wrong, set `pixel_size_angstrom` in config.toml."
            )
        return Calibration(size, CalibrationSource.METADATA)


@dataclass(frozen=True)
class Opening:
    """What the start of a series says of all its images.

    Attributes:
        series: Its id, a word.
        message: The message itself.
        keys: What our sub-object `hrtem` gives, checked.
        acquisition: What the format's own fields tell.
        started_at: When the series began, where known.
    """

    series: str
    message: tuple[bytes, ...] = ()
    keys: dict[str, Any] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    started_at: datetime | None = None


class Decoder(Protocol):
    """Understands one format. It follows the sender's series, so that each source has its own."""

    opening: Opening | None
    """Of the series that goes on; without it the images after it say less."""

    def accept(self, parts: list[Buffer]) -> list[WireImage | FrameError]:
        """Take in a message; return its images, not yet unpacked, and what is wrong with those before them.

        Raises:
            FrameError: The message is not of this format, damaged, or superfluous.
        """

    def reopen(self, parts: list[Buffer]) -> None:
        """Take in the opening of a series of which images were received in an earlier run.

        Raises:
            FrameError: It is damaged.
        """


def hrtem_keys(values: object) -> dict[str, Any]:
    """Check our sub-object `hrtem`: the keys of a sidecar, each with one value.

    Raises:
        FrameError: A key or value is not allowed.
    """
    try:
        values = json.loads(json.dumps(values))  # CBOR may hold what a sidecar never could
    except (TypeError, ValueError, RecursionError):
        raise FrameError(f"hrtem: {shown(values)} is not what JSON can hold; see docs/sources.md.") from None
    sidecar = parse_sidecar(values, "hrtem")
    sidecar.check_lengths(1, "hrtem")
    return sidecar.for_image(0)
