"""Focal triplets at a random moment: three frames of one area, as a microscope takes them one after the other."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.camera import Exposure
from trainer.microscope import Shot, draw_any_optics, take
from trainer.optics import Optics
from trainer.recipe import MicroscopeRecipe, SeriesRecipe
from trainer.simulation import ExitWave

FRAMES = 3

DOSE_SPREAD = 0.03
"""Relative standard deviation of the dose from frame to frame."""

LARGEST_DISPLACEMENT_ANGSTROM = 1.0
"""In training, along each axis. Frames are moved back by it as by any other drift; more would cut more off."""


@dataclass(frozen=True)
class Lenses:
    """The lens of each frame of a series, in order of defocus.

    Attributes:
        optics: As they were.
        nominal_defocus_angstrom: What was asked for, underfocus positive.
    """

    optics: tuple[Optics, Optics, Optics]
    nominal_defocus_angstrom: tuple[float, float, float]


@dataclass(frozen=True)
class Triplet:
    """Three frames and where the sites of the first are.

    Attributes:
        shots: In order of defocus, of one size.
        first: Which of them was taken first.
        displacement_angstrom: Shape (3, 2), where the specimen stood in each, x and y; zero in the first.
    """

    shots: tuple[Shot, Shot, Shot]
    first: int
    displacement_angstrom: NDArray[np.float64]

    @property
    def reference(self) -> Shot:
        """The shot that was taken first."""
        return self.shots[self.first]


def draw_lenses(
    microscope: MicroscopeRecipe, series: SeriesRecipe, voltage_kv: float, rng: np.random.Generator
) -> Lenses:
    """Draw a lens and the three defocus values it is set to.

    Any lens will do: where one frame hides the lattice, or shows it inverted, the others tell.
    """
    lens = draw_any_optics(microscope, voltage_kv, rng)
    step = rng.uniform(*series.defocus_step_angstrom)
    middle = -lens.c10
    nominal = (middle - step, middle, middle + step)
    off = series.zero_error_angstrom * rng.standard_normal()
    actual = [value + off + series.step_error_angstrom * rng.standard_normal() for value in nominal]
    first, second, third = (replace(lens, c10=-defocus) for defocus in actual)
    return Lenses((first, second, third), nominal)


def defocused(middle: Optics, step_angstrom: float) -> Lenses:
    """Set a lens to the focus it has and to one step on either side of it, exactly."""
    nominal = (-middle.c10 - step_angstrom, -middle.c10, -middle.c10 + step_angstrom)
    first, second, third = (replace(middle, c10=-defocus) for defocus in nominal)
    return Lenses((first, second, third), nominal)


def draw_displacements(rng: np.random.Generator, first: int) -> NDArray[np.float64]:
    """Draw a small drift between the frames, shape (3, 2), none for the first."""
    displacement: NDArray[np.float64] = rng.uniform(-1, 1, (FRAMES, 2)) * LARGEST_DISPLACEMENT_ANGSTROM
    displacement[first] = 0.0
    return displacement


def take_triplet(
    exit_wave: ExitWave,
    lenses: Lenses,
    exposure: Exposure,
    displacement_angstrom: NDArray[np.float64],
    order: NDArray[np.int64],
    rng: np.random.Generator,
    margin_angstrom: float,
) -> Triplet:
    """Image an exit wave three times.

    Args:
        exit_wave: Its moments are those of the frames, in order of time.
        lenses: In order of defocus.
        exposure: Of each frame, but for its displacement and a dose that is never quite the same.
        displacement_angstrom: Shape (3, 2), in order of defocus.
        order: Shape (3,), when each frame is taken: 0 for the first.
        rng: Decides the counts.
        margin_angstrom: Cut off each frame.
    """

    def shot(index: int) -> Shot:
        x, y = displacement_angstrom[index]
        dose = exposure.dose_per_square_angstrom * float(np.exp(DOSE_SPREAD * rng.standard_normal()))
        moved = replace(exposure, displacement_angstrom=(float(x), float(y)), dose_per_square_angstrom=dose)
        return take(exit_wave, lenses.optics[index], moved, rng, margin_angstrom, int(order[index]))

    return Triplet((shot(0), shot(1), shot(2)), int(np.argmin(order)), displacement_angstrom)
