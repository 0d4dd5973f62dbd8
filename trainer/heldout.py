"""Held-out frames: exit waves that training never saw, imaged once and labelled."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame
from trainer.camera import Exposure, good_scintillator
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame
from trainer.microscope import draw_any_optics, draw_exposure, draw_optics, shows_lattice, take, vacuum
from trainer.optics import Optics
from trainer.recipe import Recipe
from trainer.simulation import ExitWave, WaveStore, simulate
from trainer.specimens.amorphous import amorphous_carbon, atoms_in_vacuum
from trainer.specimens.specimen import Specimen

HELD_OUT_MARGIN_ANGSTROM = 8.0
"""Cut off each frame: twice as far as in training, since strong lenses spread what wraps around by more than 4 Å."""

SHOWN = "stated range"
HIDDEN = "stated range, lens that hides the lattice"


def reference_frames(recipe: Recipe, store: WaveStore, specimens: int) -> Iterator[LabelledFrame]:
    """Frames of the first specimens that hold sites, at every reference condition and dose of the recipe."""
    with_sites = (exit_wave for exit_wave in store if not exit_wave.ignored.all())
    for index, exit_wave in enumerate(islice(with_sites, specimens)):
        for name, optics in reference_optics(recipe).items():
            for dose in recipe.evaluation.doses_per_square_angstrom:
                yield _label(exit_wave, optics, reference_exposure(recipe, dose), name, recipe.seed, index)


def reference_optics(recipe: Recipe) -> dict[str, Optics]:
    """The lens of each reference condition, by its name."""
    return {
        name: Optics(
            voltage_kv=recipe.simulation.voltage_kv,
            c10=c10,
            c30=spherical_aberration_um * 1e4,
            focal_spread_angstrom=recipe.evaluation.focal_spread_angstrom,
        )
        for name, (spherical_aberration_um, c10) in recipe.evaluation.conditions.items()
    }


def range_frames(recipe: Recipe, store: WaveStore, seed: int) -> Iterator[LabelledFrame]:
    """Frames from the whole range the model states; those of a lens that hides the lattice are a condition apart."""
    for draw in range(recipe.evaluation.range_frames):
        rng = np.random.default_rng([seed, draw])
        exit_wave = store.read(draw % len(store))
        optics = draw_any_optics(recipe.microscope, exit_wave.voltage_kv, rng)
        condition = SHOWN if shows_lattice(optics) else HIDDEN
        yield _label(exit_wave, optics, _stated_exposure(recipe, rng), condition, seed, draw)


def calibration_frames(recipe: Recipe, store: WaveStore, seed: int) -> Iterator[LabelledFrame]:
    """Frames to calibrate on: by reference lenses and by any that show the lattice, a quarter of them of nothing."""
    lenses = list(reference_optics(recipe).values())
    for draw in range(recipe.evaluation.range_frames):
        rng = np.random.default_rng([seed, draw])
        exit_wave = store.read(draw % len(store)) if draw % 4 < 3 else _nothing(recipe, rng)
        exposure = _stated_exposure(recipe, rng)
        if draw // 4 % 2:
            optics = draw_optics(recipe.microscope, exit_wave.voltage_kv, rng)
        else:
            optics = lenses[draw // 8 % len(lenses)]
            exposure = reference_exposure(recipe, exposure.dose_per_square_angstrom)
        yield _label(exit_wave, optics, exposure, "calibration", seed, draw)


def empty_frames(recipe: Recipe, seed: int) -> Iterator[LabelledFrame]:
    """Frames in which nothing is to be found: vacuum and films of amorphous carbon, by good cameras and by any."""
    simulation = recipe.simulation
    side, voltage_kv = simulation.field_pixels, simulation.voltage_kv
    nothing = vacuum(side, simulation.field_angstrom / side, voltage_kv)
    for index in range(recipe.evaluation.empty_frames):
        rng = np.random.default_rng([seed, index])
        film = _film(recipe, rng)
        optics = draw_optics(recipe.microscope, voltage_kv, rng)
        exposure = _stated_exposure(recipe, rng)
        reference = reference_exposure(recipe, exposure.dose_per_square_angstrom)
        for name, exit_wave in (("vacuum", nothing), ("amorphous carbon", film)):
            yield _label(exit_wave, optics, reference, name, seed, index)
            yield _label(exit_wave, optics, exposure, f"{name}, any camera", seed, index)


def _nothing(recipe: Recipe, rng: np.random.Generator) -> ExitWave:
    simulation = recipe.simulation
    if rng.random() < 0.5:
        return _film(recipe, rng)
    return vacuum(simulation.field_pixels, simulation.field_angstrom / simulation.field_pixels, simulation.voltage_kv)


def _film(recipe: Recipe, rng: np.random.Generator) -> ExitWave:
    simulation = recipe.simulation
    size_angstrom, thickness_angstrom = simulation.field_angstrom, float(np.exp(rng.uniform(*np.log((5.0, 80.0)))))
    carbon = amorphous_carbon(rng, size_angstrom, thickness_angstrom, held_out=True)
    atoms = atoms_in_vacuum(["C"] * len(carbon), carbon, size_angstrom)
    specimen = Specimen(atoms, np.full(len(carbon), -1, np.int32), (), np.zeros(0, bool))
    return simulate(specimen, simulation.field_pixels, simulation.voltage_kv, rng)


def _stated_exposure(recipe: Recipe, rng: np.random.Generator) -> Exposure:
    """Any camera, at any pixel size and dose that the model states."""
    stated = recipe.microscope.model_copy(
        update={
            "pixel_size_angstrom": recipe.ranges.pixel_size_angstrom,
            "dose_per_square_angstrom": recipe.ranges.dose_per_square_angstrom,
        }
    )
    return draw_exposure(stated, rng)


def reference_exposure(recipe: Recipe, dose_per_square_angstrom: float) -> Exposure:
    """A good camera at the recipe's reference pixel size."""
    return good_scintillator(recipe.evaluation.pixel_size_angstrom, dose_per_square_angstrom)


def _label(
    exit_wave: ExitWave, optics: Optics, exposure: Exposure, condition: str, seed: int, index: int
) -> LabelledFrame:
    dose = exposure.dose_per_square_angstrom
    shot = take(
        exit_wave, optics, exposure, np.random.default_rng([seed, index, round(dose)]), HELD_OUT_MARGIN_ANGSTROM
    )
    frame = Frame(
        pixels=shot.pixels,
        frame_id=f"{condition}/{index}/{dose:g}",
        name=f"{condition} {index} {dose:g}",
        calibration=Calibration(shot.pixel_size_angstrom, CalibrationSource.OVERRIDE),
        acquisition=Acquisition(
            defocus_angstrom=-optics.c10, dose_per_square_angstrom=dose, voltage_kv=optics.voltage_kv
        ),
    )
    return LabelledFrame(
        frame=frame,
        positions_angstrom=shot.positions_px.astype(np.float64) * shot.pixel_size_angstrom,
        species=exit_wave.species,
        ignored=exit_wave.ignored,
        conditions={CONDITION: condition, DOSE: dose},
    )
