"""Latency of one frame through the recogniser, over the bare inference time of its network, in one run.

    .venv/bin/python benchmarks/process_latency.py [MODEL] [SIDE_PIXELS] [PIXEL_SIZE_ANGSTROM]

Prints medians over 30 frames. The ratio is what hrtemd itself costs; milliseconds depend on the machine.
"""

import statistics
import sys
import time

import numpy as np

from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.backends import open_session
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser

FRAMES = 30


def main(model: str = "graphene", side: str = "1024", pixel_size_angstrom: str = "0.12") -> None:
    """Time frames and bare inferences alternately, so that a busy moment hits both."""
    package = find_model(model)
    manifest = package.manifest
    recogniser, session = Recogniser(package), open_session(package.onnx_path)
    calibration = Calibration(float(pixel_size_angstrom), CalibrationSource.OVERRIDE)
    frame = Frame(honeycomb(int(side), calibration.pixel_size_angstrom), "benchmark", "benchmark", calibration)
    cells = round(int(side) * calibration.pixel_size_angstrom / manifest.sampling_angstrom / manifest.input_multiple)
    network_side = cells * manifest.input_multiple
    network_input = np.random.default_rng(0).normal(size=(1, 1, network_side, network_side)).astype(np.float32)

    atoms = recogniser.recognise(frame).table.num_rows
    session.run(network_input)
    whole, bare = [], []
    for _ in range(FRAMES):
        whole.append(milliseconds(lambda: recogniser.recognise(frame)))
        bare.append(milliseconds(lambda: session.run(network_input)))
    ratio = statistics.median(whole) / statistics.median(bare)
    print(f"{model}, {recogniser.backend}: {side}² at {pixel_size_angstrom} Å/px, {atoms} sites")
    print(
        f"frame {statistics.median(whole):.1f} ms, bare inference {statistics.median(bare):.1f} ms, ratio {ratio:.2f}"
    )


def honeycomb(side: int, pixel_size_angstrom: float) -> np.ndarray:
    """A noisy sheet of bright atoms with as many atoms as a real frame has."""
    y, x = np.mgrid[:side, :side] * pixel_size_angstrom
    waves = sum(np.cos(4 * np.pi / (3 * 1.42) * (x * np.cos(a) + y * np.sin(a))) for a in np.deg2rad([0, 60, 120]))
    return np.random.default_rng(0).poisson(100 * (1 - 0.1 * waves)).astype(np.uint16)


def milliseconds(call: object) -> float:
    """Run once."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
