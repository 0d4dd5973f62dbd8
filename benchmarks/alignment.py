"""How far alignment is off: focal triplets of simulated specimens that drift by up to 20 Å between their frames.

    .venv/bin/python benchmarks/alignment.py [FOLDER] [SPECIMENS] [FRAME_PIXELS] [DOSES]

Exit waves are simulated once (minutes) and kept in FOLDER. Each specimen is imaged at its reference triplet, all is as
told; and through lenses drawn at random from the model's range, defocus told wrongly by up to 30 Å, which the table
calls `any lens`. A specimen must show something in the middle of its field. DOSES, e/Å² per frame, are separated by
commas.

Error: of the shift of each of the two later frames from the first, in Å; `if sure`: the 95th percentile in series
without a warning. `lattice`: share off by more than 1 Å, as by a lattice vector.
Modulo the lattice: how far the sites, moved by the error, stand from the nearest of their species, median over the
sites: what a lattice vector leaves of an error. A table of a sheet that nothing breaks cannot be wrong by more.
`doubtful`: share of series with a warning; `silent`: share more than 0.3 Å off without one; `wolf`: share less than
0.3 Å off with one. `ratio`: processor time over that of plain cross-correlation of the same frames at full resolution,
whose errors stand beside.
The rows `mos2 flawless` say what happens where nothing breaks the lattice: shifts by a lattice vector look the same, no
one can tell them apart, and only `silent` and the error modulo the lattice count. A tenth of the other sheets have no
defect either, nor do films of carbon say more: the simulated ones repeat a block of 30 Å.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.frames import Acquisition, FocalSeries, Frame
from daemon.series.alignment import measure_drift
from trainer.camera import good_scintillator
from trainer.optics import Aberration, Optics
from trainer.recipe import SimulationRecipe
from trainer.simulation import ExitWave, WaveStore, simulate, simulate_store
from trainer.specimens.mos2 import labelled_lattice
from trainer.specimens.mos2_lattice import Lattice, crystal
from trainer.triplets import Lenses, take_triplet

SITES = ("Mo", "S2", "Au", "C")
"""Species of a lattice that nothing breaks."""
PIXEL_SIZE_ANGSTROM = 0.12
LARGEST_DRIFT_ANGSTROM = 20.0
MARGIN_ANGSTROM = LARGEST_DRIFT_ANGSTROM + 6
SAMPLING_ANGSTROM = 0.2
LEAST_PHASE_VARIATION = 0.03
MIDDLE_ANGSTROM = 30.0
SEED = 20_261_201


@dataclass(frozen=True)
class Conditions:
    """A specimen, its voltage, its reference triplet, and the range of spherical aberration its model states."""

    specimen: str
    voltage_kv: float
    c10_angstrom: tuple[float, float, float]
    c30_angstrom: float
    c30_range_angstrom: tuple[float, float]


SHEET = (130.0, 90.0, 50.0)
MOS2 = Conditions("mos2", 80, SHEET, -1e5, (-2e5, 2e5))
GOLD = Conditions("gold", 300, (120.0, 80.0, 40.0), -1.5e5, (-3e5, 5e4))
GRAPHENE = Conditions("graphene", 80, SHEET, -1e5, (-2e5, 2e5))


def main(
    folder: str = "runs/alignment", specimens: str = "24", frame_pixels: str = "512", doses: str = "100,500,1000,10000"
) -> None:
    """Print the table."""
    home = Path(folder)
    field = int(frame_pixels) * PIXEL_SIZE_ANGSTROM + 2 * MARGIN_ANGSTROM
    cases: list[tuple[str, Conditions, list[ExitWave]]] = [
        (each.specimen, each, list(exit_waves(each, home, int(specimens), field))) for each in (MOS2, GOLD, GRAPHENE)
    ]
    cases.append(("mos2 flawless", MOS2, [flawless_sheet(seed, field) for seed in range(int(specimens) // 4)]))
    print(
        f"{'':14}{'':10}{'dose':>6}  median    95 %  if sure  lattice  modulo: median  95 %  doubtful  silent  wolf"
        "  ratio    plain: median  95 %",
        flush=True,
    )
    for name, conditions, waves in cases:
        for lens, draw in (("reference", reference), ("any lens", any_lens)):
            for dose in map(int, doses.split(",")):
                print(f"{name:14}{lens:10}{dose:6d}  {measured(waves, conditions, dose, draw)}", flush=True)


def exit_waves(conditions: Conditions, home: Path, count: int, field_angstrom: float) -> Iterator[ExitWave]:
    """Yield specimens that show something in the middle of their field."""
    pixels = scipy.fft.next_fast_len(round(field_angstrom / SAMPLING_ANGSTROM))
    recipe = SimulationRecipe(
        mixture={conditions.specimen: 1.0},
        shards=count,
        specimens_per_shard=1,
        field_angstrom=pixels * SAMPLING_ANGSTROM,
        field_pixels=pixels,
        voltage_kv=conditions.voltage_kv,
        moments=3,
    )
    store = home / f"{conditions.specimen}-{pixels}-{count}"
    simulate_store(recipe, SEED, store, workers=1)
    for wave in WaveStore.open(store, count):
        reach = round(MIDDLE_ANGSTROM / 2 / SAMPLING_ANGSTROM)
        middle = slice(pixels // 2 - reach, pixels // 2 + reach)
        if np.angle(wave.wave[middle, middle]).std() > LEAST_PHASE_VARIATION:
            yield wave


def flawless_sheet(seed: int, field_angstrom: float) -> ExitWave:
    """MoS2 without a single defect."""
    rng = np.random.default_rng([SEED, seed])
    pixels = scipy.fft.next_fast_len(round(field_angstrom / SAMPLING_ANGSTROM))
    size = pixels * SAMPLING_ANGSTROM
    lattice = Lattice.perfect(*crystal(1.1 * size, rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5, 2)))
    middle = np.array([size / 2, size / 2, 0.0])
    nothing = np.array([], dtype=np.str_), np.empty((0, 3))
    sheet = labelled_lattice(lattice, lambda flat: flat + middle, *nothing, size)
    return simulate(sheet, pixels, MOS2.voltage_kv, rng, moments=3)


def reference(conditions: Conditions, rng: np.random.Generator) -> Lenses:
    """The reference triplet, as told."""
    nominal = tuple(-c10 for c10 in conditions.c10_angstrom)
    lens = Optics(conditions.voltage_kv, 0.0, conditions.c30_angstrom, focal_spread_angstrom=30)
    return Lenses(tuple(replace(lens, c10=c10) for c10 in conditions.c10_angstrom), nominal)


def any_lens(conditions: Conditions, rng: np.random.Generator) -> Lenses:
    """Another lens than the reference, at a focus that is not quite the one told."""
    lens = Optics(
        conditions.voltage_kv,
        0.0,
        c30=rng.uniform(*conditions.c30_range_angstrom),
        focal_spread_angstrom=rng.uniform(15, 45),
        c12=Aberration(30 * rng.random() ** 2, rng.uniform(0, 2 * np.pi)),
    )
    off = rng.uniform(-30, 30)
    optics = tuple(replace(lens, c10=c10 + off + rng.normal(0, 3)) for c10 in conditions.c10_angstrom)
    return Lenses(optics, tuple(-c10 for c10 in conditions.c10_angstrom))


def measured(
    waves: list[ExitWave],
    conditions: Conditions,
    dose: float,
    draw_lenses: Callable[[Conditions, np.random.Generator], Lenses],
) -> str:
    """Align a series of each specimen; return a row of the table."""
    errors, modulo, plain_errors, doubtful = [], [], [], []
    seconds = plain_seconds = 0.0
    for index, wave in enumerate(waves):
        rng = np.random.default_rng([SEED, index])
        series, drift, pixel_size = taken(wave, draw_lenses(conditions, rng), conditions, dose, rng)
        later = [frame for frame in range(3) if frame != series.first]
        started = time.process_time()
        result = measure_drift(series, pixel_size)
        between = time.process_time()
        plain = plain_drift(series, pixel_size)
        plain_seconds += time.process_time() - between
        seconds += between - started
        errors.append(np.linalg.norm(result.drift_angstrom - drift, axis=1)[later])
        modulo.append([modulo_lattice(wave, error) for error in (result.drift_angstrom - drift)[later]])
        plain_errors.append(np.linalg.norm(plain - drift, axis=1)[later])
        doubtful.append(bool(result.warnings))
    error, within, plain_error = np.concatenate(errors), np.concatenate(modulo), np.concatenate(plain_errors)
    warned, wrong = np.array(doubtful), np.stack(errors).max(axis=1) > 0.3
    sure_percentile = np.percentile(np.stack(errors)[~warned], 95) if not warned.all() else np.nan
    return (
        f"{np.median(error):6.3f}  {np.percentile(error, 95):6.2f}  {sure_percentile:7.2f}  {np.mean(error > 1):7.2f}"
        f"  {np.median(within):14.3f}  {np.percentile(within, 95):4.2f}  {warned.mean():8.2f}"
        f"  {np.mean(wrong & ~warned):6.2f}  {np.mean(warned & ~wrong):4.2f}  {seconds / plain_seconds:5.2f}"
        f"  {np.median(plain_error):15.3f}  {np.percentile(plain_error, 95):4.1f}"
        f"   ({len(waves)} series, {1e3 * seconds / len(waves):.0f} ms each)"
    )


def modulo_lattice(wave: ExitWave, error_angstrom: NDArray[np.float64]) -> float:
    """How far sites in the middle of the field, moved by the error, stand from the nearest of their species."""
    length = float(np.linalg.norm(error_angstrom))
    middle = len(wave.wave) * wave.sampling_angstrom / 2
    central = np.abs(wave.positions_angstrom - middle).max(axis=1) < MIDDLE_ANGSTROM
    distances = []
    for name in SITES:
        alike = np.array(wave.species) == name
        if (looked_at := alike & central & ~wave.ignored).any():
            moved = wave.positions_angstrom[looked_at] + error_angstrom
            distances.append(cKDTree(wave.positions_angstrom[alike]).query(moved)[0])
    return min(length, float(np.median(np.concatenate(distances)))) if distances else length


def taken(
    wave: ExitWave, lenses: Lenses, conditions: Conditions, dose: float, rng: np.random.Generator
) -> tuple[FocalSeries, NDArray[np.float64], float]:
    """Image a specimen three times in random order; each later frame drifted by up to 20 Å from the first."""
    order = rng.permutation(3)
    length, way = rng.uniform(0, LARGEST_DRIFT_ANGSTROM, 3), rng.uniform(0, 2 * np.pi, 3)
    drift = np.stack([length * np.cos(way), length * np.sin(way)], axis=1)
    drift[np.argmin(order)] = 0.0
    exposure = replace(good_scintillator(PIXEL_SIZE_ANGSTROM, dose), tilt=tuple(rng.normal(0, 0.15, 2)))
    triplet = take_triplet(wave, lenses, exposure, drift, order, rng, MARGIN_ANGSTROM)
    frames = tuple(
        Frame(shot.pixels, str(index), str(index), acquisition=Acquisition(defocus, None, conditions.voltage_kv))
        for index, (shot, defocus) in enumerate(zip(triplet.shots, lenses.nominal_defocus_angstrom, strict=True))
    )
    return FocalSeries(frames, triplet.first, "series", "series"), drift, triplet.reference.pixel_size_angstrom


def plain_drift(series: FocalSeries, pixel_size_angstrom: float) -> NDArray[np.float64]:
    """What plain cross-correlation with the first frame gives, to a whole pixel."""
    spectra = [scipy.fft.rfft2(frame.pixels - frame.pixels.mean(), workers=1) for frame in series.frames]
    shape = series.reference.pixels.shape
    reach = int(LARGEST_DRIFT_ANGSTROM / pixel_size_angstrom) + 1
    drift = []
    for spectrum in spectra:
        correlation = scipy.fft.irfft2(spectra[series.first].conj() * spectrum, s=shape, workers=1)
        near = np.roll(correlation, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
        row, column = np.unravel_index(int(near.argmax()), near.shape)
        drift.append([(column - reach) * pixel_size_angstrom, (row - reach) * pixel_size_angstrom])
    return np.array(drift)


if __name__ == "__main__":
    main(*sys.argv[1:])
