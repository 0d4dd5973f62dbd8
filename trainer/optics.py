"""The objective lens: from exit wave to the intensity that falls on the camera, in torch.

Aberrations follow abTEM's convention (Kirkland): phase χ(α, φ) = 2π/λ Σ αⁿ⁺¹/(n+1) Cₙₘ cos m(φ - φₙₘ), the wave is
multiplied by exp(-iχ), C10 positive is overfocus. Partial coherence is quasi-coherent: envelopes on the wave.
"""

import cmath
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Aberration:
    """A coefficient with a direction: length in Å, angle in radians."""

    length_angstrom: float = 0.0
    angle: float = 0.0


@dataclass(frozen=True)
class Optics:
    """All aberrations to third order, and coherence.

    Attributes:
        voltage_kv: Accelerating voltage.
        c10: Defocus coefficient in Å, positive for overfocus.
        c30: Spherical aberration in Å.
        c12, c21, c23, c32, c34: Two-fold astigmatism, axial coma, three-fold astigmatism, star and four-fold
            astigmatism of third order.
        focal_spread_angstrom: 1/e width of the distribution of defocus, as in abTEM.
        convergence_mrad: Half angle of illumination (1/e).
    """

    voltage_kv: float
    c10: float
    c30: float
    focal_spread_angstrom: float
    convergence_mrad: float = 0.0
    c12: Aberration = Aberration()
    c21: Aberration = Aberration()
    c23: Aberration = Aberration()
    c32: Aberration = Aberration()
    c34: Aberration = Aberration()

    @property
    def wavelength_angstrom(self) -> float:
        """Relativistic electron wavelength."""
        volts = self.voltage_kv * 1e3
        return 12.2642596 / math.sqrt(volts * (1 + 0.97847538e-6 * volts))

    def contrast(self, frequency: float) -> Tensor:
        """What a weak phase object's contrast is multiplied by at one spatial frequency (1/Å), azimuth by azimuth.

        Between -1 and 1; positive where atoms are bright. Coma and three-fold astigmatism are left out: they shift what
        is transferred, and do not change its sign.
        """
        even = replace(self, c21=Aberration(), c23=Aberration())
        phi = torch.linspace(0, math.pi, AZIMUTHS)
        alpha = torch.full_like(phi, frequency * self.wavelength_angstrom)
        return -transfer_function(even, torch.polar(alpha, phi)).imag


AZIMUTHS = 24


def transfer_function(optics: Optics, angle: Tensor) -> Tensor:
    """Complex transfer at scattering angles (rad), x real and y imaginary, envelopes included."""
    wavelength = optics.wavelength_angstrom
    squared = angle.real.square() + angle.imag.square()
    chi = squared * (optics.c10 / 2 + optics.c30 / 4 * squared)
    # A length C of order n and m-fold symmetry at φ₀ adds the real part of C / (n + 1) · |ω|ⁿ⁺¹⁻ᵐ · (ω exp(-i φ₀))ᵐ:
    # powers of ω by multiplication cost a fraction of cosines of its azimuth.
    first, second, third = _turned(optics.c21, 2, 1), _turned(optics.c12, 1, 2), _turned(optics.c23, 2, 3)
    second_of_higher, fourth = _turned(optics.c32, 3, 2), _turned(optics.c34, 3, 4)
    if any((first, second, third, second_of_higher, fourth)):
        folded = angle * (third + fourth * angle) + (second + second_of_higher * squared)
        chi = chi + (angle * (angle * folded + first * squared)).real
    temporal = (0.5 * math.pi / wavelength * optics.focal_spread_angstrom * squared).square()
    # |dχ/dω| along the radius, but for the aberrations without rotational symmetry: they are small
    slope_squared = squared * (optics.c10 + optics.c30 * squared).square()
    spatial = (math.pi / wavelength * optics.convergence_mrad * 1e-3) ** 2 * slope_squared
    return torch.polar(torch.exp(-temporal - spatial), -2 * math.pi / wavelength * chi)


def _turned(aberration: Aberration, order: int, fold: int) -> complex:
    return aberration.length_angstrom / (order + 1) * cmath.exp(-1j * fold * aberration.angle)


@lru_cache(maxsize=8)
def _frequencies(side: int, sampling_angstrom: float) -> Tensor:
    frequency = torch.fft.fftfreq(side, sampling_angstrom)
    y, x = torch.meshgrid(frequency, frequency, indexing="ij")
    return torch.complex(x, y)


def intensity(wave: Tensor, sampling_angstrom: float, optics: Optics) -> Tensor:
    """Image an exit wave.

    Args:
        wave: Shape (side, side), complex, 1 in vacuum.
        sampling_angstrom: Å per grid point.
        optics: The lens.

    Returns:
        Shape (side, side), 1 in vacuum, before the camera.
    """
    angle = _frequencies(wave.shape[-1], sampling_angstrom) * optics.wavelength_angstrom
    transfer = transfer_function(optics, angle)
    image: Tensor = torch.fft.ifft2(torch.fft.fft2(wave) * transfer).abs().square()
    return image
