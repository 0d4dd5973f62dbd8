"""A source's frames, each averaged with those before it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from threading import Event
from time import perf_counter

import numpy as np

from daemon.averaging.registration import Shift
from daemon.averaging.running import RunningAverage
from daemon.averaging.sums import Weights
from daemon.drops import Drops
from daemon.frames import Average, Frame
from daemon.sources.source import Arrival, Failure, Source

MISFITS_IN_A_ROW = 3
"""After so many frames that fit neither the average nor each other, the average is given up."""

LEFT_OUT = "frame left out of the average: it does not fit"


class AveragedSource:
    """A source that yields, for each frame of another source, the average of the last frames of its area.

    Of an average, the newest frame gives its id, name and coordinates. A frame that does not fit is left out, analysed
    on its own with a warning, and begins another average beside the one before: if the next frame fits that one, the
    specimen has moved on; if it fits the earlier average, the frame between was a bad one.

    Args:
        source: Yields single frames; series and failures pass unchanged.
        frames: How many frames are averaged.
        weights: `equal`, or `exponential` with an effective number of `frames`.
        drops: Counts the frames left out of averages.
    """

    def __init__(self, source: Source, frames: int, weights: Weights, drops: Drops) -> None:
        self.name = source.name
        self._source = source
        self._frames = frames
        self._weights = weights
        self._drops = drops
        # What was there at start comes between new frames; it has an average of its own.
        self._averages: dict[bool, _Averages] = {}

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """Yield averages and failures as they come, until `stop` is set, and None when nothing came for a moment."""
        for arrival in self._source.arrivals(stop):
            if isinstance(arrival, Arrival) and isinstance(arrival.subject, Frame):
                yield self._averaged(arrival, arrival.subject)
            else:
                yield arrival

    def _averaged(self, arrival: Arrival, frame: Frame) -> Arrival:
        started = perf_counter()
        averages = self._averages.get(arrival.resumed)
        if averages is None or averages.folder != arrival.folder:
            averages = self._averages[arrival.resumed] = _Averages(arrival.folder, self._frames, self._weights)
        misfits = averages.misfits
        averaged = averages.add(frame)
        if averages.misfits > misfits:
            self._drops.add(self.name, LEFT_OUT)
        elapsed_ms = 1e3 * (perf_counter() - started)
        return replace(arrival, subject=averaged, read_ms=arrival.read_ms + elapsed_ms)


class _Averages:
    """The average of one folder's frames, and beside it one of a frame that did not fit."""

    def __init__(self, folder: PurePosixPath, frames: int, weights: Weights) -> None:
        self.folder = folder
        self.misfits = 0
        """Frames in a row that did not fit."""
        self._frames = frames
        self._weights = weights
        self._running: list[RunningAverage] = []

    def add(self, frame: Frame) -> Frame:
        """Average a frame with those that it fits."""
        if frame.calibration is None:
            return replace(frame, average=_alone(frame, f"{frame.name} is not averaged: {_NO_PIXEL_SIZE}"))
        best: Shift | None = None
        for average in self._running:
            if not average.belongs(frame):
                continue
            shift = average.shift_of(frame)
            if shift.is_significant:
                average.add(frame, shift)
                self._running, self.misfits = [average], 0
                return average.frame()
            if best is None or shift.fit > best.fit:
                best = shift
        new = RunningAverage(frame, self._frames, self._weights)
        if best is None:  # taken in another way, or the first
            self._running, self.misfits = [new], 0
            return new.frame()
        self.misfits += 1
        before = self._running[:1] if self.misfits < MISFITS_IN_A_ROW else []
        self._running = [*before, new]
        return new.frame([_misfit(frame, best)])


_NO_PIXEL_SIZE = (
    "it has no pixel size, without which its drift cannot be measured. Give it as pixel_size_angstrom of the source in "
    "config.toml, or with the frames."
)


def _misfit(frame: Frame, shift: Shift) -> str:
    return (
        f"{frame.name} stands alone: it does not fit the frames before it ({shift.fit:.1f} standard deviations of "
        f"noise at the best shift, {shift.needed:.1f} are needed). The stage moved, the beam was off, or the dose is "
        "too low to follow the drift; more dose a frame, or a larger field, would help."
    )


def _alone(frame: Frame, warning: str) -> Average:
    dose = frame.acquisition.dose_per_square_angstrom
    return Average((frame.frame_id,), np.zeros((1, 2)), 0.0 if frame.acquired_at else None, dose, (warning,))
