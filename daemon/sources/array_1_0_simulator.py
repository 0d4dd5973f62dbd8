"""Sends as a camera of array-1.0 does."""

import json
from collections.abc import Iterable, Iterator

import numpy as np

from daemon.sources.simulator import Outgoing, Shot


class Array10Simulator:
    """Numbers its images through all series, since the format has none."""

    def __init__(self) -> None:
        self._frame = 0

    def series(self, shots: Iterable[Shot], length: int | None = None) -> Iterator[Outgoing]:
        """Yield one message an image; the format announces nothing."""
        for shot in shots:
            header = {
                "htype": "array-1.0",
                "shape": shot.pixels.shape,
                "type": shot.pixels.dtype.name,
                "endianess": "little",
                "frame": self._frame,
                "hrtem": shot.keys,
            }
            self._frame += 1
            little = shot.pixels.astype(shot.pixels.dtype.newbyteorder("<"), copy=False)
            yield Outgoing("image", [json.dumps(header).encode(), np.ascontiguousarray(little).tobytes()])
