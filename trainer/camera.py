"""The camera: from intensity to a frame, with everything that happens to it on the way, in torch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor


@dataclass(frozen=True)
class Exposure:
    """One exposure of one camera.

    Attributes:
        pixel_size_angstrom: In the specimen plane.
        dose_per_square_angstrom: Electrons per Å² where there is vacuum and the illumination is even.
        blur_angstrom: Standard deviation of vibration and thermal motion.
        drift_angstrom: Movement along x and y during the exposure.
        displacement_angstrom: How far along x and y the specimen stands from where its exit wave has it.
        mtf_half: Fraction of the Nyquist frequency at which the scintillator's transfer has fallen half way.
        mtf_power: How steeply it falls.
        mtf_floor: What remains at high frequencies: 1 for an ideal counter.
        readout_electrons: Standard deviation of the noise added after the scintillator.
        tilt: Relative change of illumination across the frame along x and y.
        hot_share: Share of pixels that are hot or dead.
        levels: Grey levels the frame is rounded to, None for counts as they are.
    """

    pixel_size_angstrom: float
    dose_per_square_angstrom: float
    blur_angstrom: float = 0.0
    drift_angstrom: tuple[float, float] = (0.0, 0.0)
    displacement_angstrom: tuple[float, float] = (0.0, 0.0)
    mtf_half: float = 1.0
    mtf_power: float = 2.0
    mtf_floor: float = 1.0
    readout_electrons: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    hot_share: float = 0.0
    levels: int | None = None


def good_scintillator(pixel_size_angstrom: float, dose_per_square_angstrom: float) -> Exposure:
    """An undisturbed exposure of a good scintillator camera, for samples and reference conditions."""
    return Exposure(
        pixel_size_angstrom,
        dose_per_square_angstrom,
        blur_angstrom=0.05,
        mtf_half=0.7,
        mtf_power=2.0,
        mtf_floor=0.1,
    )


def expose(
    image: Tensor, sampling_angstrom: float, exposure: Exposure, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Record an intensity.

    Electrons are counted before the scintillator, so its transfer function colours the noise as well as the image.

    Args:
        image: Shape (side, side), intensity relative to vacuum.
        sampling_angstrom: Å per point of it.
        exposure: The camera.
        rng: Decides the counts.

    Returns:
        Shape (pixels, pixels), in electrons before gain. Pixel (row, column) is centred on y = row · p, x = column · p
        of the image, p being `actual_pixel_size`.
    """
    expected = expected_counts(image, sampling_angstrom, exposure)
    pixels = expected.shape[-1]
    ramp = np.linspace(-0.5, 0.5, pixels)
    illumination = 1 + exposure.tilt[0] * ramp[None, :] + exposure.tilt[1] * ramp[:, None]
    counts = rng.poisson(np.maximum(expected * illumination, 0)).astype(np.float32)
    frame = _scintillate(torch.from_numpy(counts), exposure).numpy()
    if exposure.readout_electrons:
        frame += exposure.readout_electrons * rng.standard_normal(frame.shape, np.float32)
    if exposure.hot_share:
        wrong = rng.random(frame.shape) < exposure.hot_share
        frame[wrong] = rng.choice([0.0, 3.0, 30.0], wrong.sum()) * frame.mean()
    if exposure.levels:
        low, high = float(frame.min()), float(frame.max())
        step = (high - low) / exposure.levels or 1.0
        frame = np.round((frame - low) / step).astype(np.float32)
    return frame


def actual_pixel_size(side: int, sampling_angstrom: float, exposure: Exposure) -> float:
    """The pixel size nearest to the one asked for at which a number of pixels that FFTs like covers the field."""
    field_angstrom = side * sampling_angstrom
    pixels: int = next_fast_len(round(field_angstrom / exposure.pixel_size_angstrom), real=True)
    return field_angstrom / pixels


def expected_counts(image: Tensor, sampling_angstrom: float, exposure: Exposure) -> NDArray[np.float32]:
    """Shape (pixels, pixels): electrons each pixel receives on average under even light, before the scintillator."""
    side = image.shape[-1]
    pixel_size = actual_pixel_size(side, sampling_angstrom, exposure)
    pixels = round(side * sampling_angstrom / pixel_size)
    y = torch.fft.fftfreq(side, sampling_angstrom)[:, None]
    x = torch.fft.rfftfreq(side, sampling_angstrom)[None, :]
    drift_x, drift_y = exposure.drift_angstrom
    transfer = torch.sinc(drift_x * x + drift_y * y)
    for frequency, displacement in zip((x, y), exposure.displacement_angstrom, strict=True):
        envelope = torch.exp(-2 * (math.pi * exposure.blur_angstrom * frequency).square())
        transfer = transfer * envelope * torch.sinc(pixel_size * frequency)
        if displacement:
            transfer = transfer * torch.polar(torch.ones_like(frequency), -2 * math.pi * displacement * frequency)
    spectrum = _resize_spectrum(torch.fft.rfft2(image) * transfer, side, pixels)
    per_pixel = exposure.dose_per_square_angstrom * pixel_size**2
    counts: Tensor = torch.fft.irfft2(spectrum, s=(pixels, pixels)) * ((pixels / side) ** 2 * per_pixel)
    return counts.numpy()


def _resize_spectrum(spectrum: Tensor, side: int, pixels: int) -> Tensor:
    """Cut or pad a half spectrum so that its inverse has `pixels` points a side instead of `side`."""
    keep = (min(side, pixels) - 1) // 2  # the Nyquist term is left out: it has no sign
    resized = torch.zeros((pixels, pixels // 2 + 1), dtype=spectrum.dtype)
    resized[: keep + 1, : keep + 1] = spectrum[: keep + 1, : keep + 1]
    resized[-keep:, : keep + 1] = spectrum[-keep:, : keep + 1]
    return resized


def _scintillate(counts: Tensor, exposure: Exposure) -> Tensor:
    if exposure.mtf_floor >= 1:
        return counts
    pixels = counts.shape[-1]
    y = torch.fft.fftfreq(pixels)[:, None]
    x = torch.fft.rfftfreq(pixels)[None, :]
    of_nyquist = torch.hypot(x, y) * 2
    transfer = exposure.mtf_floor + (1 - exposure.mtf_floor) / (
        1 + (of_nyquist / exposure.mtf_half) ** exposure.mtf_power
    )
    scintillated: Tensor = torch.fft.irfft2(torch.fft.rfft2(counts) * transfer, s=(pixels, pixels))
    return scintillated
