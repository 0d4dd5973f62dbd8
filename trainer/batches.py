"""Training batches: exit waves imaged anew at every step, with the targets the network should answer.

A batch depends on the recipe, the seed and the number of the step only, so training can be stopped and resumed at any
step, with any number of workers, and sees the same frames.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor
from torch.utils.data import Dataset

from daemon.atoms import SUPPORT
from daemon.recognition.preprocess import prepare
from daemon.recognition.series_input import despeckled, prepare_series
from trainer.microscope import draw_exposure, draw_optics, take, vacuum
from trainer.network import STRIDE
from trainer.recipe import Recipe
from trainer.simulation import ExitWave, WaveStore
from trainer.triplets import FRAMES, LARGEST_DISPLACEMENT_ANGSTROM, draw_displacements, draw_lenses, take_triplet

MARGIN_ANGSTROM = 6.0
"""Cut off each imaged field: as far as the lens spreads what wraps around the periodic simulation."""

IGNORED_RADIUS_CELLS = 2
LABELLED_REACH_CELLS = 1


@dataclass(frozen=True)
class Batch:
    """Input and targets.

    Attributes:
        images: Shape (batch, channels, height, width); one channel for single frames, else those of
            `daemon.recognition.series_input`.
        shares: Shape (batch, 1 + classes, cells, cells): nothing, and each class; they add up to 1.
        weights: Shape (batch, cells, cells): 0 where no answer is right or wrong.
        offsets: Shape (batch, 2, cells, cells): from the cell's centre to the nearest site along x and y, in cells.
        near: Shape (batch, cells, cells): true where a site is in this cell or a neighbouring one.
        atoms: Shape (batch, cells, cells): atoms in the column of the nearest site where that is near and its atoms are
            counted, else 0.
        smears: Shape (batch, 2, cells, cells): how far tilt smears the column of the nearest site along x and y, in Å;
            NaN where none is near that has two atoms or more. Ignored sites tell it, too.
    """

    images: Tensor
    shares: Tensor
    weights: Tensor
    offsets: Tensor
    near: Tensor
    atoms: Tensor
    smears: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(*(part.to(device, non_blocking=True) for part in vars(self).values()))


class Batches(Dataset[Batch]):
    """Item `step` is the batch of that training step."""

    def __init__(self, recipe: Recipe, store: WaveStore, seed: int) -> None:
        self.recipe = recipe
        self.store = store
        self.seed = seed

    def __len__(self) -> int:
        return self.recipe.training.steps

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        samples = [self._sample(rng) for _ in range(self.recipe.training.batch)]
        return Batch(*(torch.from_numpy(np.stack(parts)) for parts in zip(*samples, strict=True)))

    def _sample(self, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        patch = self.recipe.training.patch_pixels
        exit_wave = self._exit_wave(rng)
        image, positions = self._frame(exit_wave, rng) if self.recipe.series is None else self._series(exit_wave, rng)
        image, positions = _crop(image, positions, patch, rng)
        symmetry = int(rng.integers(8))
        image, positions = _turn(image, positions, symmetry)
        smears = _turned(exit_wave.smears_angstrom, symmetry)
        sites = Sites(positions, self._classes(exit_wave), self._counts(exit_wave), exit_wave.ignored, smears)
        return image, *targets(sites, patch // STRIDE, len(self.recipe.network.classes))

    def _frame(self, exit_wave: ExitWave, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Take one frame: the network's input, shape (1, height, width), and the sites in its pixels."""
        optics = draw_optics(self.recipe.microscope, exit_wave.voltage_kv, rng)
        exposure = draw_exposure(self.recipe.microscope, rng)
        shot = take(exit_wave, optics, exposure, rng, MARGIN_ANGSTROM)
        prepared = prepare(shot.pixels, shot.pixel_size_angstrom, self.recipe.network.sampling_angstrom)
        return prepared.image[None], prepared.from_acquired(shot.positions_px)

    def _series(self, exit_wave: ExitWave, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Take three frames: the network's input, shape (channels, height, width), and the sites in its pixels."""
        series = self.recipe.series
        assert series is not None
        lenses = draw_lenses(self.recipe.microscope, series, exit_wave.voltage_kv, rng)
        exposure = draw_exposure(self.recipe.microscope, rng)
        order = rng.permutation(FRAMES)
        displacement = draw_displacements(rng, int(np.argmin(order)))
        triplet = take_triplet(exit_wave, lenses, exposure, displacement, order, rng, MARGIN_ANGSTROM)
        measured = displacement + rng.uniform(*series.alignment_error_angstrom) * rng.standard_normal((FRAMES, 2))
        measured[triplet.first] = 0.0
        prepared = prepare_series(
            despeckled([shot.pixels for shot in triplet.shots]),
            triplet.reference.pixel_size_angstrom,
            self.recipe.network.sampling_angstrom,
            measured,
            lenses.nominal_defocus_angstrom if series.told_defocus else None,
        )
        return prepared.image, prepared.from_acquired(triplet.reference.positions_px)

    def _exit_wave(self, rng: np.random.Generator) -> ExitWave:
        simulation = self.recipe.simulation
        sampling = simulation.field_angstrom / simulation.field_pixels
        needed = self.recipe.training.patch_pixels * self.recipe.network.sampling_angstrom + 2 * MARGIN_ANGSTROM + 1.5
        if self.recipe.series is not None:
            needed += 4 * LARGEST_DISPLACEMENT_ANGSTROM
        side = min(simulation.field_pixels, next_fast_len(math.ceil(needed / sampling)))
        if rng.random() < self.recipe.training.empty_share:
            return vacuum(side, sampling, simulation.voltage_kv)
        row, column = rng.integers(0, simulation.field_pixels - side + 1, 2)
        return self.store.read(int(rng.integers(len(self.store))), (int(row), int(column), side))

    def _counts(self, exit_wave: ExitWave) -> NDArray[np.int16]:
        """Atoms of each site as far as the network counts them: of metal, and up to its deepest column."""
        deepest = self.recipe.network.deepest_column
        counted = np.array([name != SUPPORT for name in exit_wave.species], bool)
        return np.where(counted, np.minimum(exit_wave.atom_counts, deepest), 0).astype(np.int16)

    def _classes(self, exit_wave: ExitWave) -> NDArray[np.int64]:
        names = self.recipe.network.classes
        # A model that tells no element calls each of them metal.
        return np.array(
            [names.index(name) if name in names else names.index("metal") for name in exit_wave.species], int
        )


def _crop(
    image: NDArray[np.float32], positions: NDArray[np.float64], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    row, column = (int(rng.integers(0, extent - side + 1)) for extent in image.shape[1:])
    return image[:, row : row + side, column : column + side], positions - (column, row)


def _turn(
    image: NDArray[np.float32], positions: NDArray[np.float64], symmetry: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Apply one of the eight symmetries of the square."""
    last = image.shape[1] - 1
    if symmetry & 1:
        image, positions = image[:, :, ::-1], np.stack([last - positions[:, 0], positions[:, 1]], axis=1)
    if symmetry & 2:
        image, positions = image[:, ::-1], np.stack([positions[:, 0], last - positions[:, 1]], axis=1)
    if symmetry & 4:
        image, positions = image.transpose(0, 2, 1), positions[:, ::-1]
    return np.ascontiguousarray(image), positions


def _turned(vectors: NDArray[np.float32], symmetry: int) -> NDArray[np.float32]:
    """Shape (n, 2): what vectors become under a symmetry of the square, see `_turn`."""
    turned = vectors * np.array([-1 if symmetry & 1 else 1, -1 if symmetry & 2 else 1], np.float32)
    return turned[:, ::-1] if symmetry & 4 else turned


@dataclass(frozen=True)
class Sites:
    """What stands in an input.

    Attributes:
        positions: Shape (sites, 2), x and y in input pixels.
        classes: Shape (sites,), index of each site's class.
        counts: Shape (sites,), atoms, or 0 where they are not counted.
        ignored: Shape (sites,), true where no answer is right or wrong.
        smears: Shape (sites, 2), along x and y in Å, or NaN.
    """

    positions: NDArray[np.float64]
    classes: NDArray[np.int64]
    counts: NDArray[np.int16]
    ignored: NDArray[np.bool_]
    smears: NDArray[np.float32]


def targets(sites: Sites, cells: int, class_count: int) -> tuple[NDArray[Any], ...]:
    """What the network should answer; see `Batch`.

    A site's unit of probability is shared between the four cells around it in proportion to nearness, so that the
    answer moves smoothly when a site crosses a cell's border.
    """
    cell_positions = (sites.positions - (STRIDE - 1) / 2) / STRIDE
    shares = np.zeros((1 + class_count, cells, cells), np.float32)
    weights = np.ones((cells, cells), np.float32)
    near = np.zeros((cells, cells), bool)
    offsets = np.zeros((2, cells, cells), np.float32)
    atoms = np.zeros((cells, cells), np.int64)
    smears = np.full((2, cells, cells), np.nan, np.float32)

    def cells_around(
        points: NDArray[np.float64], reach: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        steps = np.arange(-reach, reach + 1)
        dy, dx = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
        centre = np.round(points).astype(int)
        columns, rows = centre[:, :1] + dx, centre[:, 1:] + dy
        site = np.broadcast_to(np.arange(len(points))[:, None], rows.shape)
        inside = (rows >= 0) & (rows < cells) & (columns >= 0) & (columns < cells)
        return rows[inside], columns[inside], site[inside]

    tilted = np.isfinite(sites.smears).all(axis=1)
    rows, columns, site = cells_around(cell_positions[tilted], LABELLED_REACH_CELLS)
    smears[:, rows, columns] = sites.smears[tilted][site].T
    rows, columns, _ = cells_around(cell_positions[sites.ignored], IGNORED_RADIUS_CELLS)
    weights[rows, columns] = 0
    labelled, labelled_classes = cell_positions[~sites.ignored], sites.classes[~sites.ignored]
    rows, columns, site = cells_around(labelled, LABELLED_REACH_CELLS)
    weights[rows, columns] = 1
    distance = labelled[site] - np.stack([columns, rows], axis=1)
    share = np.clip(1 - np.abs(distance), 0, None).prod(axis=1)
    np.add.at(shares, (labelled_classes[site] + 1, rows, columns), share)
    length = np.hypot(*distance.T)
    # Of several sites near a cell the nearest decides: written last, it stays.
    order = np.argsort(-length)
    rows, columns = rows[order], columns[order]
    offsets[:, rows, columns] = distance[order].T
    near[rows, columns] = True
    atoms[rows, columns] = sites.counts[~sites.ignored][site[order]]
    occupied = shares[1:].sum(axis=0)
    shares[1:] /= np.maximum(occupied, 1)
    shares[0] = 1 - np.minimum(occupied, 1)
    return shares, weights, offsets, near, atoms, smears
