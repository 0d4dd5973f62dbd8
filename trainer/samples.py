"""Makes the frames of `hrtemd demo`: `python -m trainer.samples daemon/demo/samples`, or some of them by name.

Their structures come from seeds of their own, so none of them is in any training set, and from small enough fields that
all of them are a few megabytes. Focal series are stacks of three images, which drifted.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from daemon.atoms import VACANCY
from trainer.batches import MARGIN_ANGSTROM
from trainer.camera import good_scintillator
from trainer.evaluation.matching import View
from trainer.microscope import Shot, take
from trainer.optics import Optics
from trainer.recipe import COLD_TO_HOT
from trainer.simulation import simulate
from trainer.specimens.graphene import random_graphene
from trainer.specimens.mos2 import random_mos2
from trainer.specimens.nanoparticle import random_gold, random_nanoparticle
from trainer.specimens.specimen import Specimen
from trainer.triplets import FRAMES, defocused, take_triplet

PIXELS = 512
PIXEL_SIZE_ANGSTROM = 0.12
FIELD_ANGSTROM = 72.0
SERIES_FIELD_ANGSTROM = 88.0
FIELD_SAMPLING_ANGSTROM = 0.15
DRIFT_ANGSTROM = 6.0
SEED = 777_997
THICKEST_COLUMN_ATOMS = 12
ROOM_TEMPERATURE = (1.0, 1.0)
"""Of thermal motion: columns are counted where it is known."""


@dataclass(frozen=True)
class Sample:
    """One frame or series of the demo: what it shows, through which lens, at which dose a frame.

    Attributes:
        description: Shown by the demo.
        model: Finds what is in it.
        wanted: Which of the specimens drawn is shown.
        optics: The lens; of a series that of its middle frame.
        dose_per_square_angstrom: Of each frame.
        tell_pixel_size: In the sidecar.
        defocus_step_angstrom: Between the frames of a series; None for a single frame.
    """

    description: str
    model: str
    wanted: Callable[[Specimen], bool]
    optics: Optics
    dose_per_square_angstrom: float
    tell_pixel_size: bool = True
    defocus_step_angstrom: float | None = None

    @property
    def field_angstrom(self) -> float:
        """Side of what is simulated: of a series, its drift is cut off."""
        return FIELD_ANGSTROM if self.defocus_step_angstrom is None else SERIES_FIELD_ANGSTROM


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


def _defects(least: int, most: int) -> Callable[[Specimen], bool]:
    """A sheet, free of dirt, in which so many sites lack sulphur, and hardly any holds another element."""

    def wanted(specimen: Specimen) -> bool:
        species = Counter(specimen.site_species)
        lacking = species["S"] + species[VACANCY]
        is_full = species.total() > NEARLY_FULL_MOS2
        return bool(_clean(specimen) and is_full and least <= lacking <= most and species["substitution"] < 10)

    return wanted


FULL_SHEET = round(0.382 * FIELD_ANGSTROM**2)
NEARLY_FULL_MOS2 = round(0.9 * 2 / 8.66 * SERIES_FIELD_ANGSTROM**2)
BRIGHT = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)
DARK = Optics(80, c10=-90, c30=1e5, focal_spread_angstrom=30)
SHEET = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)
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
    "mos2-series.tif": Sample(
        "MoS2, three frames", "mos2-triplet", _defects(15, 60), SHEET, 2e3, defocus_step_angstrom=40.0
    ),
    "gold-series.tif": Sample(
        "gold, three frames", "nanoparticle-triplet", _particles(150, 500), PARTICLE, 2e3, defocus_step_angstrom=40.0
    ),
}

SPECIMENS = {
    "graphene": random_graphene,
    "nanoparticle": random_nanoparticle,
    "mos2-triplet": random_mos2,
    "nanoparticle-triplet": random_gold,
}


def make_samples(folder: Path, names: Collection[str]) -> None:
    """Write some frames, and what is in them into `truth.json` beside what is there of others."""
    folder.mkdir(parents=True, exist_ok=True)
    truth_file = folder / "truth.json"
    truth = json.loads(truth_file.read_text(encoding="utf-8")) if truth_file.exists() else {}
    for number, (name, sample) in enumerate(SAMPLES.items()):
        if name not in names:
            continue
        specimen, shots, defocus_angstrom = _shoot(sample, SEED + number)
        pixels = _as_counts(np.stack([shot.pixels[:PIXELS, :PIXELS] for shot in shots]))
        tifffile.imwrite(folder / name, pixels.squeeze(), photometric="minisblack", compression="zlib", predictor=True)
        truth[name] = _describe(sample, specimen, shots, pixels.shape[1:]) | defocus_angstrom
        sys.stderr.write(f"{name}: {truth[name]['atoms']} sites\n")
    truth_file.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _shoot(sample: Sample, seed: int) -> tuple[Specimen, tuple[Shot, ...], dict[str, Any]]:
    """Return what is shown, the frames in order of time, and what the sidecar says of their defocus."""
    rng = np.random.default_rng(seed)
    draw = SPECIMENS[sample.model]
    specimen = draw(rng, sample.field_angstrom)
    while not sample.wanted(specimen):
        specimen = draw(rng, sample.field_angstrom)
    is_counted = sample.model == "nanoparticle-triplet"
    exit_wave = simulate(
        specimen,
        round(sample.field_angstrom / FIELD_SAMPLING_ANGSTROM),
        sample.optics.voltage_kv,
        rng,
        thermal_motion="averaged" if is_counted else "snapshot",
        thermal_strength=ROOM_TEMPERATURE if is_counted else COLD_TO_HOT,
    )
    exposure = good_scintillator(PIXEL_SIZE_ANGSTROM, sample.dose_per_square_angstrom)
    if sample.defocus_step_angstrom is None:
        return specimen, (take(exit_wave, sample.optics, exposure, rng, MARGIN_ANGSTROM),), {}
    lenses = defocused(sample.optics, sample.defocus_step_angstrom)
    displacement = rng.uniform(-DRIFT_ANGSTROM, DRIFT_ANGSTROM, (FRAMES, 2))
    displacement[0] = 0.0
    order = np.arange(FRAMES)
    triplet = take_triplet(exit_wave, lenses, exposure, displacement, order, rng, MARGIN_ANGSTROM + DRIFT_ANGSTROM)
    return specimen, triplet.shots, {"defocus_angstrom": lenses.nominal_defocus_angstrom}


def _as_counts(frame: NDArray[np.float32]) -> NDArray[Any]:
    # Ten grey levels an electron, as scintillator cameras give.
    return np.clip(np.round(10 * frame), 0, 65535).astype(np.uint16)


def _describe(sample: Sample, specimen: Specimen, shots: tuple[Shot, ...], shape: tuple[int, ...]) -> dict[str, Any]:
    shot = shots[0]
    view = View.of_frame(shape, shot.pixel_size_angstrom, border_angstrom=0.0)
    # What drifted out of one frame of a series is not analysed.
    in_all = [view.holds(each.positions_px.astype(np.float64) * each.pixel_size_angstrom) for each in shots]
    seen = np.logical_and.reduce(in_all) & ~specimen.site_ignored
    share = 0.03 if sample.model == "graphene" else 0.05
    description = {
        "model": sample.model,
        "pixel_size_angstrom": round(shot.pixel_size_angstrom, 5) if sample.tell_pixel_size else None,
        "atoms": int(seen.sum()),
        "tolerance": max(5, round(share * seen.sum())),
        "description": sample.description,
        "dose_per_square_angstrom": sample.dose_per_square_angstrom,
    }
    if sample.defocus_step_angstrom is not None:
        description["counts"] = {
            name: {"count": count, "tolerance": max(3, round(share * count))}
            for name, count in _counts(sample, specimen, seen).items()
        }
    return description


def _counts(sample: Sample, specimen: Specimen, seen: NDArray[np.bool_]) -> dict[str, int]:
    if sample.model == "nanoparticle-triplet":
        return {"atoms": int(specimen.site_atom_counts[seen].sum())}
    return dict(Counter(name for name, is_seen in zip(specimen.site_species, seen, strict=True) if is_seen))


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]), sys.argv[2:] or SAMPLES)
