"""A sender that is none of ours: the DECTRIS simulator of LiberTEM-live (`pip install 'libertem-live[sim]'`)."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from daemon.drops import Drops
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.compression import Packing
from daemon.sources.connection import Place
from daemon.sources.dectris_packing import pack
from daemon.sources.formats import FORMATS
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.wire import PATIENCE_SECONDS, frames_in, has, sentences_in, take

COMMAND = shutil.which("libertem-live-dectris-sim")

pytestmark = pytest.mark.skipif(
    COMMAND is None, reason="LiberTEM-live's simulator is not on the PATH: pip install 'libertem-live[sim]' somewhere"
)

IMAGES = 5
SERIES = 34


def image(number: int) -> "np.ndarray[Any, Any]":
    return (np.arange(48 * 64).reshape(48, 64) % 251 + number).astype(np.uint16)


def record(path: Path, encoding: str, packing: Packing) -> None:
    """Write the recording of a detector's stream that the simulator plays: each part behind its length."""
    configuration = {
        "trigger_mode": "exte", "ntrigger": IMAGES, "nimages": 1, "compression": "bslz4",
        "x_pixels_in_detector": 64, "y_pixels_in_detector": 48, "bit_depth_image": 16, "bit_depth_readout": 16,
        "count_time": 0.001, "frame_time": 0.001, "incident_energy": 80_000.0, "photon_energy": 80_000.0,
        "beam_center_x": 0.0, "beam_center_y": 0.0,
    }  # fmt: skip
    parts = [{"htype": "dheader-1.0", "series": SERIES, "header_detail": "basic"}, configuration]
    for number in range(IMAGES):
        packed = pack(image(number), packing)
        parts += [
            {"htype": "dimage-1.0", "series": SERIES, "frame": number, "hash": "0" * 32},
            {"htype": "dimage_d-1.0", "shape": [64, 48], "type": "uint16", "encoding": encoding, "size": len(packed)},
            packed,
            {"htype": "dconfig-1.0", "start_time": 0, "stop_time": 0, "real_time": 0},
        ]
    parts += [{"htype": "dseries_end-1.0", "series": SERIES}]
    encoded = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    path.write_bytes(b"".join(struct.pack("<q", len(part)) + part for part in encoded))


class Detector:
    """The simulator as it runs."""

    def __init__(self, recording: Path, log: Path) -> None:
        command = [str(COMMAND), str(recording), "--port", "0", "--zmqport", "0", "--dwelltime", "2000"]
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self) -> None:
        """Return once it can be connected to."""
        self.endpoint = self._said(r"RustedReplay listening on (tcp://\S+)")
        self._port = int(self._said(r"API server listening on \('127\.0\.0\.1', (\d+)\)"))

    def command(self, name: str) -> None:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)) as connection:
            connection.request("PUT", f"/detector/api/1.8.0/command/{name}")
            assert connection.getresponse().status == 200

    def _said(self, pattern: str) -> str:
        for _ in range(round(PATIENCE_SECONDS / 0.1)):
            if match := re.search(pattern, self._log.read_text()):
                return match[1]
            assert self.process.poll() is None, self._log.read_text()
            Event().wait(0.1)
        raise AssertionError(self._log.read_text())


@pytest.fixture(params=[("bs16-lz4<", "bslz4"), ("lz4<", "lz4-block"), ("<", "none")], ids=["bslz4", "lz4", "none"])
def detector(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Detector]:
    record(tmp_path / "recording", *request.param)
    detector = Detector(tmp_path / "recording", tmp_path / "log")
    try:
        detector.wait()
        yield detector
    finally:
        os.killpg(detector.process.pid, signal.SIGKILL)  # asked to end, it sometimes leaves its HTTP server behind
        detector.process.wait()


def test_its_series_arrive_one_after_the_other(detector: Detector) -> None:
    decoder = FORMATS["dectris-v1"].decoder()
    source = ZeroMQSource("camera", Place(detector.endpoint), decoder, "lossless", 0.1, DEFAULT_LIMITS, 2**20, Drops())
    with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
        take(arrivals, lambda _: source.senders == 1)
        for _ in range(2):
            detector.command("arm")
            detector.command("trigger")
            found = take(arrivals, has(IMAGES))
            assert sentences_in(found) == []
            for number, arrival in enumerate(frames_in(found)):
                np.testing.assert_array_equal(arrival.subject.pixels, image(number))  # type: ignore[union-attr]
                assert arrival.subject.acquisition.voltage_kv == 80.0  # type: ignore[union-attr]
