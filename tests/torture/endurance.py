"""A hundred thousand small frames: what the daemon holds at the end is what it held near the beginning."""

import threading
from contextlib import suppress
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import zmq

from daemon.client import Atoms, Event
from daemon.drawing import WAITING_OVERLAYS
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.simulator import Shot
from tests.torture.outcome import Circumstances, Outcome
from tests.torture.running import (
    SMALLEST_PIXEL_ANGSTROM,
    SMALLEST_SIDE,
    DaemonProcess,
    Listener,
    Pictures,
    Usage,
    free_endpoint,
    in_thread,
)

ASKED = 100_000
OVERLAYS = 5_000
SETTLED_AFTER = 5_000
LARGEST_GROWTH = 0.05

CONFIG = """
[[sources]]
name = "camera"
type = "array-1.0"
endpoint = "{camera}"
bind = true
spool = "spool"
model = "{model}"
pixel_size_angstrom = {pixel_size}

[ledger]
bytes = 50_000_000  # so that it forgets, many times over

[retention]
bytes = 50_000_000
"""

_MOST_WAITING = WAITING_OVERLAYS + 16
_OPEN_FOR_A_MOMENT = 4
"""Descriptors: of a spool, a table, a ledger, a folder. How many are open depends on how busy the stages are."""
_SAMPLE_SECONDS = 0.1
_SHARE_OF_A_WINDOW = 0.02
_SHORTEST_WINDOW = 60
"""Frames: a daemon with a machine to itself takes a hundred a second."""


class Sample(NamedTuple):
    """What the daemon held after so many results."""

    published: int
    usage: Usage
    queued: int


def endurance(folder: Path, model: Path, number: int = ASKED, minutes: float = inf) -> Outcome:
    """Send so many of the smallest frames, without overlays: to draw one takes ten times as long as all else."""
    outcome = Outcome("endurance", f"{ASKED:,} small frames", "")
    return _endure(outcome, folder, model, number, minutes, overlays=False)


def overlays(folder: Path, model: Path, number: int = OVERLAYS, minutes: float = inf) -> Outcome:
    """Do the same with overlays, which are drawn more slowly than frames come."""
    outcome = Outcome("overlays", "the same with overlays", "")
    return _endure(outcome, folder, model, number, minutes, overlays=True)


def _endure(outcome: Outcome, folder: Path, model: Path, number: int, minutes: float, *, overlays: bool) -> Outcome:
    circumstances = Circumstances()
    samples: list[Sample] = []
    camera = free_endpoint()
    config = CONFIG.format(model=model, camera=camera, pixel_size=SMALLEST_PIXEL_ANGSTROM)
    with DaemonProcess(folder, config, overlays=overlays) as daemon:
        daemon.start()
        with Listener(daemon, Atoms, Event) as listener:

            def watch(stop: threading.Event) -> None:
                while not stop.wait(_SAMPLE_SECONDS):
                    with suppress(OSError, KeyError):  # it has just begun or ended
                        samples.append(Sample(len(listener.headers), daemon.usage(), queued_in(listener.status)))

            with in_thread(watch):
                started = monotonic()
                number = _send(daemon, camera, number, started + 60 * minutes)
                arrived = daemon.wait_until(lambda: len(listener.headers) >= number, 300.0)
                seconds = monotonic() - started
        status = daemon.stop()
        dropped = {reason: count for reason, count in daemon.dropped("camera").items() if "overlay" not in reason}
        overlays_left_out = sum(daemon.dropped("camera").values()) - sum(dropped.values())
    outcome.run = f"{number:,} frames of {SMALLEST_SIDE}² pixels"
    settled_after = min(SETTLED_AFTER, number // 4)
    atoms, events = listener.of(Atoms, "camera"), listener.of(Event, "camera")
    outcome.check("none is lost", arrived and len(atoms) == number and not events, f"{len(atoms):,} results")
    outcome.check(
        "each is received once and in order",
        [header["sequence"] for header in atoms] == list(range(1, number + 1)) and not dropped,
        f"{len(listener.troubles)} troubles, {dropped or 'none'} dropped",
    )
    outcome.check("the daemon stops when asked to", status == 0, f"exit status {status}")
    _check_growth(outcome, samples, settled_after, number)
    outcome.numbers |= {
        "frames": number,
        "frames_a_second": round(number / seconds, 1),
        "overlays_left_out": overlays_left_out,
        "samples": _thinned(samples),
    }
    return circumstances.end(outcome)


def queued_in(status: dict[str, Any]) -> int:
    """Frames that wait in the daemon, as its heartbeat tells."""
    return sum(status["sources"]["camera"]["waiting"].values())


def _send(daemon: DaemonProcess, endpoint: str, number: int, until: float) -> int:
    """Send so many frames, or as many as there is time for; return how many."""
    pictures, simulator = Pictures(SMALLEST_SIDE), Array10Simulator()
    with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
        camera.linger = 300_000  # closing it must not take back what the daemon has not fetched
        camera.connect(endpoint)
        for index in range(number):
            if monotonic() > until:
                return index
            (message,) = simulator.series([Shot(pictures[index], {})])
            while not camera.poll(1000, zmq.POLLOUT):
                assert daemon.is_alive
            camera.send_multipart(message.parts)
        return number


def _check_growth(outcome: Outcome, samples: list[Sample], settled_after: int, number: int) -> None:
    """Compare what is held at the end with what was held after the first frames."""
    window = max(_SHORTEST_WINDOW, round(_SHARE_OF_A_WINDOW * number))
    early = [sample for sample in samples if settled_after <= sample.published < settled_after + window]
    late = [sample for sample in samples if sample.published >= number - window]
    if not early or not late:
        outcome.check("there are samples of what the daemon holds", False, f"{len(samples)} in all")
        return
    before, after = (median(sample.usage.memory_bytes for sample in some) for some in (early, late))
    growth = after / before - 1
    outcome.check(
        f"memory at the end is within {LARGEST_GROWTH:.0%} of that after the first {settled_after:,} frames",
        growth <= LARGEST_GROWTH,
        f"{before / 1e6:.1f} MB, then {after / 1e6:.1f} MB: {growth:+.1%}",
    )
    for what, more in (("descriptors", _OPEN_FOR_A_MOMENT), ("threads", 0)):
        most = max(getattr(sample.usage, what) for sample in early)
        last = median(getattr(sample.usage, what) for sample in late)
        outcome.check(f"no more {what} than before", last <= most + more, f"at most {most}, then mostly {last:g}")
    longest = [max(sample.queued for sample in some) for some in (early, late)]
    outcome.check(
        "no more frames and overlays wait than before",
        longest[1] <= max(longest[0], _MOST_WAITING),
        f"{longest[0]}, then {longest[1]}",
    )
    outcome.numbers |= {"memory_mb_before": before / 1e6, "memory_mb_after": after / 1e6, "growth": growth}


def _thinned(samples: list[Sample]) -> list[list[int]]:
    step = max(1, len(samples) // 50)
    return [[sample.published, *sample.usage, sample.queued] for sample in samples[::step]]
