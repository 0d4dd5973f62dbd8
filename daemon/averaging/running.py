"""The drift-corrected average of one area's last frames, as the newest of them sees it."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.averaging.registration import Shift, find_shift
from daemon.averaging.sums import Image, Weights, sum_of
from daemon.frames import Acquisition, Average, Frame
from daemon.series.triplets import LEAST_STEP_ANGSTROM


@dataclass(frozen=True)
class _Member:
    """What is remembered of a frame in an average; `place` is where the first frame's point (0, 0) stands in it."""

    frame_id: str
    dose_per_square_angstrom: float | None
    acquired_at: datetime | None
    place: NDArray[np.float64]


class RunningAverage:
    """Frames of one area, each shifted onto those before it.

    The sum lies on whole pixels, less than one from the newest frame; a frame is shifted by the rest of its drift when
    it is added, and the average by the rest of the newest frame's when it is taken.

    Args:
        frame: The first frame; it has a pixel size.
        frames: How many are averaged.
        weights: Whether they count equally, or fade with an effective number of `frames`.
    """

    def __init__(self, frame: Frame, frames: int, weights: Weights) -> None:
        assert frame.calibration
        self._pixel_size_angstrom = frame.calibration.pixel_size_angstrom
        self._sum = sum_of(frames, weights)
        self._members: deque[_Member] = deque()
        self._whole = np.zeros(2, int)
        self._append(frame, np.zeros(2))

    def __len__(self) -> int:
        return len(self._members)

    def belongs(self, frame: Frame) -> bool:
        """Whether a frame may show the same as the newest one, by all that is told of it."""
        newest = self._newest
        return (
            frame.pixels.shape == newest.pixels.shape
            and frame.calibration is not None
            and math.isclose(frame.calibration.pixel_size_angstrom, self._pixel_size_angstrom, rel_tol=1e-3)
            and _alike(frame.acquisition, newest.acquisition)
        )

    def shift_of(self, frame: Frame) -> Shift:
        """Measure where a frame that belongs lies on the average."""
        return find_shift(self._mean, frame.pixels.astype(np.float32), self._pixel_size_angstrom)

    def add(self, frame: Frame, shift: Shift) -> None:
        """Add a frame that lies there."""
        self._append(frame, self._whole + shift.pixels)

    def _append(self, frame: Frame, place: NDArray[np.float64]) -> None:
        whole = np.rint(place).astype(int)
        step = whole - self._whole
        self._sum.add(_shifted(frame.pixels.astype(np.float32), whole - place), (int(step[0]), int(step[1])))
        self._mean = self._sum.mean()
        self._whole, self._newest = whole, frame
        dose = frame.acquisition.dose_per_square_angstrom
        self._members.append(_Member(frame.frame_id, dose, frame.acquired_at, place))
        while len(self._members) > len(self._sum.weights()):
            self._members.popleft()

    def frame(self, warnings: Sequence[str] = ()) -> Frame:
        """The average in place of the newest frame: under its id and name, in its coordinates, with all of the dose."""
        members, newest = self._members, self._members[-1]
        pixels = _shifted(self._mean, newest.place - self._whole)
        pixels.flags.writeable = False
        dose = _effective_dose([member.dose_per_square_angstrom for member in members], self._sum.weights())
        first_at, last_at = members[0].acquired_at, newest.acquired_at
        average = Average(
            members=tuple(member.frame_id for member in members),
            drift_angstrom=np.array([member.place - newest.place for member in members]) * self._pixel_size_angstrom,
            seconds=(last_at - first_at).total_seconds() if first_at and last_at else None,
            dose_per_square_angstrom=dose,
            warnings=tuple(warnings),
        )
        acquisition = replace(self._newest.acquisition, dose_per_square_angstrom=dose)
        return replace(self._newest, pixels=pixels, acquisition=acquisition, average=average)


def _alike(one: Acquisition, other: Acquisition) -> bool:
    """Whether two frames were taken in the same way: contrast changes with defocus and voltage."""
    return (
        one.series_id == other.series_id
        and one.voltage_kv == other.voltage_kv
        and (one.defocus_angstrom is None) == (other.defocus_angstrom is None)
        and abs((one.defocus_angstrom or 0.0) - (other.defocus_angstrom or 0.0)) < LEAST_STEP_ANGSTROM
    )


def _shifted(image: Image, by: NDArray[np.float64]) -> Image:
    """Move what an image shows by a part of a pixel; what comes in at the border repeats what stands there."""
    if not by.any():
        return image.copy()
    moved: Image = cv2.warpAffine(
        image,
        np.array([[1, 0, by[0]], [0, 1, by[1]]]),
        image.shape[::-1],
        flags=cv2.INTER_LANCZOS4,  # keeps the lattice; linear interpolation would blur it, by another amount each time
        borderMode=cv2.BORDER_REPLICATE,
    )
    return moved


def _effective_dose(doses: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The dose of a single frame as noisy as the weighted mean: the sum, where weights are equal.

    None where one of the frames does not tell.
    """
    if not all(doses):
        return None
    weighted = [(weight, dose) for weight, dose in zip(weights, doses, strict=True) if dose]
    # Counts w d have the variance w² d.
    return sum(weight * dose for weight, dose in weighted) ** 2 / sum(weight**2 * dose for weight, dose in weighted)
