"""A camera twice as fast as the daemon, in live view: what is shown is fresh, and every frame left out is counted."""

import time
from pathlib import Path
from statistics import median
from threading import Event as StopEvent
from time import monotonic, sleep

import numpy as np
import zmq

from daemon.client import Atoms
from daemon.client import Event as ResultEvent
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.simulator import Shot
from tests.torture.outcome import Circumstances, Outcome, spread
from tests.torture.running import DaemonProcess, Listener, free_endpoint, in_thread

ASKED_SECONDS = 30
SIDE, PIXEL_ANGSTROM = 1024, 0.12
INFERENCES_OF_AGE = 2.0

CONFIG = """
[[sources]]
name = "camera"
type = "array-1.0"
endpoint = "{camera}"
bind = true
model = "{model}"
policy = "latest"
pixel_size_angstrom = {pixel_size}
"""

_MEASURED_FRAMES = 10
_FRAMES_BEFORE_IT_COUNTS = 5


def live_view(
    folder: Path, model: str | Path = "graphene", seconds: float = ASKED_SECONDS, side: int = SIDE
) -> Outcome:
    """Send twice as many frames as can be analysed, for so long."""
    circumstances = Circumstances()
    outcome = Outcome("live_view", "a sender at twice the daemon's speed", f"{seconds:g} s of {side}² uint16, {model}")
    endpoint = free_endpoint()
    config = CONFIG.format(model=model, camera=endpoint, pixel_size=PIXEL_ANGSTROM)
    sent_at: list[float] = []
    with DaemonProcess(folder, config, overlays=False) as daemon:
        daemon.start()
        with Listener(daemon, Atoms, ResultEvent) as listener, _Camera(endpoint, side) as camera:
            pace_seconds = _seconds_a_frame(daemon, listener, camera, sent_at)

            def play(stop: StopEvent) -> None:
                due = monotonic()
                while not stop.is_set():
                    sent_at.append(time.time())
                    camera.send()
                    due = max(due + pace_seconds / 2, monotonic() - pace_seconds)
                    sleep(max(0.0, due - monotonic()))

            with in_thread(play):
                sleep(seconds)
            daemon.wait_until(lambda: _last_number(listener) == len(sent_at) - 1, 30.0)
        daemon.stop()
        dropped = daemon.dropped("camera")
    numbers = [_number(header) for header in listener.headers]
    infer_ms = median(header["latency_ms"]["infer"] for header in listener.headers)
    ages = [
        1e3 * (seen_at - sent_at[number])
        for number, seen_at in zip(numbers, listener.seen_at, strict=True)
        if number >= _MEASURED_FRAMES + _FRAMES_BEFORE_IT_COUNTS
    ]
    outcome.numbers = {
        "sent": len(sent_at),
        "published": len(numbers),
        "dropped": dropped,
        "seconds_a_frame_alone": pace_seconds,
        "infer_ms": infer_ms,
        "age_ms": spread(ages),
        "age_in_inferences": spread([age / infer_ms for age in ages]),
    }
    outcome.check("the last frame sent is published", numbers[-1] == len(sent_at) - 1)
    outcome.check("frames are published in order, each once", numbers == sorted(set(numbers)))
    outcome.check(
        "dropped = sent - published",
        sum(dropped.values()) == len(sent_at) - len(numbers),
        f"{sum(dropped.values())} = {len(sent_at)} - {len(numbers)}",
    )
    outcome.check(
        "the sender is not held up", len(sent_at) > 1.8 * len(numbers), f"{len(sent_at)} sent", is_timing=True
    )
    in_inferences = outcome.numbers["age_in_inferences"]
    outcome.check(
        f"from being sent to being received as atoms takes under {INFERENCES_OF_AGE:g} inference times",
        in_inferences["largest"] < INFERENCES_OF_AGE,
        f"median {in_inferences['median']:.2f}, 99th percentile {in_inferences['p99']:.2f}, "
        f"largest {in_inferences['largest']:.2f} of {infer_ms:.0f} ms",
        is_timing=True,
    )
    return circumstances.end(outcome)


class _Camera:
    """Sends the same sheet again and again, each time with one pixel changed."""

    def __init__(self, endpoint: str, side: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.linger = 0
        self._socket.sndtimeo = 60_000
        self._socket.connect(endpoint)
        self._pixels = honeycomb(side, PIXEL_ANGSTROM)
        self._simulator = Array10Simulator()
        self._sent = 0

    def __enter__(self) -> "_Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    def send(self) -> None:
        self._pixels[0, self._sent % len(self._pixels)] += 1
        self._sent += 1
        (message,) = self._simulator.series([Shot(self._pixels, {})])
        self._socket.send_multipart(message.parts)


def _seconds_a_frame(daemon: DaemonProcess, listener: Listener, camera: _Camera, sent_at: list[float]) -> float:
    """Send frames one at a time, and return how long one takes: sent faster than that, some must be left out."""
    taken = []
    for number in range(_MEASURED_FRAMES):
        started = monotonic()
        sent_at.append(time.time())
        camera.send()
        assert daemon.wait_until(lambda: _last_number(listener) == number, pause_seconds=0.001)  # noqa: B023
        taken.append(monotonic() - started)
    return median(taken)


def _number(header: dict[str, str]) -> int:
    return int(header["frame_id"].split("/")[2])


def _last_number(listener: Listener) -> int:
    return _number(listener.headers[-1]) if listener.headers else -1


def honeycomb(side: int, pixel_size_angstrom: float) -> "np.ndarray[tuple[int, int], np.dtype[np.uint16]]":
    """A noisy sheet of bright atoms with as many atoms as a real frame has."""
    y, x = np.mgrid[:side, :side] * pixel_size_angstrom
    waves = sum(np.cos(4 * np.pi / (3 * 1.42) * (x * np.cos(a) + y * np.sin(a))) for a in np.deg2rad([0, 60, 120]))
    return np.random.default_rng(0).poisson(100 * (1 - 0.1 * waves)).astype(np.uint16)
