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

SPECKLE_DEVIATIONS = 8.0
"""A pixel this many standard deviations off the median of its neighbours is hot, dead or an X-ray."""

NORMALISATION_RADIUS_ANGSTROM = 6.0
"""Standard deviation of the Gaussian window in which mean and contrast are evened out."""


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
    factor = pixel_size_angstrom / sampling_angstrom
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # Averaging keeps all of the counts when pixels are merged; cubic keeps the lattice when they are split.
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    return PreparedFrame(normalise(image, sampling_angstrom), (width / size[0], height / size[1]))


def despeckle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace hot and dead pixels by the median of their neighbourhood."""
    median = cv2.medianBlur(image, 3)
    difference = image - median
    sample = difference[::3, ::3]
    deviation = sample.std()
    deviation = sample[np.abs(sample) <= 5 * deviation].std()
    speckles = np.abs(difference) > SPECKLE_DEVIATIONS * deviation
    # Where more than this stands out, it is signal: single electrons on an empty background.
    if deviation > 0 and speckles.mean() < 0.01:
        image[speckles] = median[speckles]
    return image


def normalise(image: NDArray[np.float32], sampling_angstrom: float) -> NDArray[np.float32]:
    """Even out brightness and contrast over `NORMALISATION_RADIUS_ANGSTROM`.

    Raises:
        FrameError: All pixels are alike.
    """
    centred = image - _smooth(image, sampling_angstrom)
    overall_variance = float(np.square(centred).mean())
    if overall_variance <= 1e-12 * float(np.abs(image).max()) ** 2:
        raise FrameError(
            f"all pixels are alike (about {float(image.mean()):g}): check the beam, the shutter and the camera."
        )
    variance = _smooth(np.square(centred), sampling_angstrom)
    # The floor keeps a dead corner of the detector flat instead of blowing up its last bit of noise.
    return np.asarray(centred / np.sqrt(np.maximum(variance, 1e-4 * overall_variance)), np.float32)


def _smooth(image: NDArray[np.float32], sampling_angstrom: float) -> NDArray[np.float32]:
    """Blur with the normalisation window; on a coarse grid, where it costs next to nothing."""
    height, width = image.shape
    step = 8
    coarse = cv2.resize(image, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    radius = NORMALISATION_RADIUS_ANGSTROM / (step * sampling_angstrom)
    blurred = cv2.GaussianBlur(coarse, (0, 0), radius, borderType=cv2.BORDER_REFLECT)
    smooth: NDArray[np.float32] = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
    return smooth
