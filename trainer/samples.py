"""Makes the frames of `hrtemd demo`: `python -m trainer.samples daemon/demo/samples`.

Their structures come from seeds of their own, so none of them is in any training set, and from small enough fields that
all seven frames are a few megabytes.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import good_scintillator
from trainer.evaluation.matching import View
from trainer.microscope import Shot, take
from trainer.optics import Optics
from trainer.simulation import simulate
from trainer.specimens.graphene import random_graphene
from trainer.specimens.nanoparticle import random_nanoparticle
from trainer.specimens.specimen import Specimen

PIXELS = 512
PIXEL_SIZE_ANGSTROM = 0.12
FIELD_ANGSTROM = 72.0
FIELD_PIXELS = 480
SEED = 777_997
THICKEST_COLUMN_ATOMS = 12


@dataclass(frozen=True)
class Sample:
    """One frame of the demo: what it shows, through which lens, at which dose."""

    description: str
    model: str
    wanted: Callable[[Specimen], bool]
    optics: Optics
    dose_per_square_angstrom: float
    tell_pixel_size: bool = True


def _clean(specimen: Specimen) -> bool:
    return bool(not specimen.site_ignored.any() and (specimen.site_of_atom >= 0).all())


def _sheet(least: int, most: int) -> Callable[[Specimen], bool]:
    return lambda specimen: _clean(specimen) and least <= len(specimen.site_species) <= most


def _particles(least: int, most: int) -> Callable[[Specimen], bool]:
    """Particles of which every column can be counted: on their zone axis, not too thick, on film or on nothing."""

    def wanted(specimen: Specimen) -> bool:
        counts = specimen.site_atom_counts
        return bool(
            least <= len(counts) <= most
            and not specimen.site_ignored.any()
            and counts.max() <= THICKEST_COLUMN_ATOMS
            and "support" not in specimen.site_species
        )

    return wanted


FULL_SHEET = round(0.382 * FIELD_ANGSTROM**2)
BRIGHT = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)
DARK = Optics(80, c10=-90, c30=1e5, focal_spread_angstrom=30)
PARTICLE = Optics(300, c10=80, c30=-1.5e5, focal_spread_angstrom=30)
OTHER_PARTICLE = Optics(300, c10=90, c30=-5e4, focal_spread_angstrom=30)

SAMPLES = {
    "graphene-sheet.tif": Sample(
        "a sheet, atoms bright", "graphene", _sheet(FULL_SHEET - 60, FULL_SHEET + 60), BRIGHT, 1e4
    ),
    "graphene-holes.tif": Sample("holes, atoms bright", "graphene", _sheet(900, 1500), BRIGHT, 2e4),
    "graphene-dark.tif": Sample("holes, atoms dark", "graphene", _sheet(900, 1600), DARK, 1e4),
    "graphene-scale.tif": Sample(
        "pixel size not given", "graphene", _sheet(FULL_SHEET - 100, FULL_SHEET + 100), BRIGHT, 2e4, False
    ),
    "particles.tif": Sample("metal particles", "nanoparticle", _particles(120, 500), PARTICLE, 2e3),
    "particles-low-dose.tif": Sample("particles, low dose", "nanoparticle", _particles(80, 400), PARTICLE, 500),
    "particles-other-lens.tif": Sample("another lens", "nanoparticle", _particles(80, 500), OTHER_PARTICLE, 2e3),
}


def make_samples(folder: Path) -> None:
    """Write the frames and their `truth.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, (name, sample) in enumerate(SAMPLES.items()):
        shot, ignored = _shoot(sample, SEED + number)
        pixels = _as_counts(shot.pixels[:PIXELS, :PIXELS])
        tifffile.imwrite(folder / name, pixels, compression="zlib", predictor=True)
        truth[name] = _describe(sample, shot, ignored, pixels.shape)
        sys.stderr.write(f"{name}: {truth[name]['atoms']} sites\n")
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _shoot(sample: Sample, seed: int) -> tuple[Shot, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    draw = random_graphene if sample.model == "graphene" else random_nanoparticle
    specimen = draw(rng, FIELD_ANGSTROM)
    while not sample.wanted(specimen):
        specimen = draw(rng, FIELD_ANGSTROM)
    exit_wave = simulate(specimen, FIELD_PIXELS, sample.optics.voltage_kv, rng)
    exposure = good_scintillator(PIXEL_SIZE_ANGSTROM, sample.dose_per_square_angstrom)
    return take(exit_wave, sample.optics, exposure, rng, MARGIN_ANGSTROM), specimen.site_ignored


def _as_counts(frame: NDArray[np.float32]) -> NDArray[Any]:
    # Ten grey levels an electron, as scintillator cameras give.
    return np.clip(np.round(10 * frame), 0, 65535).astype(np.uint16)


def _describe(sample: Sample, shot: Shot, ignored: NDArray[np.bool_], shape: tuple[int, ...]) -> dict[str, Any]:
    view = View.of_frame(shape, shot.pixel_size_angstrom, border_angstrom=0.0)
    atoms = int(view.holds(shot.positions_px.astype(np.float64) * shot.pixel_size_angstrom)[~ignored].sum())
    return {
        "model": sample.model,
        "pixel_size_angstrom": round(shot.pixel_size_angstrom, 5) if sample.tell_pixel_size else None,
        "atoms": atoms,
        "tolerance": max(5, round((0.03 if sample.model == "graphene" else 0.05) * atoms)),
        "description": sample.description,
        "dose_per_square_angstrom": sample.dose_per_square_angstrom,
    }


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]))
