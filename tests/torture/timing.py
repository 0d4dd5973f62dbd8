"""Rows that are ratios of times, as the benchmarks measure them."""

from math import inf
from pathlib import Path

from benchmarks import overhead as overhead_benchmark
from benchmarks import receive_path as receive_path_benchmark
from tests.torture.outcome import Circumstances, Outcome

PAIRS, FRAMES = 120, 40

_MODEL, _SIDE, _PIXEL_ANGSTROM = "graphene", 1024, 0.12
_LARGEST_MEDIAN, _LARGEST_P99 = 0.25, 0.60
_RECEIVED_SIDE, _SMALLEST_SHARE = 4096, 0.5


def overhead(folder: Path, pairs: int = PAIRS, minutes: float = inf) -> Outcome:
    """Compare a frame's whole way with bare inference."""
    circumstances = Circumstances()
    found = overhead_benchmark.measure(folder, _MODEL, _SIDE, _PIXEL_ANGSTROM, pairs, 60 * minutes)
    outcome = Outcome("overhead", f"{_SIDE}² uint16 over ZeroMQ", f"{found['pairs']} frames of {_SIDE}², {_MODEL}")
    outcome.numbers = found
    for name, limit in (("median", _LARGEST_MEDIAN), ("p99", _LARGEST_P99)):
        share = found[f"overhead_{name}"]
        assert isinstance(share, float)
        outcome.check(
            f"from the last byte to published atoms, less inference: {name} at most {limit:.0%} of inference",
            share <= limit,
            f"{share:.1%} of {found['bare_ms']:.0f} ms",
            is_timing=True,
        )
    return circumstances.end(outcome)


def receive_path(frames: int = FRAMES, side: int = _RECEIVED_SIDE) -> Outcome:
    """Compare the daemon's source with a bare loop."""
    circumstances = Circumstances()
    rounds = receive_path_benchmark.ROUNDS
    outcome = Outcome(
        "receive_path", f"{_RECEIVED_SIDE}² uint16 over loopback", f"{rounds} rounds of {frames} of {side}²"
    )
    found = receive_path_benchmark.measure(side, frames)
    outcome.numbers = dict(found)
    outcome.check(
        f"frames come in at {_SMALLEST_SHARE:.0%} or more of a bare pyzmq loop's rate",
        found["ratio"] >= _SMALLEST_SHARE,
        f"{found['ratio']:.0%}: {found['source_frames_a_second']:.1f} of {found['bare_frames_a_second']:.1f} a second",
        is_timing=True,
    )
    return circumstances.end(outcome)
