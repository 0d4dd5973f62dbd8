"""Smooth random fields: where dirt lies, how thick a film is, how rough an edge runs."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]

WAVES = 24


def random_field(rng: np.random.Generator, wavelength_angstrom: float) -> Field:
    """A smooth random function of the plane, of mean 0 and variance 1.

    It is a sum of plane waves in all directions, so it needs no grid and can be asked anywhere.

    Args:
        rng: Source of directions, wavelengths and phases.
        wavelength_angstrom: Shortest wavelength; the longest is three times that.

    Returns:
        A function of positions, shape (points, 2) or (points, 3) in Å, whose z is not looked at.
    """
    directions = rng.uniform(0, 2 * np.pi, WAVES)
    wavenumbers = 2 * np.pi / (wavelength_angstrom * rng.uniform(1, 3, WAVES))
    vectors = wavenumbers * np.stack([np.cos(directions), np.sin(directions)])
    phases = rng.uniform(0, 2 * np.pi, WAVES)

    def field(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        waves = np.cos(positions[:, :2] @ vectors + phases)
        return np.asarray(waves.sum(axis=1) * np.sqrt(2 / WAVES), dtype=np.float64)

    return field
