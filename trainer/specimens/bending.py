"""How a sheet lies in the microscope: strained, rippled and tilted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

STRAIN = 0.02
SHEAR = 0.01
TILT_DEGREES = 20.0
RIPPLE_WAVELENGTHS_ANGSTROM = (20.0, 150.0)
RIPPLE_SLOPE = 0.17
RIPPLE_AMPLITUDE_ANGSTROM = 5.0


@dataclass(frozen=True)
class Ripple:
    """One wave of a sheet out of its plane.

    Attributes:
        amplitude_angstrom: Height of the wave.
        wavevector: Shape (2,), 2π over the wavelength, in the direction of the wave.
        phase: Phase at the origin, in radians.
    """

    amplitude_angstrom: float
    wavevector: NDArray[np.float64]
    phase: float

    def __call__(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bends a flat sheet, and what lies on it, without stretching it.

        Args:
            positions: Shape (atoms, 3) in Å, the sheet at z = 0.

        Returns:
            Shape (atoms, 3): the sheet lifted, and drawn together where it is steep so that bonds keep their length;
            atoms above or below it moved along its normal.
        """
        wavenumber = np.hypot(*self.wavevector)
        direction = self.wavevector / wavenumber
        phase = positions[:, :2] @ self.wavevector + self.phase
        slope = self.amplitude_angstrom * wavenumber * np.cos(phase)
        steepest = self.amplitude_angstrom * wavenumber
        # The integral of slope²/2, what the wave takes from the sheet's length.
        drawn = steepest**2 / 4 * (phase + np.sin(2 * phase) / 2) / wavenumber
        along = -drawn - positions[:, 2] * slope
        lift = self.amplitude_angstrom * np.sin(phase)
        moves: NDArray[np.float64] = np.column_stack([along[:, None] * direction, lift])
        return positions + moves


@dataclass(frozen=True)
class Bending:
    """Strain, ripples and tilt of a sheet.

    Attributes:
        strain: Shape (2, 2), stretches and shears the flat sheet.
        ripples: The waves out of the plane.
        tilt: Turns the sheet about an axis in its plane.
    """

    strain: NDArray[np.float64]
    ripples: tuple[Ripple, ...]
    tilt: Rotation

    def __call__(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape (atoms, 3), where atoms of the flat sheet, and those on it, come to lie, in Å."""
        positions = np.column_stack([positions[:, :2] @ self.strain.T, positions[:, 2]])
        for ripple in self.ripples:
            positions = ripple(positions)
        return np.asarray(self.tilt.apply(positions), dtype=np.float64)


def random_bending(rng: np.random.Generator, tilt_degrees: float = TILT_DEGREES) -> Bending:
    """Strain of up to 2 %, up to three ripples, and a tilt that is mostly much smaller than the largest, given here."""
    stretch = np.eye(2) * (1 + rng.uniform(-STRAIN, STRAIN))
    shear = rng.uniform(-SHEAR, SHEAR, 2)
    strain = stretch + np.array([[shear[0], shear[1]], [shear[1], -shear[0]]])

    ripples = []
    for _ in range(rng.integers(4)):
        wavenumber = 2 * np.pi / np.exp(rng.uniform(*np.log(RIPPLE_WAVELENGTHS_ANGSTROM)))
        amplitude = min(rng.uniform(0, RIPPLE_SLOPE) / wavenumber, RIPPLE_AMPLITUDE_ANGSTROM)
        direction = rng.uniform(0, 2 * np.pi)
        wavevector = wavenumber * np.array([np.cos(direction), np.sin(direction)])
        ripples.append(Ripple(amplitude, wavevector, rng.uniform(0, 2 * np.pi)))

    tilt = np.deg2rad(tilt_degrees * rng.random() ** 2)
    axis = rng.uniform(0, 2 * np.pi)
    return Bending(strain, tuple(ripples), Rotation.from_rotvec([tilt * np.cos(axis), tilt * np.sin(axis), 0.0]))
