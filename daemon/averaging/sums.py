"""Sums of frames that lie on each other, with equal weights or with ones that fade.

Every image comes with the whole pixels that the specimen moved since the one before. A sum is kept where its newest
image is, so all of it is what the newest one shows; what earlier ones did not show of it has less weight there.
"""

from collections import deque
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Weights = Literal["equal", "exponential"]

Step = tuple[int, int]
"""Whole pixels to the right and down."""

Image = NDArray[np.float32]


class Sum(Protocol):
    """What images are added to."""

    def add(self, image: Image, step: Step) -> None:
        """Add an image on which everything stands `step` from where it stood on the one before."""

    def mean(self) -> Image:
        """The weighted mean of the images, at each pixel of those that show it."""

    def weights(self) -> list[float]:
        """The weight of each image that matters, the oldest first; that of the newest is 1."""


class EqualSum:
    """The last images, each with the same weight; holds them all."""

    def __init__(self, images: int) -> None:
        self._images: deque[tuple[Image, Step]] = deque(maxlen=images)

    def add(self, image: Image, step: Step) -> None:
        """See `Sum`."""
        self._images.append((image, step))

    def mean(self) -> Image:
        """See `Sum`."""
        newest, step = self._images[-1]
        total, covered = newest.copy(), np.ones_like(newest)
        x, y = step
        for image, step in list(self._images)[-2::-1]:
            here, there = _overlap(image.shape, (x, y))
            total[here] += image[there]
            covered[here] += 1
            x, y = x + step[0], y + step[1]
        return np.asarray(total / covered)

    def weights(self) -> list[float]:
        """See `Sum`."""
        return [1.0] * len(self._images)


class FadingSum:
    """All images, each with a constant fraction of the weight of the next; as noisy as a mean of `images` is.

    Holds nothing but two sums, whatever their effective number. What goes out of the newest image's view is forgotten.
    """

    LEAST_WEIGHT = 0.01

    def __init__(self, images: int) -> None:
        self._fraction = (images - 1) / (images + 1)  # so that (Σ weights)² / Σ weights² comes to `images`
        self._sum: tuple[Image, Image] | None = None
        self._count = 0

    def add(self, image: Image, step: Step) -> None:
        """See `Sum`."""
        total, covered = image.copy(), np.ones_like(image)
        if self._sum is not None:
            here, there = _overlap(image.shape, step)
            total[here] += np.float32(self._fraction) * self._sum[0][there]
            covered[here] += np.float32(self._fraction) * self._sum[1][there]
        self._sum = total, covered
        self._count += 1

    def mean(self) -> Image:
        """See `Sum`."""
        assert self._sum is not None
        total, covered = self._sum
        return np.asarray(total / covered)

    def weights(self) -> list[float]:
        """See `Sum`."""
        weights = [1.0]
        while len(weights) < self._count and weights[-1] * self._fraction >= self.LEAST_WEIGHT:
            weights.append(weights[-1] * self._fraction)
        return weights[::-1]


def sum_of(images: int, weights: Weights) -> Sum:
    """An empty sum; `images` is how many have a weight, or an effective number."""
    return EqualSum(images) if weights == "equal" else FadingSum(images)


def _overlap(shape: tuple[int, ...], step: Step) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where on a newer image is what an earlier one shows too, and where on the earlier one."""
    newer, earlier = [], []
    for pixels, moved in zip(shape, step[::-1], strict=True):
        moved = max(-pixels, min(moved, pixels))  # nothing in common
        newer.append(slice(max(moved, 0), pixels + min(moved, 0)))
        earlier.append(slice(max(-moved, 0), pixels - max(moved, 0)))
    return (newer[0], newer[1]), (earlier[0], earlier[1])
