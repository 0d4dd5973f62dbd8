"""What alignment compares: the spectra of a series' frames, noise and lattice evened out."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from daemon.recognition.preprocess import despeckle

Spectrum = NDArray[np.complex64]
Image = NDArray[np.float32]

SAMPLING_ANGSTROM = 0.45
"""Of the frames that are compared, as near as merging whole pixels comes to it."""

BORDER_FREQUENCY = 0.83
"""1/Å along each axis. What pixels of 0.6 Å cannot show carries little but noise."""

HIGHEST_FREQUENCY = 1.0
RING_WIDTH = 0.02
"""1/Å. On a ring of the spectrum, noise and amorphous matter have one power."""
RINGS = round(HIGHEST_FREQUENCY / RING_WIDTH)
RING_FREQUENCY = (np.arange(RINGS + 1) + 0.5) * RING_WIDTH

LOWEST_FREQUENCY = 0.03
"""1/Å. Below, uneven illumination stands still while the specimen drifts."""
FADING_FREQUENCY = 0.6
"""1/Å. Towards it, scattering and coherence fade."""
BAND = np.exp(-((RING_FREQUENCY / FADING_FREQUENCY) ** 4)) * -np.expm1(-((RING_FREQUENCY / LOWEST_FREQUENCY) ** 4))
BAND[RINGS] = 0
BAND = BAND.astype(np.float32)
"""How much each ring can tell."""

TAPER_ANGSTROM = 8.0
"""At the border a frame fades out, or the jump there would be its strongest feature."""

BRIGHTEST = 5.0
"""Standard deviations; thick dirt and holes are cut off there."""

SPOT_PIXELS = 9
"""Across which the power of a lattice's spot is averaged."""

MEAN_LOG_OF_NOISE = 0.5772
"""The logarithm of noise power lies this much below that of its mean (Euler's constant), and feels no spots."""

WORKERS = 2
"""Threads that share several inverse transforms. All else goes one by one: Python's threads, which take turns between
such short steps, made it slower."""

PAIRS = ((0, 1), (0, 2), (1, 2))
"""Of frames of which the first in time is number 0."""

REACHES = (1, 1, 2)
"""How far the frames of each pair may be apart, of how far each may be from the first."""


@dataclass(frozen=True)
class Grid:
    """The half plane of spatial frequencies of a padded image, up to `BORDER_FREQUENCY` along each axis.

    Attributes:
        frame: Rows and columns of the image.
        frame_sampling_angstrom: Of its pixels.
        padded: Rows and columns of the padded image.
        shape: Rows and columns of the image that the frequencies up to the border make.
    """

    frame: tuple[int, int]
    frame_sampling_angstrom: float
    padded: tuple[int, int]
    shape: tuple[int, int]

    @property
    def sampling_angstrom(self) -> tuple[float, float]:
        """Along x and y, of the image of shape `shape`."""
        down, across = np.divide(self.padded, self.shape) * self.frame_sampling_angstrom
        return float(across), float(down)

    @cached_property
    def x(self) -> NDArray[np.float64]:
        """1/Å, of each column."""
        return np.asarray(scipy.fft.rfftfreq(self.shape[1], self.sampling_angstrom[0]))

    @cached_property
    def y(self) -> NDArray[np.float64]:
        """1/Å, of each row."""
        return np.asarray(scipy.fft.fftfreq(self.shape[0], self.sampling_angstrom[1]))

    @cached_property
    def ring(self) -> NDArray[np.intp]:
        """Which ring each frequency lies on; the last holds all beyond `HIGHEST_FREQUENCY`."""
        radius = np.hypot(self.x[None, :], self.y[:, None])
        return np.minimum((radius / RING_WIDTH).astype(np.intp), RINGS)

    @cached_property
    def window(self) -> Image:
        """What an image is multiplied by, so that it fades out at its border."""
        down, across = (
            fade((np.arange(pixels) + 0.5) * self.frame_sampling_angstrom, pixels * self.frame_sampling_angstrom)
            for pixels in self.frame
        )
        return np.outer(down, across)

    def transform(self, image: Image) -> Spectrum:
        """The spectrum of a frame's image."""
        whole = scipy.fft.rfft2(image, s=self.padded)
        half = self.shape[0] // 2
        columns = self.shape[1] // 2 + 1
        return np.concatenate([whole[:half, :columns], whole[-half:, :columns]])

    def invert(self, spectra: Spectrum) -> Image:
        """The images that spectra, shape (..., rows, columns), make; shape (..., *self.shape)."""
        return np.asarray(scipy.fft.irfft2(spectra, s=self.shape, workers=WORKERS))

    def sum_over_rings(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n, RINGS + 1), from n values for each frequency."""
        return np.stack([np.bincount(self.ring.ravel(), each.ravel(), RINGS + 1) for each in values])


@lru_cache(maxsize=4)
def grid_around(frame: tuple[int, int], sampling_angstrom: float, range_angstrom: float) -> Grid:
    """The grid on which frames (rows, columns) that are shifted by twice the range do not meet their repetition."""
    padded, shape = [], []
    reach = int(2 * range_angstrom / sampling_angstrom) + 1
    for pixels in frame:
        extent = scipy.fft.next_fast_len(max(pixels + reach, 2 * reach), real=True)
        kept = 2 * scipy.fft.next_fast_len(int(np.ceil(extent * sampling_angstrom * BORDER_FREQUENCY)), real=True)
        padded.append(extent)
        shape.append(min(kept, extent // 2 * 2))
    return Grid(frame, sampling_angstrom, (padded[0], padded[1]), (shape[0], shape[1]))


@dataclass(frozen=True)
class Whitened:
    """A frame's spectrum with the same power of noise at all frequencies.

    Attributes:
        complete: With its lattice as strong as it is.
        aperiodic: With the spots of lattices brought down to a level where they count less than noise: a lattice says
            nothing about whole lattice vectors.
    """

    complete: Spectrum
    aperiodic: Spectrum


def coarse(pixels: NDArray[Any], pixel_size_angstrom: float) -> tuple[Image, float]:
    """A frame with whole pixels merged, without speckles, and its pixel size in Å."""
    merged = max(1, round(SAMPLING_ANGSTROM / pixel_size_angstrom))
    rows, columns = (max(1, extent // merged) for extent in pixels.shape)
    image = pixels[: rows * merged, : columns * merged].astype(np.float32)
    image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    # Speckles are looked for after averaging: there it costs a tenth, and those that vanish do no harm.
    return despeckle(image), pixel_size_angstrom * merged


def whiten(image: Image, grid: Grid) -> Whitened:
    """The spectrum of a frame with noise and lattice evened out."""
    image = image - image.mean()
    limit = BRIGHTEST * float(image.std())
    image = np.clip(image, -limit, limit)
    image = (image - (image * grid.window).sum() / grid.window.sum()) * grid.window
    spectrum = grid.transform(image)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    level = np.log(power + np.float32(1e-20) * power.max())
    of_ring, members = grid.sum_over_rings(np.stack([level, np.ones_like(level)]))
    noise = np.exp(of_ring / np.maximum(members, 1) + MEAN_LOG_OF_NOISE).astype(np.float32).take(grid.ring)
    complete = spectrum / np.sqrt(noise)
    return Whitened(complete, complete / np.maximum(_local_mean(power / noise), 1))


def _local_mean(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over `SPOT_PIXELS`; low frequencies stand in the first and last rows, and belong together."""
    half = len(power) // 2
    in_order = np.concatenate([power[half:], power[:half]])
    mean = cv2.blur(in_order, (SPOT_PIXELS, SPOT_PIXELS))
    return np.concatenate([mean[-half:], mean[:-half]])


def fade(place_angstrom: NDArray[np.floating[Any]], extent_angstrom: float) -> NDArray[np.float32]:
    """From 0 at both ends of an extent, and beyond, to 1."""
    from_border = np.minimum(place_angstrom, extent_angstrom - place_angstrom)
    return np.asarray(np.sin(np.pi / 2 * np.clip(from_border / TAPER_ANGSTROM, 0, 1)) ** 2, np.float32)


def cross_spectra(spectra: Spectrum) -> Spectrum:
    """For each of `PAIRS` the product whose inverse transform peaks at the second frame's shift from the first."""
    return np.stack([spectra[one].conj() * spectra[other] for one, other in PAIRS])
