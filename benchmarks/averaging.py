"""How well averages of low-dose frames lie on each other, and what is gained by them.

    .venv/bin/python -m benchmarks.averaging [FRAMES]

Frames of 64 Å (320² pixels), and `wide` of 102 Å, of a sheet that drifts: a random walk of 0.3 Å along each axis from
frame to frame, and 0.3 Å of steady drift. `MoS2` has a contrast of 12 % and lacks 4 % of its atoms; `graphene` and
`wide`, which is graphene too, have 5 % and lack 1 %. `error`: how far the members of the averages are off, in Å.
`lattice`: share of them off by more than 1 Å, as by a lattice vector. `alone`: share of frames that were left out.

`gain`: signal to noise of the averages over that of single frames, in power, below 1/1.1 Å; with N frames N is the
most there is. `one on one` is the gain where each frame is registered to the one before it, in the same way, and
shifts add up.
"""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from threading import Event
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.averaging import AveragedSource, Weights
from daemon.averaging.registration import find_shift
from daemon.drops import Drops
from daemon.frames import Frame
from daemon.sources.source import Arrival
from tests.daemon.drifting import PIXEL_SIZE_ANGSTROM, Feed, Sheet, frame_of

DOSES_PER_SQUARE_ANGSTROM = (5.0, 10.0, 20.0, 50.0)
AVERAGED = 8
SMOOTHING_ANGSTROM = 0.3
BORDER_PIXELS = 30


def main(frames: str = "24") -> None:
    """Print the table."""
    graphene: dict[str, Any] = {"missing": 0.01, "lattice_angstrom": 2.46, "contrast": 0.05}
    sheets = {"MoS2": Sheet(), "graphene": Sheet(**graphene), "wide": Sheet(**graphene, side=512)}
    print(f"{'':10}{'weights':12} dose  error: median  95 %  lattice  alone    gain  one on one   ms a frame")
    for name, sheet in sheets.items():
        for weights in ("equal", "exponential"):
            for dose in DOSES_PER_SQUARE_ANGSTROM:
                print(f"{name:10}{weights:12}{dose:5g}  {measured(sheet, dose, weights, int(frames))}", flush=True)


def measured(sheet: Sheet, dose: float, weights: Weights, count: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.3, (count, 2)) + [0.25, -0.17]
    drift = np.cumsum(steps, axis=0)
    frames = [
        frame_of(sheet.counts(place, seed, dose), seed, dose_per_square_angstrom=dose)
        for seed, place in enumerate(drift)
    ]
    started = time.perf_counter()
    averages = list(averages_of(frames, weights))
    ms = 1e3 * (time.perf_counter() - started) / count

    errors, gains = [], []
    place_of = {frame.frame_id: place for frame, place in zip(frames, drift, strict=True)}
    alone = sum(bool(frame.average and frame.average.warnings) for frame in averages)
    for frame, place in zip(averages, drift, strict=True):
        assert frame.average
        truth = np.array([place_of[member] for member in frame.average.members]) - place
        errors += list(np.hypot(*(frame.average.drift_angstrom - truth)[:-1].T))
    for index in range(AVERAGED, count):
        seen = sheet.seen(drift[index])
        single = signal_to_noise(frames[index].pixels, seen)
        gains.append(signal_to_noise(averages[index].pixels, seen) / single)
    chained = np.mean(list(one_on_one(frames, drift, sheet)))
    found = np.array(errors or [0.0])
    return (
        f"{np.median(found):13.3f} {np.percentile(found, 95):5.2f} {np.mean(found > 1):8.1%} {alone / count:6.0%} "
        f"{np.mean(gains):7.1f} {chained:11.1f} {ms:12.0f}"
    )


def averages_of(frames: Sequence[Frame], weights: Weights) -> Iterator[Frame]:
    """Yield the average in place of each frame."""
    logging.disable()  # what is left out stands in the table
    for arrival in AveragedSource(Feed(frames), AVERAGED, weights, Drops()).arrivals(Event()):
        assert isinstance(arrival, Arrival)
        assert isinstance(arrival.subject, Frame)
        yield arrival.subject


def one_on_one(frames: Sequence[Frame], drift: NDArray[np.float64], sheet: Sheet) -> Iterator[float]:
    """Yield the gain of equal averages where each frame was registered to the one before it."""
    places = [np.zeros(2)]
    for before, frame in pairwise(frames):
        pixels = [each.pixels.astype(np.float32) for each in (before, frame)]
        places.append(places[-1] + find_shift(pixels[0], pixels[1], PIXEL_SIZE_ANGSTROM).pixels)
    for index in range(AVERAGED, len(frames)):
        total = np.zeros(frames[0].pixels.shape, np.float32)
        for member in range(index - AVERAGED + 1, index + 1):
            right, down = places[index] - places[member]
            motion = np.array([[1, 0, right], [0, 1, down]])
            pixels = frames[member].pixels.astype(np.float32)
            total += cv2.warpAffine(pixels, motion, total.shape[::-1], flags=cv2.INTER_LANCZOS4)
        seen = sheet.seen(drift[index])
        yield signal_to_noise(total, seen) / signal_to_noise(frames[index].pixels, seen)


def signal_to_noise(pixels: NDArray[np.generic], truth: NDArray[np.float64]) -> float:
    """In power, where every member of an average shows something."""
    sigma = SMOOTHING_ANGSTROM / PIXEL_SIZE_ANGSTROM
    inner = (slice(BORDER_PIXELS, -BORDER_PIXELS),) * 2
    smooth = [cv2.GaussianBlur(np.asarray(image, np.float32), (0, 0), sigma)[inner] for image in (pixels, truth)]
    likeness = np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1]
    return float(likeness**2 / (1 - likeness**2))


if __name__ == "__main__":
    main(*sys.argv[1:])
