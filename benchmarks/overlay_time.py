"""Processor time to draw an overlay of 1024² pixels with five thousand atoms.

    .venv/bin/python benchmarks/overlay_time.py

Prints the shortest of ten times; a tenth of a second is what an operator does not notice.
"""

import time

import numpy as np

from daemon.atoms import atom_table
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.publish.overlay import draw_overlay
from daemon.recognition.recogniser import Recognition

ATOMS, SIDE, REPEATS = 5000, 1024, 10


def main() -> None:
    """Print the shortest time of several."""
    random = np.random.default_rng(0)
    pixels = random.normal(500, 50, (SIDE, SIDE)).astype(np.uint16)
    positions, probability, sigma = random.random((ATOMS, 2)) * (SIDE - 1), np.full(ATOMS, 0.97), np.full(ATOMS, 0.1)
    recognition = Recognition(
        frame=Frame(pixels, "benchmark/-/0/0", "benchmark"),
        calibration=Calibration(0.12, CalibrationSource.METADATA),
        table=atom_table(positions, 0.12, "atom", probability, sigma),
        warnings=[],
        latency_ms={},
        model="graphene",
        model_sha256="0" * 64,
        backend="none",
    )
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        draw_overlay(recognition)
        times.append(time.process_time() - started)
    print(f"{1e3 * min(times):.0f} ms")


if __name__ == "__main__":
    main()
