"""What the running daemon adds to its network, frame by frame.

That is the time from the last byte received to the atoms with a client, minus bare inference, over bare inference:

    .venv/bin/python benchmarks/overhead.py [MODEL] [SIDE_PIXELS] [PIXEL_SIZE_ANGSTROM] [PAIRS]

`hrtemd run` gets one uint16 frame at a time over ZeroMQ. Between two of them, while it rests and has drawn its overlay,
this process runs the same network on the same prepared input, so that a busy machine slows both. The goals are 25 % in
the median and 60 % for the 99th percentile, at 1024². Milliseconds depend on the machine.
"""

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import zmq

from daemon.client import Atoms, Client, Overlay
from daemon.recognition.backends import Session, open_session
from daemon.recognition.package import find_model
from daemon.recognition.preprocess import prepare
from daemon.recognition.tiling import run_tiled
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.simulator import Shot

WARM_UP_FRAMES = 5
PATIENCE_SECONDS = 120.0

CONFIG = """
[[sources]]
name = "camera"
type = "array-1.0"
endpoint = "tcp://127.0.0.1:*"
bind = true
model = "{model}"
pixel_size_angstrom = {pixel_size_angstrom}

[publish.files]
directory = "results"

[publish.zeromq]
endpoint = "tcp://127.0.0.1:*"
replay_endpoint = "tcp://127.0.0.1:*"
"""


def main(model: str = "graphene", side: str = "1024", pixel_size_angstrom: str = "0.12", pairs: str = "100") -> None:
    """Print what the daemon adds."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), model, int(side), float(pixel_size_angstrom), int(pairs)), indent=1))


def measure(
    folder: Path, model: str, side: int, pixel_size_angstrom: float, pairs: int, seconds: float = math.inf
) -> dict[str, object]:
    """Time frames through a daemon and bare inferences in turn: so many, or as many as there is time for."""
    until = time.monotonic() + seconds
    pixels = honeycomb(side, pixel_size_angstrom)
    bare = BareInference(model, pixels, pixel_size_angstrom)
    whole_ms: list[float] = []
    bare_ms: list[float] = []
    stages: list[dict[str, float]] = []
    (folder / "config.toml").write_text(CONFIG.format(model=model, pixel_size_angstrom=pixel_size_angstrom))
    with daemon_in(folder) as (camera_endpoint, endpoint, replay_endpoint), zmq.Context() as context:
        camera = context.socket(zmq.PUSH)
        camera.connect(camera_endpoint)
        simulator = Array10Simulator()
        with (
            camera,
            Client(
                endpoint, receive=(Atoms, Overlay), from_start=True, timeout_seconds=PATIENCE_SECONDS,
                replay_endpoint=replay_endpoint,
            ) as client,
        ):  # fmt: skip
            for pair in range(WARM_UP_FRAMES + pairs):
                if time.monotonic() > until and whole_ms:
                    break
                pixels[0, pair] += 1  # no two frames are alike
                (message,) = simulator.series([Shot(pixels, {})])
                camera.send_multipart(message.parts)
                atoms = next(client)
                came_at = time.time()
                while not isinstance(atoms, Atoms):
                    atoms, came_at = next(client), time.time()
                while not isinstance(next(client), Overlay):
                    pass
                inferred_ms = bare.run_ms()
                if pair >= WARM_UP_FRAMES:
                    received_at = datetime.fromisoformat(atoms.header["received_at"]).timestamp()
                    whole_ms.append(1e3 * (came_at - received_at))
                    bare_ms.append(inferred_ms)
                    stages.append(atoms.header["latency_ms"])
    bare_median = statistics.median(bare_ms)
    added = sorted((whole - bare_median) / bare_median for whole in whole_ms)
    return {
        "model": model,
        "engine": bare.engine,
        "side": side,
        "pairs": len(whole_ms),
        "bare_ms": bare_median,
        "bare_p99_ms": _percentile(sorted(bare_ms), 0.99),
        "whole_ms": statistics.median(whole_ms),
        "whole_p99_ms": _percentile(sorted(whole_ms), 0.99),
        "stages_ms": {stage: statistics.median(row[stage] for row in stages) for stage in stages[0]},
        "overhead_median": statistics.median(added),
        "overhead_p99": _percentile(added, 0.99),
    }


class BareInference:
    """The network alone, on the input that a frame becomes."""

    def __init__(self, model: str, pixels: np.ndarray, pixel_size_angstrom: float) -> None:
        package = find_model(model)
        self._session = open_session(package.onnx_path)
        self.engine = self._session.description
        self._inputs: list[np.ndarray] = []
        manifest = package.manifest
        image = prepare(pixels, pixel_size_angstrom, manifest.sampling_angstrom).image
        run_tiled(_Noting(self._session, self._inputs), image, manifest.stride, manifest.input_multiple,
                  manifest.receptive_field_pixels)  # fmt: skip
        for _ in range(WARM_UP_FRAMES):
            self.run_ms()

    def run_ms(self) -> float:
        """Run it once."""
        started = time.perf_counter()
        for network_input in self._inputs:
            self._session.run(network_input)
        return 1e3 * (time.perf_counter() - started)


class _Noting:
    """Runs a session and notes what it is given."""

    def __init__(self, session: Session, inputs: list[np.ndarray]) -> None:
        self.description = session.description
        self._session = session
        self._inputs = inputs

    def run(self, network_input: np.ndarray) -> np.ndarray:
        self._inputs.append(np.array(network_input))
        return self._session.run(network_input)


@contextmanager
def daemon_in(folder: Path) -> Iterator[list[str]]:
    """Run the installed command; yield where it takes frames, sends results, and sends them again."""
    log = folder / "log"
    with log.open("wb") as stderr:
        command = [Path(sys.executable).with_name("hrtemd"), "run", "--config", folder / "config.toml"]
        process = subprocess.Popen(command, stderr=stderr)
    try:
        found: list[str] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < 3:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text())
            time.sleep(0.05)
            said = log.read_text()
            patterns = (r"bound to (\S+)", r"sent from (\S+), ", r"again from (\S+)")
            found = [match[1] for pattern in patterns if (match := re.search(pattern, said))]
        yield found
    finally:
        process.terminate()
        process.wait()


def honeycomb(side: int, pixel_size_angstrom: float) -> np.ndarray:
    """A noisy sheet of bright atoms with as many atoms as a real frame has."""
    y, x = np.mgrid[:side, :side] * pixel_size_angstrom
    waves = sum(np.cos(4 * np.pi / (3 * 1.42) * (x * np.cos(a) + y * np.sin(a))) for a in np.deg2rad([0, 60, 120]))
    return np.random.default_rng(0).poisson(100 * (1 - 0.1 * waves)).astype(np.uint16)


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


if __name__ == "__main__":
    main(*sys.argv[1:])
