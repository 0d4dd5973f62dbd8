"""Sends as a DECTRIS detector with stream2 does."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from daemon.sources.compression import Packing
from daemon.sources.dectris_packing import pack
from daemon.sources.dectris_stream2 import COMPRESSION_TAG, MULTI_DIMENSIONAL_TAG, TYPED_ARRAY_TAGS
from daemon.sources.simulator import Outgoing, Shot

_TAGS = {dtype: tag for tag, dtype in TYPED_ARRAY_TAGS.items() if tag != 68}  # 68 is uint8 too


class DectrisStream2Simulator:
    """Counts its series from 1.

    Args:
        packing: How images are packed; detectors are delivered with bitshuffle-LZ4.
        channels: Names of the images taken at once; each gets the same pixels.
    """

    def __init__(self, packing: Packing = "bslz4", channels: tuple[str, ...] = ("threshold_1",)) -> None:
        self._packing: Packing = packing
        self._channels = channels
        self._series = 0

    def series(self, shots: Iterable[Shot], length: int | None = None) -> Iterator[Outgoing]:
        """Yield start, images and end."""
        self._series += 1
        announced = {} if length is None else {"number_of_images": length}
        yield self._message("start", arm_date=datetime.now(UTC), channels=list(self._channels), **announced)
        for number, shot in enumerate(shots):
            data = {channel: _array(shot.pixels, self._packing) for channel in self._channels}
            user_data = {"hrtem": shot.keys}
            yield self._message("image", image_id=number, start_time=[number, 1], data=data, user_data=user_data)
        yield self._message("end")

    def _message(self, kind: Any, **keys: Any) -> Outgoing:
        series = {"series_id": self._series, "series_unique_id": f"simulated-{self._series}"}
        return Outgoing(kind, [cbor2.dumps({"type": kind, **series, **keys})])


def _array(pixels: NDArray[Any], packing: Packing) -> cbor2.CBORTag:
    pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    content: object = pack(pixels, packing)
    if packing != "none":
        content = cbor2.CBORTag(COMPRESSION_TAG, [packing, pixels.dtype.itemsize, content])
    typed = cbor2.CBORTag(_TAGS[np.dtype(pixels.dtype)], content)
    return cbor2.CBORTag(MULTI_DIMENSIONAL_TAG, [list(pixels.shape), typed])
