"""Held-out frames: exit waves that training never saw, imaged once and labelled."""

from collections.abc import Iterator

import numpy as np

from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame
from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import Exposure, good_scintillator
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame
from trainer.microscope import draw_exposure, draw_optics, take, vacuum
from trainer.optics import Optics
from trainer.recipe import Recipe
from trainer.simulation import ExitWave, WaveStore, simulate
from trainer.specimens.amorphous import random_amorphous_film

EMPTY_FRAMES = 16


def reference_frames(recipe: Recipe, store: WaveStore) -> Iterator[LabelledFrame]:
    """Frames of every held-out specimen at every reference condition and dose of the recipe."""
    evaluation = recipe.evaluation
    for name, (spherical_aberration_um, c10) in evaluation.conditions.items():
        optics = Optics(
            voltage_kv=recipe.simulation.voltage_kv,
            c10=c10,
            c30=spherical_aberration_um * 1e4,
            focal_spread_angstrom=evaluation.focal_spread_angstrom,
        )
        for dose in evaluation.doses_per_square_angstrom:
            for index, exit_wave in enumerate(store):
                if len(exit_wave.species):
                    yield _label(exit_wave, optics, _reference_exposure(recipe, dose), name, recipe.seed, index)


def range_frames(recipe: Recipe, store: WaveStore, draws: int, seed: int) -> Iterator[LabelledFrame]:
    """Frames drawn from the whole range the recipe trains on, one condition after the other through the store."""
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        exit_wave = store.read(draw % len(store))
        optics = draw_optics(recipe.microscope, exit_wave.voltage_kv, rng)
        yield _label(exit_wave, optics, draw_exposure(recipe.microscope, rng), "whole range", seed, draw)


def empty_frames(recipe: Recipe, seed: int) -> Iterator[LabelledFrame]:
    """Frames in which nothing is to be found: vacuum, and films of amorphous carbon of their own seed."""
    simulation = recipe.simulation
    side, voltage_kv = simulation.field_pixels, simulation.voltage_kv
    for index in range(EMPTY_FRAMES):
        rng = np.random.default_rng([seed, index])
        film = simulate(random_amorphous_film(rng, simulation.field_angstrom), side, voltage_kv, rng)
        nothing = vacuum(side, simulation.field_angstrom / side, voltage_kv)
        optics = draw_optics(recipe.microscope, voltage_kv, rng)
        dose = float(np.exp(rng.uniform(*np.log(recipe.microscope.dose_per_square_angstrom))))
        for name, exit_wave in (("vacuum", nothing), ("amorphous carbon", film)):
            yield _label(exit_wave, optics, _reference_exposure(recipe, dose), name, seed, index)


def _reference_exposure(recipe: Recipe, dose_per_square_angstrom: float) -> Exposure:
    return good_scintillator(recipe.evaluation.pixel_size_angstrom, dose_per_square_angstrom)


def _label(
    exit_wave: ExitWave, optics: Optics, exposure: Exposure, condition: str, seed: int, index: int
) -> LabelledFrame:
    dose = exposure.dose_per_square_angstrom
    shot = take(exit_wave, optics, exposure, np.random.default_rng([seed, index, round(dose)]), MARGIN_ANGSTROM)
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
