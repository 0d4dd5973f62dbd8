"""From the network's own probabilities and sigmas to calibrated ones; see `daemon.recognition.package.Calibration`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.recognition.package import Manifest
from daemon.recognition.peaks import Peaks


def calibrate(peaks: Peaks, pixel_size_angstrom: float, manifest: Manifest) -> Peaks:
    """Apply a model's calibration and leave out what is below its threshold.

    Args:
        peaks: Positions and sigma in acquired pixels.
        pixel_size_angstrom: Of the acquired frame.
        manifest: Of the model.
    """
    calibration = manifest.calibration
    logit, log_sigma = calibration_features(peaks.probability, peaks.sigma * pixel_size_angstrom)
    logit = (
        calibration.probability_slope * logit
        + calibration.probability_sigma_slope * log_sigma
        + calibration.probability_offset
    )
    probability = 1 / (1 + np.exp(-logit))
    kept = probability >= manifest.probability_threshold
    atoms = peaks.atoms_probability
    return Peaks(
        positions=peaks.positions[kept],
        probability=probability[kept].astype(np.float32),
        sigma=peaks.sigma[kept] * np.float32(calibration.sigma_scale),
        class_probability=tempered(
            _with_offsets(peaks.class_probability[kept], calibration.species_offsets), calibration.species_temperature
        ),
        atoms_probability=None if atoms is None else tempered(atoms[kept], calibration.atoms_temperature),
    )


def calibration_features(
    probability: NDArray[np.floating[Any]], sigma_angstrom: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """What the calibrated probability is a function of, from the network's own."""
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped)), np.log(sigma_angstrom / 0.2)


def _with_offsets(probability: NDArray[np.float32], offsets: tuple[float, ...]) -> NDArray[np.float32]:
    if not offsets:
        return probability
    weighted = probability * np.exp(np.array(offsets, np.float32))
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))


def tempered(probability: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Raise each row's probabilities, shape (n, choices), to 1 / temperature and make them add up to 1 again."""
    if temperature == 1:
        return probability
    # Relative to the most probable, so that no power runs out of digits.
    powers = (probability / probability.max(axis=1, keepdims=True)) ** np.float32(1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
