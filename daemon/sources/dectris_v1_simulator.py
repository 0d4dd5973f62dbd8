"""Sends as a DECTRIS detector with stream v1 does."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from daemon.sources.compression import Packing
from daemon.sources.dectris_packing import pack
from daemon.sources.simulator import Outgoing, Shot


class DectrisV1Simulator:
    """Counts its series from 1.

    Args:
        packing: How images are packed; detectors are delivered with bitshuffle-LZ4.
    """

    def __init__(self, packing: Packing = "bslz4") -> None:
        self._packing: Packing = "lz4-block" if packing == "lz4" else packing
        self._series = 0

    def series(self, shots: Iterable[Shot], length: int | None = None) -> Iterator[Outgoing]:
        """Yield header, images and end."""
        self._series += 1
        configuration = {"nimages": length, "ntrigger": 1} if length is not None else {}
        yield Outgoing("start", [*self._header("dheader", header_detail="basic"), _json(configuration)])
        for frame, shot in enumerate(shots):
            yield Outgoing("image", self._image(frame, shot))
        yield Outgoing("end", self._header("dseries_end"))

    def _image(self, frame: int, shot: Shot) -> list[bytes]:
        pixels = shot.pixels.astype(shot.pixels.dtype.newbyteorder("<"), copy=False)
        height, width = pixels.shape
        packed = pack(pixels, self._packing)
        encoding = {"none": "<", "lz4-block": "lz4<", "bslz4": f"bs{8 * pixels.dtype.itemsize}-lz4<"}[self._packing]
        described = {
            "htype": "dimage_d-1.0",
            "shape": [width, height],
            "type": pixels.dtype.name,
            "encoding": encoding,
            "size": len(packed),
        }
        times = {"htype": "dconfig-1.0", "start_time": 0, "stop_time": 0, "real_time": 0}
        checksum = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        return [
            *self._header("dimage", frame=frame, hash=checksum),
            _json(described),
            packed,
            _json(times),
            _json({"hrtem": shot.keys}),  # the image appendix
        ]

    def _header(self, kind: str, **keys: Any) -> list[bytes]:
        return [_json({"htype": f"{kind}-1.0", "series": self._series, **keys})]


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
