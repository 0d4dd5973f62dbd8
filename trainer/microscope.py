"""The whole microscope at a random moment: draws the conditions of a frame and takes it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.recognition.package import Range
from trainer.camera import Exposure, actual_pixel_size, expose
from trainer.optics import Aberration, Optics, intensity
from trainer.recipe import MicroscopeRecipe
from trainer.simulation import ExitWave

LATTICE_FREQUENCY = 1 / 2.1
"""1/Å: of graphene's first ring, and near the fcc metals' {111} and {200}."""

LEAST_CONTRAST = 0.2
"""Of the lattice, in every direction and with one sign.

A lens that transfers less shows no atoms. One whose astigmatism makes atoms bright along one direction and dark along
another shows a perfect honeycomb in the wrong place: half a lattice vector off, and nothing in a single frame tells.
Such frames teach nothing but to guess.
"""

FINE_PIXEL_SHARE = 0.03


@dataclass(frozen=True)
class Shot:
    """A frame and where its sites are.

    Attributes:
        pixels: Shape (height, width), as a camera would deliver it.
        pixel_size_angstrom: Of these pixels.
        positions_px: Shape (sites, 2), x and y from the centre of the top-left pixel; some lie outside of the frame.
    """

    pixels: NDArray[np.float32]
    pixel_size_angstrom: float
    positions_px: NDArray[np.float32]


def take(
    exit_wave: ExitWave,
    optics: Optics,
    exposure: Exposure,
    rng: np.random.Generator,
    margin_angstrom: float,
    moment: int = 0,
) -> Shot:
    """Image an exit wave, defocus counted from its sites, and cut off the margin into which the simulation wraps."""
    at_exit_plane = replace(optics, c10=optics.c10 - exit_wave.depth_angstrom)
    image = intensity(torch.from_numpy(exit_wave.at(moment)), exit_wave.sampling_angstrom, at_exit_plane)
    frame = expose(image, exit_wave.sampling_angstrom, exposure, rng)
    displaced = exit_wave.positions_angstrom + np.array(exposure.displacement_angstrom, np.float32)
    pixel_size = actual_pixel_size(image.shape[-1], exit_wave.sampling_angstrom, exposure)
    margin = math.ceil(margin_angstrom / pixel_size)
    return Shot(
        pixels=np.ascontiguousarray(frame[margin : len(frame) - margin, margin : len(frame) - margin]),
        pixel_size_angstrom=pixel_size,
        positions_px=displaced / pixel_size - margin,
    )


def draw_optics(recipe: MicroscopeRecipe, voltage_kv: float, rng: np.random.Generator) -> Optics:
    """Draw a lens that shows the lattice where it is."""
    while True:
        optics = draw_any_optics(recipe, voltage_kv, rng)
        if shows_lattice(optics):
            return optics


def shows_lattice(optics: Optics) -> bool:
    """Whether a lens transfers the lattice well, and with one sign in all directions; see `LEAST_CONTRAST`."""
    contrast = optics.contrast(LATTICE_FREQUENCY)
    return bool(contrast.min() >= LEAST_CONTRAST or contrast.max() <= -LEAST_CONTRAST)


def draw_any_optics(recipe: MicroscopeRecipe, voltage_kv: float, rng: np.random.Generator) -> Optics:
    """Draw a lens from the whole range, useful or not."""
    wide = rng.random() < 1 / 6
    defocus = _uniform(rng, recipe.wide_defocus_angstrom if wide else recipe.defocus_angstrom)
    return Optics(
        voltage_kv=voltage_kv,
        c10=-defocus,
        c30=_uniform(rng, recipe.spherical_aberration_um) * 1e4,
        focal_spread_angstrom=_uniform(rng, recipe.focal_spread_angstrom),
        convergence_mrad=_uniform(rng, recipe.convergence_mrad),
        c12=_aberration(rng, recipe.astigmatism_angstrom),
        c21=_aberration(rng, recipe.coma_angstrom),
        c23=_aberration(rng, recipe.threefold_astigmatism_angstrom),
        c32=_aberration(rng, recipe.third_order_astigmatism_um, 1e4),
        c34=_aberration(rng, recipe.third_order_astigmatism_um, 1e4),
    )


def draw_exposure(recipe: MicroscopeRecipe, rng: np.random.Generator) -> Exposure:
    """Draw a camera and an exposure: counting or scintillating, clean or not."""
    angle = rng.uniform(0, 2 * math.pi)
    drift = _uniform(rng, recipe.drift_angstrom) * rng.random()
    scintillator = rng.random() < 1 - recipe.counting_share
    processed = rng.random() < 0.25
    return Exposure(
        pixel_size_angstrom=_pixel_size(rng, recipe),
        dose_per_square_angstrom=_log_uniform(rng, recipe.dose_per_square_angstrom),
        blur_angstrom=_uniform(rng, recipe.blur_angstrom),
        drift_angstrom=(drift * math.cos(angle), drift * math.sin(angle)),
        mtf_half=rng.uniform(*recipe.mtf_half),
        mtf_power=rng.uniform(*recipe.mtf_power),
        mtf_floor=rng.uniform(*recipe.mtf_floor) if scintillator else 1.0,
        readout_electrons=rng.exponential(0.3) if rng.random() < 0.5 else 0.0,
        tilt=(rng.normal(0, 0.15), rng.normal(0, 0.15)),
        hot_share=10 ** rng.uniform(-5, -3) if rng.random() < 0.2 else 0.0,
        levels=255 if processed else None,
    )


def vacuum(side: int, sampling_angstrom: float, voltage_kv: float) -> ExitWave:
    """An exit wave of nothing."""
    return ExitWave(
        wave=np.ones((side, side), np.complex64),
        sampling_angstrom=sampling_angstrom,
        voltage_kv=voltage_kv,
        positions_angstrom=np.zeros((0, 2), np.float32),
        species=(),
        ignored=np.zeros(0, bool),
        atom_counts=np.zeros(0, np.int16),
        smears_angstrom=np.zeros((0, 2), np.float32),
        depth_angstrom=0.0,
    )


def _uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(rng.uniform(*limits))


def _log_uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _pixel_size(rng: np.random.Generator, recipe: MicroscopeRecipe) -> float:
    (low, high), fine = recipe.pixel_size_angstrom, recipe.fine_pixel_size_angstrom
    if not low < fine < high:
        return _log_uniform(rng, (low, high))
    return _log_uniform(rng, (low, fine) if rng.random() < FINE_PIXEL_SHARE else (fine, high))


def _aberration(rng: np.random.Generator, limits: Range, unit: float = 1.0) -> Aberration:
    # Most operators correct well and some badly: squaring the draw prefers small values and keeps the large ones.
    low, high = limits
    return Aberration((low + (high - low) * rng.random() ** 2) * unit, rng.uniform(0, 2 * math.pi))
