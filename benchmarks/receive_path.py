"""How fast frames come in, compared with a bare pyzmq loop.

    .venv/bin/python benchmarks/receive_path.py [SIDE_PIXELS] [FRAMES]

Another process pushes uint16 frames of array-1.0 over loopback. Rounds of a bare loop, which receives and does nothing,
take turns with rounds of the daemon's own source, which checks, names and hands over each frame, so that a busy machine
slows both. The ratio is what counts; 50 % is the goal for 4096².
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from threading import Event
from time import perf_counter

import zmq

from daemon.drops import Drops
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.connection import WAITING_MESSAGES, Place
from daemon.sources.formats import FORMATS
from daemon.sources.source import Arrival
from daemon.sources.zeromq import ZeroMQSource

ROUNDS = 5
MESSAGE_BYTES = 2**30
ANY_PORT = "tcp://127.0.0.1:*"

_SENDER = """
import json, sys
import numpy as np
import zmq
endpoint, side, frames = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pixels = np.random.default_rng(0).poisson(100, (side, side)).astype(np.uint16)
with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
    camera.connect(endpoint)
    for frame in range(frames):
        header = {"htype": "array-1.0", "shape": pixels.shape, "type": "uint16", "frame": frame}
        camera.send(json.dumps(header).encode(), zmq.SNDMORE)
        camera.send(pixels, copy=False)
"""

Measure = Callable[[int, int], float]


def main(side: str = "4096", frames: str = "40") -> None:
    """Print both rates and their ratio."""
    print(json.dumps(measure(int(side), int(frames)), indent=1))


def measure(side: int, frames: int) -> dict[str, float]:
    """Return frames a second of a bare loop and of the daemon's source, and their ratio: medians over rounds."""
    bare: list[float] = []
    source: list[float] = []
    for _ in range(ROUNDS):
        bare.append(bare_loop(side, frames))
        source.append(through_the_source(side, frames))
    ratios = [ours / theirs for ours, theirs in zip(source, bare, strict=True)]
    return {
        "side": side,
        "frames_a_round": frames,
        "bare_frames_a_second": statistics.median(bare),
        "source_frames_a_second": statistics.median(source),
        "ratio": statistics.median(ratios),
        "smallest_ratio": min(ratios),
        "largest_ratio": max(ratios),
    }


def bare_loop(side: int, frames: int) -> float:
    """Receive, and nothing else."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.rcvhwm = WAITING_MESSAGES
        socket.bind(ANY_PORT)
        with _sender(socket.getsockopt_string(zmq.LAST_ENDPOINT), side, frames):
            socket.recv_multipart(copy=False)
            started = perf_counter()
            for _ in range(frames - 1):
                socket.recv_multipart(copy=False)
            return (frames - 1) / (perf_counter() - started)


def through_the_source(side: int, frames: int) -> float:
    """Receive as the daemon does, up to the frame that is handed over."""
    source = ZeroMQSource(
        "camera", Place(ANY_PORT, bind=True), FORMATS["array-1.0"].decoder(), "lossless", 0.1, DEFAULT_LIMITS,
        MESSAGE_BYTES, Drops(),
    )  # fmt: skip
    with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
        next(arrivals)
        with _sender(source.endpoint, side, frames):
            came = (arrival for arrival in arrivals if arrival is not None)
            first = next(came)
            started = perf_counter()
            assert isinstance(first, Arrival), first
            for _ in range(frames - 1):
                arrival = next(came)
                assert isinstance(arrival, Arrival), arrival
            return (frames - 1) / (perf_counter() - started)


def _sender(endpoint: str, side: int, frames: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", _SENDER, endpoint, str(side), str(frames)])


if __name__ == "__main__":
    main(*sys.argv[1:])
