"""What alignment compares: the spectra of a series' frames, and the contrast that lenses would give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from daemon.recognition.preprocess import despeckle, resample

Spectrum = NDArray[np.complex64]

SAMPLING_ANGSTROM = 0.45
"""Of the frames that are compared. What a pixel of this size cannot show carries little but noise."""

HIGHEST_FREQUENCY = 1.0
LOWEST_FREQUENCY = 0.03
"""1/Å. Below, uneven illumination stands still while the specimen drifts."""

FADING_FREQUENCY = 0.6
"""1/Å. Towards it, scattering and coherence fade."""

RING_WIDTH = 0.02
"""1/Å. On a ring of the spectrum, noise and amorphous matter have one power."""

TAPER_ANGSTROM = 8.0
"""At the border a frame fades out, or the jump there would be its strongest feature."""

BRIGHTEST = 5.0
"""Standard deviations; thick dirt and holes are cut off there."""

SPOT_PIXELS = 9
"""Across which the power of a lattice's spot is averaged."""

MEAN_LOG_OF_NOISE = 0.5772
"""The logarithm of noise power lies this much below that of its mean (Euler's constant), and feels no spots."""

VOLTAGES_KV = (80.0, 300.0)
"""Where nobody tells the voltage."""
DEFOCUS_ERRORS_ANGSTROM = tuple(range(-45, 46, 15))
SPHERICAL_ABERRATIONS_ANGSTROM = (-2.5e5, -1.5e5, -0.5e5, 0.5e5, 1.5e5)
"""Without any, a lens in focus has no contrast at all."""

PAIRS = ((0, 1), (0, 2), (1, 2))
"""Of frames of which the first in time is number 0."""


@dataclass(frozen=True)
class Grid:
    """The half plane of spatial frequencies of a padded image.

    Attributes:
        shape: Rows and columns of the padded image.
        sampling_angstrom: Of its pixels, along x and y.
    """

    shape: tuple[int, int]
    sampling_angstrom: tuple[float, float]

    @classmethod
    def around(cls, frame: tuple[int, int], sampling_angstrom: tuple[float, float], range_angstrom: float) -> "Grid":
        """The grid on which frames (rows, columns) that are shifted by twice the range do not meet their repetition."""
        extents = []
        for pixels, sampling in zip(frame, sampling_angstrom[::-1], strict=True):
            reach = int(2 * range_angstrom / sampling) + 1
            extents.append(scipy.fft.next_fast_len(max(pixels + reach, 2 * reach), real=True))
        return cls((extents[0], extents[1]), sampling_angstrom)

    @property
    def x(self) -> NDArray[np.float64]:
        """1/Å, of each column."""
        return np.asarray(scipy.fft.rfftfreq(self.shape[1], self.sampling_angstrom[0]))

    @property
    def y(self) -> NDArray[np.float64]:
        """1/Å, of each row."""
        return np.asarray(scipy.fft.fftfreq(self.shape[0], self.sampling_angstrom[1]))

    def ring(self) -> NDArray[np.int64]:
        """Which ring each frequency lies on; the last holds all beyond `HIGHEST_FREQUENCY`."""
        radius = np.hypot(self.x[None, :], self.y[:, None])
        return np.minimum((radius / RING_WIDTH).astype(np.int64), RINGS)


RINGS = round(HIGHEST_FREQUENCY / RING_WIDTH)
RING_FREQUENCY = (np.arange(RINGS + 1) + 0.5) * RING_WIDTH


@dataclass(frozen=True)
class Whitened:
    """A frame's spectrum with the same power of noise at all frequencies.

    Attributes:
        complete: With its lattice as strong as it is.
        aperiodic: With the spots of lattices brought down to a level where they count less than noise: a lattice says
            nothing about whole lattice vectors, and in a window that stands still it fits best where it did not move.
    """

    complete: Spectrum
    aperiodic: Spectrum


def coarse(pixels: NDArray[Any], pixel_size_angstrom: float) -> NDArray[np.float32]:
    """A frame at `SAMPLING_ANGSTROM`, or as it is where it is coarser, without speckles."""
    factor = min(1.0, pixel_size_angstrom / SAMPLING_ANGSTROM)
    # Speckles are looked for after averaging: there it costs a tenth, and those that vanish do no harm.
    return despeckle(resample(pixels.astype(np.float32), factor))


def whiten(image: NDArray[np.float32], grid: Grid, ring: NDArray[np.int64]) -> Whitened:
    """The spectrum of a frame with noise and lattice evened out."""
    rows, columns = image.shape
    window = window_of((rows, columns), grid)
    image = image - image.mean()
    limit = BRIGHTEST * float(image.std())
    image = np.clip(image, -limit, limit)
    image = (image - np.vdot(image, window) / window.sum()) * window
    spectrum = scipy.fft.rfft2(image, s=grid.shape)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    level = np.log(power + 1e-20 * power.max())
    of_ring = np.bincount(ring.ravel(), level.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    noise = np.exp(of_ring + MEAN_LOG_OF_NOISE).astype(np.float32)[ring]
    complete = spectrum / np.sqrt(noise)
    excess = cv2.blur(power / noise, (SPOT_PIXELS, SPOT_PIXELS))
    return Whitened(complete, complete / np.maximum(excess, 1))


def window_of(shape: tuple[int, int], grid: Grid) -> NDArray[np.float32]:
    """What a frame of this shape is multiplied by, so that it fades out at its border."""
    down, across = (
        _taper(pixels, sampling) for pixels, sampling in zip(shape, grid.sampling_angstrom[::-1], strict=True)
    )
    return np.outer(down, across)


def _taper(pixels: int, sampling_angstrom: float) -> NDArray[np.float32]:
    from_border = (np.minimum(np.arange(pixels), np.arange(pixels)[::-1]) + 0.5) * sampling_angstrom
    return np.asarray(np.sin(np.pi / 2 * np.clip(from_border / TAPER_ANGSTROM, 0, 1)) ** 2, np.float32)


def cross_spectra(spectra: Sequence[Spectrum]) -> list[Spectrum]:
    """For each of `PAIRS` the product whose inverse transform peaks at the second frame's shift from the first."""
    return [spectra[one].conj() * spectra[other] for one, other in PAIRS]


def possible_contrasts(defocus_angstrom: Sequence[float], voltage_kv: float | None) -> NDArray[np.float32]:
    """What many lenses would give the product of two frames' spectra.

    A weak phase object has sin χ of its potential in each frame, χ = π λ C10 k² + π/2 λ³ C30 k⁴, so the product of two
    frames is positive where both show it alike. Defocus is taken as told up to a common error; the spherical
    aberration is not told, and where the voltage is not either, both of `VOLTAGES_KV` are possible.

    Returns:
        Shape (lenses, 3, RINGS + 1): for each of `PAIRS` and each ring.
    """
    k2 = RING_FREQUENCY**2
    band = np.exp(-((RING_FREQUENCY / FADING_FREQUENCY) ** 4)) * -np.expm1(-((RING_FREQUENCY / LOWEST_FREQUENCY) ** 4))
    band[RINGS] = 0
    products = []
    for kilovolts in VOLTAGES_KV if voltage_kv is None else (voltage_kv,):
        wavelength = _wavelength_angstrom(kilovolts)
        for error in DEFOCUS_ERRORS_ANGSTROM:
            for c30 in SPHERICAL_ABERRATIONS_ANGSTROM:
                c10 = error - np.array(defocus_angstrom)[:, None]
                transfer = np.sin(np.pi * wavelength * k2 * (c10 + wavelength**2 / 2 * c30 * k2))
                products.append([transfer[one] * transfer[other] * band for one, other in PAIRS])
    return np.array(products, np.float32)


def _wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic."""
    volts = voltage_kv * 1e3
    return float(12.2642596 / np.sqrt(volts * (1 + 0.97847538e-6 * volts)))
