"""Exit waves by multislice, simulated once and stored with their labels."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import abtem
import h5py
import numpy as np
from abtem.parametrizations import LobatoParametrization
from ase import Atoms
from numpy.typing import NDArray
from tqdm import tqdm

from daemon.recognition.package import Range
from trainer.recipe import COLD_TO_HOT, RecipeError, SimulationRecipe, ThermalMotion
from trainer.specimens.amorphous import random_amorphous_film
from trainer.specimens.graphene import random_graphene
from trainer.specimens.hopping import hopped
from trainer.specimens.mos2 import random_mos2
from trainer.specimens.nanoparticle import (
    random_gold,
    random_gold_on_oxide,
    random_nanoparticle,
    random_thick_gold,
)
from trainer.specimens.specimen import Specimen
from trainer.workers import end_with_parent

SPECIMENS: dict[str, Callable[[np.random.Generator, float], Specimen]] = {
    "graphene": random_graphene,
    "mos2": random_mos2,
    "nanoparticle": random_nanoparticle,
    "gold": random_gold,
    "thick gold": random_thick_gold,
    "gold on oxide": random_gold_on_oxide,
    "film": random_amorphous_film,
}

THERMAL_RMS_ANGSTROM = {
    "C": 0.05,
    "O": 0.07,
    "Mg": 0.06,
    "Ti": 0.07,
    "Ce": 0.06,
    "Ag": 0.09,
    "Au": 0.085,
    "Mo": 0.06,
    "S": 0.075,
    "W": 0.05,
    "Re": 0.05,
}
"""Displacement at room temperature along each axis, rounded from tabulated Debye-Waller factors; those of MoS2 from its
Debye temperatures."""

OTHER_THERMAL_RMS_ANGSTROM = 0.075

RELAXATION_RMS_ANGSTROM = 0.03
"""By which atoms stand off their lattice on average over time, along each axis: surfaces and strain."""


@dataclass(frozen=True)
class ExitWave:
    """A specimen as the objective lens receives it.

    Attributes:
        wave: Shape (height, width), complex64; 1 where there is vacuum.
        later_waves: The same at later moments: other thermal displacements, and perhaps an atom that hopped.
        sampling_angstrom: Å per grid point; point (row, column) lies at y = row · sampling, x = column · sampling.
        voltage_kv: Accelerating voltage.
        positions_angstrom: Shape (sites, 2), x and y.
        species: Name of each site.
        ignored: Shape (sites,), see `Specimen.site_ignored`.
        atom_counts: Shape (sites,).
        smears_angstrom: Shape (sites, 2), see `Specimen.site_smears`.
        depth_angstrom: How far the sites lie before the plane of the wave, on average: from where the beam leaves each
            site's last atom. Lenses count their defocus from there, or a sheet with dirt behind it would be out of
            focus by the height of its dirt.
    """

    wave: NDArray[np.complex64]
    sampling_angstrom: float
    voltage_kv: float
    positions_angstrom: NDArray[np.float32]
    species: tuple[str, ...]
    ignored: NDArray[np.bool_]
    atom_counts: NDArray[np.int16]
    smears_angstrom: NDArray[np.float32]
    depth_angstrom: float
    later_waves: tuple[NDArray[np.complex64], ...] = ()

    def at(self, moment: int) -> NDArray[np.complex64]:
        """The wave of a moment, or of the last one there is."""
        return (self.wave, *self.later_waves)[: moment + 1][-1]


def simulate(
    specimen: Specimen,
    pixels: int,
    voltage_kv: float,
    rng: np.random.Generator,
    moments: int = 1,
    thermal_motion: ThermalMotion = "snapshot",
    thermal_strength: Range = COLD_TO_HOT,
) -> ExitWave:
    """Send a plane wave through a specimen at each of several moments.

    In a snapshot of the thermal motion the labels stand where the snapshot's atoms stand, so they stay exact; the blur
    of many snapshots is among those drawn by `trainer.microscope`. The average is what an exposure sees, and what
    columns have to be counted by.
    """
    rms = rng.uniform(*thermal_strength) * thermal_rms_angstrom(specimen.atoms)
    is_averaged = thermal_motion == "averaged"
    if is_averaged:
        specimen = _displace(specimen, RELAXATION_RMS_ANGSTROM, rng)

    def pose(specimen: Specimen) -> Specimen:
        return specimen if is_averaged else _displace(specimen, rms, rng)

    def wave_behind(posed: Specimen) -> NDArray[np.complex64]:
        return multislice(posed.atoms, pixels, voltage_kv, smearing_angstrom=rms if is_averaged else None)

    still = pose(specimen)
    waves = [wave_behind(still)]
    for _ in range(moments - 1):
        before, specimen = specimen, hopped(specimen, rng)
        is_as_before = is_averaged and specimen is before
        waves.append(waves[-1] if is_as_before else wave_behind(pose(specimen)))
    return ExitWave(
        wave=waves[0],
        sampling_angstrom=float(specimen.atoms.cell[0, 0]) / pixels,
        voltage_kv=voltage_kv,
        positions_angstrom=still.site_positions().astype(np.float32),
        species=specimen.site_species,
        ignored=specimen.site_ignored,
        atom_counts=still.site_atom_counts.astype(np.int16),
        smears_angstrom=still.site_smears().astype(np.float32),
        depth_angstrom=_depth(still),
        later_waves=tuple(waves[1:]),
    )


def multislice(
    atoms: Atoms,
    pixels: int,
    voltage_kv: float,
    slice_angstrom: float = 2.0,
    smearing_angstrom: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.complex64]:
    """Shape (pixels, pixels), rows along y: what remains of a plane wave behind atoms.

    Args:
        atoms: In an orthogonal cell, the beam along +z.
        pixels: Along each side.
        voltage_kv: Accelerating voltage.
        slice_angstrom: Thickness of the slices.
        smearing_angstrom: Shape (atoms,), root mean square displacement along each axis by which atoms' potentials are
            smeared, alike for all atoms of an element (Debye-Waller factors); None for atoms that stand still.
    """
    smearing = (
        {} if smearing_angstrom is None else dict(zip(atoms.get_chemical_symbols(), smearing_angstrom, strict=True))
    )
    with abtem.config.set({"fft": "fftw", "fftw.threads": 1, "precision": "float32"}):
        parametrization = LobatoParametrization(sigmas=smearing)
        potential = abtem.Potential(atoms, gpts=pixels, slice_thickness=slice_angstrom, parametrization=parametrization)
        wave = abtem.PlaneWave(energy=voltage_kv * 1e3).multislice(potential, lazy=False)
    return np.ascontiguousarray(wave.array.T).astype(np.complex64)  # abTEM's arrays are [x, y]


def thermal_rms_angstrom(atoms: Atoms) -> NDArray[np.float64]:
    """Shape (atoms,), along each axis at room temperature, Å."""
    symbols = atoms.get_chemical_symbols()
    return np.array([THERMAL_RMS_ANGSTROM.get(symbol, OTHER_THERMAL_RMS_ANGSTROM) for symbol in symbols])


def _displace(specimen: Specimen, rms_angstrom: float | NDArray[np.float64], rng: np.random.Generator) -> Specimen:
    atoms: Atoms = specimen.atoms.copy()
    scale = np.broadcast_to(rms_angstrom, len(atoms))[:, None]
    atoms.positions += scale * rng.standard_normal((len(atoms), 3))
    atoms.positions[:, 2] = np.clip(atoms.positions[:, 2], 0.01, atoms.cell[2, 2] - 0.01)
    return replace(specimen, atoms=atoms)


def _depth(specimen: Specimen) -> float:
    labelled = specimen.site_of_atom >= 0
    if not labelled.any():
        return 0.0
    last = np.zeros(len(specimen.site_species))
    np.maximum.at(last, specimen.site_of_atom[labelled], specimen.atoms.positions[labelled, 2])
    return float(specimen.atoms.cell[2, 2] - last[specimen.site_atom_counts > 0].mean())


def simulate_store(recipe: SimulationRecipe, seed: int, folder: Path, workers: int | None = None) -> None:
    """Simulate all shards of a recipe that are not there yet, in parallel.

    What a shard holds depends on the recipe, the seed and the shard's number only, so a store that was interrupted, or
    made by another number of workers, is the same store but for the last digit: FFTW chooses its plans by timing them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe, seed)
    missing = [shard for shard in range(recipe.shards) if not _shard_path(folder, shard).exists()]
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or os.cpu_count(), context, initializer=end_with_parent) as pool:
        jobs = [pool.submit(_simulate_shard, recipe, seed, shard, folder) for shard in missing]
        progress = tqdm(
            as_completed(jobs), "exit waves", recipe.shards, initial=recipe.shards - len(missing), unit="shard"
        )
        try:
            for job in progress:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _claim(folder: Path, recipe: SimulationRecipe, seed: int) -> None:
    """Note what a store is made of; waves of two recipes never mix.

    Raises:
        RecipeError: The store was made by another recipe or seed.
    """
    contents = {"seed": seed, **recipe.model_dump(mode="json", exclude={"shards"})}
    note = folder / "contents.json"
    if not note.exists():
        note.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    elif (there := json.loads(note.read_text(encoding="utf-8"))) != contents:
        changed = ", ".join(key for key in contents if there.get(key) != contents[key])
        raise RecipeError(
            f"{folder} holds exit waves of another recipe (other {changed}); delete it, or choose another --work."
        )


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.h5"


def _simulate_shard(recipe: SimulationRecipe, seed: int, shard: int, folder: Path) -> None:
    rng = np.random.default_rng([seed, shard])
    names, weights = zip(*recipe.mixture.items(), strict=True)
    path = _shard_path(folder, shard)
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        for index in range(recipe.specimens_per_shard):
            name = rng.choice(names, p=np.array(weights) / sum(weights))
            specimen = SPECIMENS[name](rng, recipe.field_angstrom)
            exit_wave = simulate(
                specimen,
                recipe.field_pixels,
                recipe.voltage_kv,
                rng,
                recipe.moments,
                recipe.thermal_motion,
                recipe.thermal_strength,
            )
            _write(file.create_group(str(index)), exit_wave)
    partial.replace(path)


def _write(group: h5py.Group, exit_wave: ExitWave) -> None:
    # Half precision of the difference to vacuum: a thousandth of the scattered amplitude, far below any counting noise.
    difference = np.stack([exit_wave.wave, *exit_wave.later_waves]) - 1
    halves = np.stack([difference.real, difference.imag], axis=1).astype(np.float16)
    group.create_dataset("waves", data=halves, chunks=(1, 1, *_chunk(halves.shape[2:])))
    group["positions_angstrom"] = exit_wave.positions_angstrom
    group["species"] = np.array(exit_wave.species, dtype="S16")
    group["ignored"] = exit_wave.ignored
    group["atom_counts"] = exit_wave.atom_counts
    group["smears_angstrom"] = exit_wave.smears_angstrom
    group.attrs["sampling_angstrom"] = exit_wave.sampling_angstrom
    group.attrs["voltage_kv"] = exit_wave.voltage_kv
    group.attrs["depth_angstrom"] = exit_wave.depth_angstrom


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(128, extent) for extent in shape)


@dataclass(frozen=True)
class WaveStore:
    """Reads the exit waves of a folder, counted through from 0."""

    folder: Path
    specimens_per_shard: int
    shards: int

    @classmethod
    def open(cls, folder: Path, shards: int) -> "WaveStore":
        """Open the first shards of a folder.

        Raises:
            RecipeError: Some of them are missing.
        """
        missing = [shard for shard in range(shards) if not _shard_path(folder, shard).exists()]
        if missing:
            raise RecipeError(f"{folder} lacks {len(missing)} of {shards} shards; run `hrtemd-train simulate` first.")
        with h5py.File(_shard_path(folder, 0), "r") as file:
            return cls(folder, len(file), shards)

    def __len__(self) -> int:
        return self.shards * self.specimens_per_shard

    def __iter__(self) -> Iterator[ExitWave]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int, window: tuple[int, int, int] | None = None) -> ExitWave:
        """Read one exit wave.

        Args:
            index: Which.
            window: Row, column and side in grid points of the square to read; all of it by default. Positions then
                count from the window's corner.
        """
        shard, item = divmod(index, self.specimens_per_shard)
        with h5py.File(_shard_path(self.folder, shard), "r") as file:
            group = file[str(item)]
            row, column, side = window or (0, 0, group["waves"].shape[-1])
            parts = group["waves"][:, :, row : row + side, column : column + side].astype(np.float32)
            wave, *later_waves = (1 + parts[:, 0] + 1j * parts[:, 1]).astype(np.complex64)
            sampling = float(group.attrs["sampling_angstrom"])
            corner = np.array([column, row], np.float32) * sampling
            return ExitWave(
                wave=wave,
                later_waves=tuple(later_waves),
                sampling_angstrom=sampling,
                voltage_kv=float(group.attrs["voltage_kv"]),
                positions_angstrom=group["positions_angstrom"][:] - corner,
                species=tuple(group["species"].asstr()[:]),
                ignored=group["ignored"][:],
                atom_counts=group["atom_counts"][:],
                smears_angstrom=group["smears_angstrom"][:],
                depth_angstrom=float(group.attrs["depth_angstrom"]),
            )
