"""What a frame or a focal triplet costs beyond its network.

That is `latency_ms` of a real `hrtemd process` over the bare inference time:

    .venv/bin/python benchmarks/process_latency.py [MODEL] [SIDE_PIXELS] [PIXEL_SIZE_ANGSTROM]

Prints medians over copies of one frame, and over as many bare inferences, half of them before and half after, so that a
busy machine slows both. The ratio is what hrtemd itself costs; milliseconds depend on the machine.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from daemon.recognition.backends import Session, open_session
from daemon.recognition.package import Manifest, find_model
from daemon.recognition.series_input import input_channels

COPIES = 20
DEFOCUS_ANGSTROM = [-130.0, -90.0, -50.0]
DRIFT_PIXELS = 20


def main(model: str = "graphene", side: str = "1024", pixel_size_angstrom: str = "0.12") -> None:
    """Time bare inferences around a run of the installed command."""
    package = find_model(model)
    session = open_session(package.onnx_path)
    network_input = noise_for(package.manifest, int(side), float(pixel_size_angstrom))
    session.run(network_input)
    bare = inferences_ms(session, network_input)
    rows = process(subject_for(package.manifest, int(side), float(pixel_size_angstrom)), model, pixel_size_angstrom)
    bare += inferences_ms(session, network_input)

    whole_ms = statistics.median(row["latency_ms"] for row in rows)
    bare_ms = statistics.median(bare)
    print(f"{model}, {session.description}: {side}² at {pixel_size_angstrom} Å/px, {rows[0]['count']} sites")
    subject = "triplet" if package.manifest.input_frames == 3 else "frame"
    stages = {
        stage: statistics.median(row["latency_ms_by_stage"][stage] for row in rows)
        for stage in rows[0]["latency_ms_by_stage"]
    }
    print("by stage, ms: " + ", ".join(f"{stage} {median:.1f}" for stage, median in stages.items()))
    print(f"{subject} {whole_ms:.1f} ms, bare inference {bare_ms:.1f} ms, ratio {whole_ms / bare_ms:.2f}")


def process(pixels: np.ndarray, model: str, pixel_size_angstrom: str) -> list[dict]:
    """Run `hrtemd process` over copies of a frame or triplet; return the rows of its summary."""
    with tempfile.TemporaryDirectory() as folder:
        session, output = Path(folder, "session"), Path(folder, "output")
        session.mkdir()
        for copy in range(COPIES):
            np.save(session / f"frame{copy:02d}.npy", pixels)
            if pixels.ndim == 3:
                (session / f"frame{copy:02d}.json").write_text(json.dumps({"defocus_angstrom": DEFOCUS_ANGSTROM}))
        command = [Path(sys.executable).with_name("hrtemd"), "process", session, "--output", output]
        command += ["--model", model, "--pixel-size", pixel_size_angstrom]
        command += ["--series", "stack" if pixels.ndim == 3 else "none"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return json.loads((output / "summary.json").read_text(encoding="utf-8"))


def noise_for(manifest: Manifest, side: int, pixel_size_angstrom: float) -> np.ndarray:
    """Make a network input of the size that a frame becomes."""
    extent = round(side * pixel_size_angstrom / manifest.sampling_angstrom)
    extent += -extent % manifest.input_multiple
    channels = input_channels(manifest.told_defocus) if manifest.input_frames == 3 else 1
    return np.random.default_rng(0).normal(size=(1, channels, extent, extent)).astype(np.float32)


def inferences_ms(session: Session, network_input: np.ndarray) -> list[float]:
    """Time half as many inferences as there are frames."""
    times = []
    for _ in range(COPIES // 2):
        started = time.perf_counter()
        session.run(network_input)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def subject_for(manifest: Manifest, side: int, pixel_size_angstrom: float) -> np.ndarray:
    """Make a frame, or three that drifted."""
    if manifest.input_frames == 1:
        return honeycomb(side, pixel_size_angstrom)
    wide = honeycomb(side + 2 * DRIFT_PIXELS, pixel_size_angstrom)
    return np.stack([wide[shift : shift + side, shift : shift + side] for shift in (0, DRIFT_PIXELS, 2 * DRIFT_PIXELS)])


def honeycomb(side: int, pixel_size_angstrom: float) -> np.ndarray:
    """A noisy sheet of bright atoms with as many atoms as a real frame has."""
    y, x = np.mgrid[:side, :side] * pixel_size_angstrom
    waves = sum(np.cos(4 * np.pi / (3 * 1.42) * (x * np.cos(a) + y * np.sin(a))) for a in np.deg2rad([0, 60, 120]))
    return np.random.default_rng(0).poisson(100 * (1 - 0.1 * waves)).astype(np.uint16)


if __name__ == "__main__":
    main(*sys.argv[1:])
