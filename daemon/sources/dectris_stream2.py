"""DECTRIS stream2: each message is one CBOR map.

A series is a message of `type` `start`, one `image` for each image, and `end`. An image's `data` holds one array a
channel, each a multi-dimensional array (tag 40, RFC 8746) of a typed array that may be packed (tag 56500, DECTRIS).
Our sub-object `hrtem` may stand in any of them, or in their `user_data`. Source: DECTRIS, "Stream V2" and
"CBOR tag for compressed data".
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import numpy as np

from daemon.errors import FrameError
from daemon.frames import Acquisition
from daemon.sources.compression import Packing
from daemon.sources.fields import Buffer, label, positive_number, shown, two_lengths, whole_number
from daemon.sources.numbering import SeriesNumbers
from daemon.sources.wire_image import Opening, WireImage, hrtem_keys

MULTI_DIMENSIONAL_TAG = 40
COMPRESSION_TAG = 56500

TYPED_ARRAY_TAGS: dict[int, np.dtype[Any]] = {
    64: np.dtype("u1"), 65: np.dtype(">u2"), 66: np.dtype(">u4"), 67: np.dtype(">u8"), 68: np.dtype("u1"),
    69: np.dtype("<u2"), 70: np.dtype("<u4"), 71: np.dtype("<u8"),
    72: np.dtype("i1"), 73: np.dtype(">i2"), 74: np.dtype(">i4"), 75: np.dtype(">i8"),
    77: np.dtype("<i2"), 78: np.dtype("<i4"), 79: np.dtype("<i8"),
    80: np.dtype(">f2"), 81: np.dtype(">f4"), 82: np.dtype(">f8"),
    84: np.dtype("<f2"), 85: np.dtype("<f4"), 86: np.dtype("<f8"),
}  # fmt: skip
"""Of RFC 8746; f16 is no type that NumPy has everywhere."""

_DEEPEST = 16
_MOST_CHANNELS = 16


class DectrisStream2Decoder:
    """Understands DECTRIS stream2."""

    def __init__(self) -> None:
        self.opening: Opening | None = None
        self._numbers = SeriesNumbers()

    def accept(self, parts: list[Buffer]) -> list[WireImage | FrameError]:
        """Take in a message; return its images, one a channel, and what is missing before them.

        Raises:
            FrameError: The message is not of this format, damaged, or superfluous.
        """
        if len(parts) != 1:
            raise FrameError(f"A message of stream2 has 1 part, this one {len(parts)}; check the source's `type`.")
        try:
            message = cbor2.loads(parts[0], max_depth=_DEEPEST)
        except (cbor2.CBORDecodeError, RecursionError) as error:
            raise FrameError(f"The message is not CBOR ({str(error)[:100]}); check the source's `type`.") from None
        if not isinstance(message, dict) or message.get("type") not in ("start", "image", "end"):
            raise FrameError("The message is no start, image or end of stream2; check the source's `type`.")
        series = label(whole_number(message, "series_id", "message"))
        match message["type"]:
            case "start":
                return [*self._start(series, message, parts)]
            case "image":
                return self._image(series, message)
        self.opening = None
        return [*self._numbers.end(series)]

    def reopen(self, parts: list[Buffer]) -> None:
        """Take in the opening of a series of which images were received in an earlier run.

        Raises:
            FrameError: It is damaged.
        """
        self.accept(parts)
        self._numbers.forget_position()

    def _start(self, series: str, message: dict[Any, Any], parts: list[Buffer]) -> list[FrameError]:
        energy_ev = positive_number(message.get("incident_energy"))
        exposure_seconds = positive_number(message.get("count_time"))
        self.opening = Opening(
            series,
            message=tuple(map(bytes, parts)),
            keys=_keys_in(message),
            acquisition=Acquisition(voltage_kv=energy_ev and energy_ev / 1e3, exposure_seconds=exposure_seconds),
            started_at=_utc(message.get("arm_date")),
        )
        images = message.get("number_of_images")
        return self._numbers.start(series, images if isinstance(images, int) and images > 0 else None)

    def _image(self, series: str, message: dict[Any, Any]) -> list[WireImage | FrameError]:
        number = whole_number(message, "image_id", "image")
        channels = message.get("data")
        if not isinstance(channels, dict) or not 0 < len(channels) <= _MOST_CHANNELS:
            raise FrameError(f"`data` of an image must hold 1 to {_MOST_CHANNELS} arrays, not {shown(channels)}.")
        opening = self.opening if self.opening and self.opening.series == series else Opening(series)
        images = []
        for channel, array in channels.items():
            shape, dtype, packing, payload = _array(array)
            image = WireImage(
                number=number,
                shape=shape,
                dtype=dtype,
                payload=payload,
                packing=packing,
                keys=opening.keys | _keys_in(message),
                acquisition=opening.acquisition,
                series=series,
                channel=label(channel) if len(channels) > 1 else None,
                acquired_at=_after(opening.started_at, message.get("start_time")),
            )
            images.append(image)
        return [*self._numbers.image(series, number), *images]


def _keys_in(message: dict[Any, Any]) -> dict[str, Any]:
    """Find our sub-object, in the map or in its user data, which may be JSON text."""
    user_data = message.get("user_data")
    if isinstance(user_data, str) and '"hrtem"' in user_data:
        try:
            user_data = json.loads(user_data)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"`user_data` is not JSON ({str(error)[:100]}); correct it or leave it out.") from None
    found = message.get("hrtem")
    if found is None and isinstance(user_data, dict):
        found = user_data.get("hrtem")
    return hrtem_keys({} if found is None else found)


def _array(value: object) -> tuple[tuple[int, int], np.dtype[Any], Packing, bytes]:
    """Take an image apart: its height and width, type, packing and payload."""
    if not isinstance(value, cbor2.CBORTag) or value.tag != MULTI_DIMENSIONAL_TAG:
        raise FrameError(f"An image must be an array of tag {MULTI_DIMENSIONAL_TAG}, not {shown(value)}.")
    if not isinstance(value.value, list | tuple) or len(value.value) != 2:
        raise FrameError(f"An array of tag {MULTI_DIMENSIONAL_TAG} must be a pair of shape and pixels.")
    lengths, typed = value.value
    shape = two_lengths(lengths, "image")
    if not isinstance(typed, cbor2.CBORTag) or typed.tag not in TYPED_ARRAY_TAGS:
        raise FrameError(f"The pixels of an image must be a typed array of RFC 8746, not {shown(typed)}.")
    dtype, content = TYPED_ARRAY_TAGS[typed.tag], typed.value
    packing: Packing = "none"
    if isinstance(content, cbor2.CBORTag) and content.tag == COMPRESSION_TAG:
        packing, content = _compressed(content.value, dtype)
    if not isinstance(content, bytes):
        raise FrameError(f"The pixels of an image must be bytes, not {shown(content)}.")
    return shape, dtype, packing, content


def _compressed(value: object, dtype: np.dtype[Any]) -> tuple[Packing, object]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise FrameError(f"An array of tag {COMPRESSION_TAG} must be algorithm, element size and bytes.")
    algorithm, element_bytes, content = value
    if algorithm == "lz4":
        return "lz4", content
    if algorithm == "bslz4" and element_bytes == dtype.itemsize:
        return "bslz4", content
    raise FrameError(
        f"Images packed as {shown(algorithm)} with elements of {shown(element_bytes)} bytes cannot be unpacked; "
        "set the detector to lz4 or bslz4."
    )


def _utc(value: object) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError, OSError):  # at the ends of the calendar
        return None


def _after(start: datetime | None, fraction: object) -> datetime | None:
    """Add seconds given as numerator and denominator."""
    if start is None or not isinstance(fraction, list | tuple) or len(fraction) != 2:
        return None
    try:
        return start + timedelta(seconds=fraction[0] / fraction[1])
    except (TypeError, ArithmeticError, ValueError):
        return None
