"""From a frame as acquired to the network's input: despeckled, resampled, locally normalised.

The trainer feeds its simulated frames through this same code, so whatever it does to noise and edges, the network has
seen it.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from daemon.errors import FrameError

# Frames are prepared side by side, and beside the engine. Where OpenCV splits each call among its own threads as well,
# it waits for them longer than they save.
cv2.setNumThreads(1)

SPECKLE_DEVIATIONS = 8.0
"""A pixel this many standard deviations off the median of its neighbours is hot, dead or an X-ray."""

NORMALISATION_RADIUS_ANGSTROM = 6.0
"""Standard deviation of the Gaussian window in which mean and contrast are evened out."""

LEAST_FIELD_ANGSTROM = 5.0
"""Smaller fields hold no lattice."""


@dataclass(frozen=True)
class PreparedFrame:
    """The network's input and the way back to the acquired frame.

    Attributes:
        image: Shape (height, width), float32, local mean 0 and local standard deviation 1.
        scale: Acquired pixels per pixel of `image`, along x and along y.
    """

    image: NDArray[np.float32]
    scale: tuple[float, float]

    def to_acquired(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map positions (n, 2) from `image` to the acquired frame; both count from pixel centres."""
        return np.asarray((positions + 0.5) * np.asarray(self.scale) - 0.5)

    def from_acquired(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map positions (n, 2) from pixels of the acquired frame to pixels of `image`."""
        return np.asarray((positions + 0.5) / np.asarray(self.scale) - 0.5)


def prepare(pixels: NDArray[Any], pixel_size_angstrom: float, sampling_angstrom: float) -> PreparedFrame:
    """Bring a frame to the network's sampling and contrast.

    Args:
        pixels: Shape (height, width), any real type.
        pixel_size_angstrom: Of the frame.
        sampling_angstrom: Å per pixel the network wants.

    Raises:
        FrameError: All pixels are alike.
    """
    image = despeckle(pixels.astype(np.float32))
    height, width = image.shape
    image = resample(image, pixel_size_angstrom / sampling_angstrom)
    scale = (width / image.shape[1], height / image.shape[0])
    return PreparedFrame(normalise(image, sampling_angstrom).image, scale)


def resample(image: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Make an image `factor` times as many pixels wide and high."""
    height, width = image.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Averaging keeps all of the counts when pixels are merged; cubic keeps the lattice when they are split.
    resampled: NDArray[np.float32] = cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    )
    return resampled


def despeckle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace hot and dead pixels by the median of their neighbourhood, in place."""
    median = cv2.medianBlur(image, 3)
    sample = image[::3, ::3] - median[::3, ::3]
    deviation = sample.std()
    deviation = sample[np.abs(sample) <= 5 * deviation].std()
    limit = float(SPECKLE_DEVIATIONS * deviation)
    # Most frames have none, and that is found out in a third of the time.
    if cv2.norm(image, median, cv2.NORM_INF) <= limit:
        return image
    speckles = cv2.compare(cv2.absdiff(image, median), limit, cv2.CMP_GT)
    # Where more than this stands out, it is signal: single electrons on an empty background.
    if deviation > 0 and cv2.countNonZero(speckles) < 0.01 * image.size:
        cv2.copyTo(median, speckles, image)
    return image


@dataclass(frozen=True)
class Normalised:
    """An image whose brightness and contrast are evened out, and the contrast it had.

    Attributes:
        image: Shape (height, width), local mean 0 and local standard deviation 1.
        contrast: Local standard deviation over local mean, on a coarse grid that covers the same field. Not finite, or
            negative, where the local mean is not positive.
    """

    image: NDArray[np.float32]
    contrast: NDArray[np.float32]


def normalise(image: NDArray[np.float32], sampling_angstrom: float) -> Normalised:
    """Even out brightness and contrast over `NORMALISATION_RADIUS_ANGSTROM`.

    Raises:
        FrameError: All pixels are alike.
    """
    mean = _smooth(image, sampling_angstrom)
    centred = cv2.subtract(image, enlarge(mean, image.shape))
    overall_variance = cv2.norm(centred, cv2.NORM_L2SQR) / image.size
    if overall_variance <= 1e-12 * cv2.norm(image, cv2.NORM_INF) ** 2:
        raise FrameError(
            f"all pixels are alike (about {float(image.mean()):g}): check the beam, the shutter and the camera."
        )
    variance = _smooth(cv2.multiply(centred, centred), sampling_angstrom)
    # The floor keeps a dead corner of the detector flat instead of blowing up its last bit of noise.
    least_variance = 1e-4 * overall_variance
    deviation = enlarge(variance, image.shape)
    # In place: fresh memory of this size costs more than the arithmetic.
    cv2.sqrt(cv2.max(deviation, least_variance, deviation), deviation)
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.asarray(np.sqrt(np.maximum(variance, least_variance)) / mean, np.float32)
    return Normalised(cv2.divide(centred, deviation, centred), contrast)


def _smooth(image: NDArray[np.float32], sampling_angstrom: float) -> NDArray[np.float32]:
    """Blur with the normalisation window; on a coarse grid, where it costs next to nothing."""
    height, width = image.shape
    step = 8
    coarse = cv2.resize(image, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    radius = NORMALISATION_RADIUS_ANGSTROM / (step * sampling_angstrom)
    blurred: NDArray[np.float32] = cv2.GaussianBlur(coarse, (0, 0), radius, borderType=cv2.BORDER_REFLECT)
    return blurred


def enlarge(coarse: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Interpolate an image on a coarse grid to one of this height and width that covers the same field."""
    smooth: NDArray[np.float32] = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return smooth
