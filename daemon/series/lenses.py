"""The contrast that lenses would give the product of two frames' spectra: many lenses, and a few that stand for all."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from daemon.series.spectra import BAND, PAIRS, RING_FREQUENCY

Contrasts = NDArray[np.float32]

VOLTAGES_KV = (80.0, 300.0)
"""Where nobody tells the voltage."""
DEFOCUS_ERRORS_ANGSTROM = tuple(range(-45, 46, 15))
SPHERICAL_ABERRATIONS_ANGSTROM = (-2.5e5, -1.5e5, -0.5e5, 0.5e5, 1.5e5)
"""Without any, a lens in focus has no contrast at all."""
COLUMN_PHASES = (0.0, 0.4, 0.8, 1.2, 1.6)
"""Radians by which the columns of a crystal scatter later than a weak phase object; the thicker, the more."""

KINDS = 3
"""Of lenses. With one, crystals whose contrast inverts from frame to frame are aligned half a cell off; with 4, 6 or 15
no fewer than with 3."""

SORTINGS = 5


@lru_cache(maxsize=8)
def possible_transfers(defocus_angstrom: tuple[float, ...], voltage_kv: float | None) -> Contrasts:
    """What many lenses would make of a phase object.

    It has sin(χ - φ) of its potential in each frame, χ = π λ C10 k² + π/2 λ³ C30 k⁴ and φ one of `COLUMN_PHASES`.
    Defocus is taken as told up to a common error; the spherical aberration is not told, and where the voltage is not
    either, both of `VOLTAGES_KV` are possible.

    Returns:
        Shape (lenses, 3, RINGS + 1): for each frame and each ring.
    """
    k2 = RING_FREQUENCY**2
    voltages = VOLTAGES_KV if voltage_kv is None else (voltage_kv,)
    choices = np.meshgrid(
        [_wavelength_angstrom(each) for each in voltages],
        COLUMN_PHASES,
        DEFOCUS_ERRORS_ANGSTROM,
        SPHERICAL_ABERRATIONS_ANGSTROM,
        indexing="ij",
    )
    wavelength, phase, error, c30 = (each.reshape(-1, 1, 1) for each in choices)
    c10 = error - np.array(defocus_angstrom)[:, None]
    return np.asarray(np.sin(np.pi * wavelength * k2 * (c10 + wavelength**2 / 2 * c30 * k2) - phase), np.float32)


@lru_cache(maxsize=8)
def possible_contrasts(defocus_angstrom: tuple[float, ...], voltage_kv: float | None) -> Contrasts:
    """What many lenses would give the product of two frames' spectra: positive where both show an object alike.

    Returns:
        Shape (lenses, 3, RINGS + 1): for each of `PAIRS` and each ring, lenses in the order of `possible_transfers`.
    """
    transfers = possible_transfers(defocus_angstrom, voltage_kv)
    one, other = np.transpose(PAIRS)
    return np.asarray(transfers[:, one] * transfers[:, other] * BAND)


@lru_cache(maxsize=8)
def kinds_of_lenses(defocus_angstrom: tuple[float, ...], voltage_kv: float | None) -> Contrasts:
    """Shape (kinds, 3, RINGS + 1): the mean contrasts of each of `KINDS` groups of lenses that are alike."""
    lenses = possible_contrasts(defocus_angstrom, voltage_kv)
    directions = _normalised(lenses.reshape(len(lenses), -1))
    kinds = _normalised(directions.mean(axis=0, keepdims=True))
    while len(kinds) < KINDS:
        least_like = (directions @ kinds.T).max(axis=1).argmin()
        kinds = np.concatenate([kinds, directions[least_like : least_like + 1]])
    for _ in range(SORTINGS):
        members = _members(directions, kinds)
        kinds = _normalised(np.stack([directions[each].mean(axis=0) for each in members]))
    return np.stack([lenses[each].mean(axis=0) for each in _members(directions, kinds)])


def _members(directions: Contrasts, kinds: Contrasts) -> Sequence[NDArray[np.bool_]]:
    nearest = (directions @ kinds.T).argmax(axis=1)
    return [nearest == kind for kind in np.unique(nearest)]


def _normalised(vectors: Contrasts) -> Contrasts:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic."""
    volts = voltage_kv * 1e3
    return float(12.2642596 / np.sqrt(volts * (1 + 0.97847538e-6 * volts)))
