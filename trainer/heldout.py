"""Held-out frames and focal series: exit waves that training never saw, imaged once and labelled."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from daemon.frames import Acquisition, Calibration, CalibrationSource, FocalSeries, Frame
from trainer.camera import Exposure, good_scintillator
from trainer.evaluation.truth import CONDITION, DOSE, LabelledFrame
from trainer.microscope import Shot, draw_any_optics, draw_exposure, draw_optics, shows_lattice, take, vacuum
from trainer.optics import Optics
from trainer.recipe import Recipe, SimulationRecipe
from trainer.simulation import ExitWave, WaveStore, simulate
from trainer.specimens.amorphous import amorphous_carbon, atoms_in_vacuum
from trainer.specimens.specimen import Specimen
from trainer.triplets import FRAMES, Lenses, Triplet, defocused, draw_lenses, take_triplet

HELD_OUT_MARGIN_ANGSTROM = 8.0
"""Cut off each frame: farther than in training, since strong lenses spread what wraps around by more than 6 Å."""

SHOWN = "stated range"
HIDDEN = "stated range, lens that hides the lattice"


def reference_frames(recipe: Recipe, store: WaveStore, specimens: int) -> Iterator[LabelledFrame]:
    """Frames or series of the first specimens that hold sites, at every reference condition and dose of the recipe."""
    with_sites = (exit_wave for exit_wave in store if not exit_wave.ignored.all())
    for index, exit_wave in enumerate(islice(with_sites, specimens)):
        for name, lens in reference_lenses(recipe).items():
            for dose in recipe.evaluation.doses_per_square_angstrom:
                yield _label(recipe, exit_wave, lens, reference_exposure(recipe, dose), name, recipe.seed, index)


def reference_optics(recipe: Recipe) -> dict[str, Optics]:
    """The lens of each reference condition, by its name; of a series that of its middle frame."""
    return {
        name: Optics(
            voltage_kv=recipe.simulation.voltage_kv,
            c10=c10,
            c30=spherical_aberration_um * 1e4,
            focal_spread_angstrom=recipe.evaluation.focal_spread_angstrom,
        )
        for name, (spherical_aberration_um, c10) in recipe.evaluation.conditions.items()
    }


def reference_lenses(recipe: Recipe) -> dict[str, Optics | Lenses]:
    """What each reference condition takes its frames, or its series, with, by its name."""
    series = recipe.evaluation.series
    return {
        name: optics if series is None else defocused(optics, series.defocus_step_angstrom)
        for name, optics in reference_optics(recipe).items()
    }


def range_frames(recipe: Recipe, store: WaveStore, seed: int) -> Iterator[LabelledFrame]:
    """Frames from the whole range the model states; those of a lens that hides the lattice are a condition apart.

    Of series there is no such condition: what one of the frames hides the others show.
    """
    for draw in range(recipe.evaluation.range_frames):
        rng = np.random.default_rng([seed, draw])
        exit_wave = store.read(draw % len(store))
        lens: Optics | Lenses
        if recipe.series is None:
            lens = draw_any_optics(recipe.microscope, exit_wave.voltage_kv, rng)
            condition = SHOWN if shows_lattice(lens) else HIDDEN
        else:
            lens, condition = draw_lenses(recipe.microscope, recipe.series, exit_wave.voltage_kv, rng), SHOWN
        yield _label(recipe, exit_wave, lens, _stated_exposure(recipe, rng), condition, seed, draw)


def calibration_frames(recipe: Recipe, store: WaveStore, seed: int) -> Iterator[LabelledFrame]:
    """Frames to calibrate on: by reference lenses and by any that show the lattice, a quarter of them of nothing."""
    lenses = list(reference_lenses(recipe).values())
    for draw in range(recipe.evaluation.range_frames):
        rng = np.random.default_rng([seed, draw])
        exit_wave = store.read(draw % len(store)) if draw % 4 < 3 else _nothing(recipe, rng)
        exposure = _stated_exposure(recipe, rng)
        if draw // 4 % 2:
            lens = _drawn(recipe, rng)
        else:
            lens = lenses[draw // 8 % len(lenses)]
            exposure = reference_exposure(recipe, exposure.dose_per_square_angstrom)
        yield _label(recipe, exit_wave, lens, exposure, "calibration", seed, draw)


def empty_frames(recipe: Recipe, seed: int) -> Iterator[LabelledFrame]:
    """Frames in which nothing is to be found: vacuum and films of amorphous carbon, by good cameras and by any."""
    nothing = _vacuum(recipe)
    for index in range(recipe.evaluation.empty_frames):
        rng = np.random.default_rng([seed, index])
        film = _film(recipe, rng)
        lens = _drawn(recipe, rng)
        exposure = _stated_exposure(recipe, rng)
        reference = reference_exposure(recipe, exposure.dose_per_square_angstrom)
        for name, exit_wave in (("vacuum", nothing), ("amorphous carbon", film)):
            yield _label(recipe, exit_wave, lens, reference, name, seed, index)
            yield _label(recipe, exit_wave, lens, exposure, f"{name}, any camera", seed, index)


def held_out_simulation(recipe: Recipe) -> SimulationRecipe:
    """How held-out specimens are simulated: as those of training but for their number, mixture and field."""
    changed: dict[str, Any] = {"shards": recipe.evaluation.shards}
    if recipe.evaluation.mixture is not None:
        changed["mixture"] = recipe.evaluation.mixture
    if recipe.evaluation.series is not None:
        changed |= recipe.evaluation.series.model_dump(include={"field_angstrom", "field_pixels"})
    return recipe.simulation.model_copy(update=changed)


def _drawn(recipe: Recipe, rng: np.random.Generator) -> Optics | Lenses:
    voltage_kv = recipe.simulation.voltage_kv
    if recipe.series is None:
        return draw_optics(recipe.microscope, voltage_kv, rng)
    return draw_lenses(recipe.microscope, recipe.series, voltage_kv, rng)


def _nothing(recipe: Recipe, rng: np.random.Generator) -> ExitWave:
    return _film(recipe, rng) if rng.random() < 0.5 else _vacuum(recipe)


def _vacuum(recipe: Recipe) -> ExitWave:
    simulation = held_out_simulation(recipe)
    side = simulation.field_pixels
    return vacuum(side, simulation.field_angstrom / side, simulation.voltage_kv)


def _film(recipe: Recipe, rng: np.random.Generator) -> ExitWave:
    simulation = held_out_simulation(recipe)
    size_angstrom, thickness_angstrom = simulation.field_angstrom, float(np.exp(rng.uniform(*np.log((5.0, 80.0)))))
    carbon = amorphous_carbon(rng, size_angstrom, thickness_angstrom, held_out=True)
    atoms = atoms_in_vacuum(["C"] * len(carbon), carbon, size_angstrom)
    specimen = Specimen(atoms, np.full(len(carbon), -1, np.int32), (), np.zeros(0, bool))
    return simulate(
        specimen, simulation.field_pixels, simulation.voltage_kv, rng, thermal_motion=simulation.thermal_motion
    )


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
    recipe: Recipe,
    exit_wave: ExitWave,
    lens: Optics | Lenses,
    exposure: Exposure,
    condition: str,
    seed: int,
    index: int,
) -> LabelledFrame:
    dose = exposure.dose_per_square_angstrom
    rng = np.random.default_rng([seed, index, round(dose)])
    name = f"{condition} {index} {dose:g}"
    if isinstance(lens, Lenses):
        triplet = _triplet(recipe, exit_wave, lens, exposure, rng)
        shot, drift_angstrom = triplet.reference, triplet.displacement_angstrom
        subject: Frame | FocalSeries = _series(triplet, lens, dose, name)
    else:
        shot, drift_angstrom = take(exit_wave, lens, exposure, rng, HELD_OUT_MARGIN_ANGSTROM), None
        subject = _frame(shot, -lens.c10, dose, lens.voltage_kv, name)
    return LabelledFrame(
        subject=subject,
        positions_angstrom=shot.positions_px.astype(np.float64) * shot.pixel_size_angstrom,
        species=exit_wave.species,
        ignored=exit_wave.ignored,
        conditions={CONDITION: condition, DOSE: dose},
        atom_counts=exit_wave.atom_counts if recipe.network.deepest_column else None,
        drift_angstrom=drift_angstrom,
    )


def _triplet(
    recipe: Recipe, exit_wave: ExitWave, lenses: Lenses, exposure: Exposure, rng: np.random.Generator
) -> Triplet:
    """Take a series with all of its drift, whose frames are cut so far that none shows what wraps around."""
    assert recipe.evaluation.series is not None
    farthest = recipe.evaluation.series.drift_angstrom
    order = rng.permutation(FRAMES)
    directions, distances = rng.uniform(0, 2 * np.pi, FRAMES), rng.uniform(0, farthest, FRAMES)
    displacement = distances[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=1)
    displacement[np.argmin(order)] = 0.0
    return take_triplet(exit_wave, lenses, exposure, displacement, order, rng, HELD_OUT_MARGIN_ANGSTROM + farthest)


def _series(triplet: Triplet, lenses: Lenses, dose_per_square_angstrom: float, name: str) -> FocalSeries:
    voltage_kv = lenses.optics[0].voltage_kv
    first, second, third = (
        _frame(shot, defocus, dose_per_square_angstrom, voltage_kv, f"{name} {index}")
        for index, (shot, defocus) in enumerate(zip(triplet.shots, lenses.nominal_defocus_angstrom, strict=True))
    )
    return FocalSeries((first, second, third), triplet.first, name, name)


def _frame(shot: Shot, defocus_angstrom: float, dose_per_square_angstrom: float, voltage_kv: float, name: str) -> Frame:
    return Frame(
        pixels=shot.pixels,
        frame_id=name,
        name=name,
        calibration=Calibration(shot.pixel_size_angstrom, CalibrationSource.OVERRIDE),
        acquisition=Acquisition(
            defocus_angstrom=defocus_angstrom,
            dose_per_square_angstrom=dose_per_square_angstrom,
            voltage_kv=voltage_kv,
        ),
    )
