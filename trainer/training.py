"""Training, resumable at any checkpoint."""

import json
import math
import os
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from daemon.recognition.backends.openvino import computes_in_bf16
from daemon.recognition.peaks import LOG_SIGMA_RANGE
from daemon.recognition.series_input import input_channels
from trainer.batches import Batch, Batches
from trainer.network import SiteNetwork
from trainer.recipe import Recipe, RecipeError, TrainingRecipe
from trainer.simulation import WaveStore
from trainer.triplets import FRAMES

CHECKPOINT_EVERY_SECONDS = 120.0
CURVE = "curve.jsonl"
WARM_UP_STEPS = 200

FEWEST_SITES = 10.0
"""A frame, on average: batches of nearly empty frames count as if they held this many, not as much more than others."""
AVERAGE_DECAY = 0.999
"""The exported weights are a running average over about 1 / (1 - decay) steps."""

GEOMETRY_WEIGHT = 0.05
"""Of the positions' likelihood against that of the occupancy; both are per site."""

COUNT_WEIGHT = 1.0
"""Of the atoms in a column against its occupancy; both are per site."""

SMEAR_WEIGHT = 2.0
"""Of an Å by which the smear of a column is wrong."""


@dataclass
class Losses:
    """What is minimised, each per site and so comparable between batches."""

    occupancy: Tensor
    geometry: Tensor
    count: Tensor
    smear: Tensor

    @property
    def total(self) -> Tensor:
        """The sum that is differentiated."""
        counted = COUNT_WEIGHT * self.count + SMEAR_WEIGHT * self.smear
        return self.occupancy + GEOMETRY_WEIGHT * self.geometry + counted


def losses(heads: Tensor, batch: Batch, class_weights: Tensor | None = None, smear: Tensor | None = None) -> Losses:
    """Cross-entropy of the occupancy, and where there are sites that of their atoms and the positions' likelihood.

    These are proper scores: at their optimum the network's probabilities and sigmas are the true ones. That holds with
    weights too, since their logarithms are added to what the network says before it is compared with the weighted truth
    (as in Menon et al., Long-tail learning via logit adjustment, ICLR 2021).

    Args:
        heads: What the network says.
        batch: What it should say.
        class_weights: Shape (1 + classes,), how many times nothing and each class count; once each by default.
        smear: What it says of tilt, if it is asked; see `SiteNetwork.heads_and_smear`.
    """
    kinds = batch.shares.shape[1]
    weights = torch.ones(kinds, device=heads.device) if class_weights is None else class_weights
    sites = batch.shares[:, 1:].sum().clamp(min=FEWEST_SITES * len(heads))
    log_shares = torch.log_softmax(heads[:, :kinds] + weights.log()[:, None, None], dim=1)
    by_class = batch.shares * weights[:, None, None]
    occupancy = -(by_class * log_shares).sum(dim=1).mul(batch.weights).sum() / sites
    log_sigma = heads[:, -1].clamp(*LOG_SIGMA_RANGE)
    squared = (heads[:, -3:-1] - batch.offsets).square().sum(dim=1)
    likelihood = squared * torch.exp(-2 * log_sigma) / 2 + 2 * log_sigma
    near = (batch.near & (batch.weights > 0)).float()
    geometry = (likelihood * near).sum() / near.sum().clamp(min=1)
    return Losses(occupancy, geometry, _count_loss(heads[:, kinds:-3], batch), _smear_loss(smear, batch))


def _count_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the number of atoms, where a counted column shares in a cell's occupancy."""
    if logits.shape[1] == 0:
        return logits.new_zeros(())
    shares = (1 - batch.shares[:, 0]) * batch.weights * (batch.atoms > 0)
    entropy = nn.functional.cross_entropy(logits, (batch.atoms - 1).clamp(min=0), reduction="none")
    return (entropy * shares).sum() / shares.sum().clamp(min=1)


def smear_told(smears: Tensor) -> Tensor:
    """What a network says of smears along x and y: their length, and that times cosine and sine of twice their angle.

    Shape (batch, 2, ...) to (batch, 3, ...), in Å.

    A column that leans to one side looks nearly as one that leans to the other. Asked for the side, a network learned
    to say 0, and nothing of tilt.
    """
    x, y = smears.unbind(dim=1)
    length = torch.hypot(x, y)
    divisor = length.clamp(min=1e-6)
    return torch.stack([length, (x.square() - y.square()) / divisor, 2 * x * y / divisor], dim=1)


def _smear_loss(smear: Tensor | None, batch: Batch) -> Tensor:
    """By how many Å the smear of columns is wrong, on average over the cells where there is one."""
    if smear is None:
        return batch.smears.new_zeros(())
    true = smear_told(batch.smears[:, :, ::2, ::2])  # one in two cells along each axis is at the coarser level
    is_told = true.isfinite()
    wrong = torch.where(is_told, smear - true.nan_to_num(), 0.0).abs()
    return wrong.sum() / is_told.sum().clamp(min=1)


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """A linear rise over the first steps, then half a cosine down to nearly nothing at the last."""
    rise = min(WARM_UP_STEPS, recipe.steps / 10)
    if step < rise:
        return recipe.learning_rate * (step + 1) / (rise + 1)
    return recipe.learning_rate * (0.001 + 0.999 * (1 + math.cos(math.pi * (step - rise) / (recipe.steps - rise))) / 2)


def _channels(recipe: Recipe) -> int:
    return 1 if recipe.series is None else input_channels(recipe.series.told_defocus)


def _hidden_channels(recipe: Recipe) -> list[int]:
    """What a network does not see that is to show what one frame of three is worth."""
    if recipe.series is None or not recipe.series.middle_alone:
        return []
    return [channel for channel in range(_channels(recipe)) if channel % FRAMES != FRAMES // 2]


class Training:
    """A network on its way, with everything needed to go on from here."""

    def __init__(self, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        shape = recipe.network
        self.network = SiteNetwork(
            _channels(recipe),
            len(shape.classes),
            shape.widths,
            shape.depths,
            deepest_column=shape.deepest_column,
            hidden=_hidden_channels(recipe),
            learns_smear=shape.learns_smear,
            contrasts=0 if recipe.series is None else FRAMES,
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
        self.average = deepcopy(self.network).eval()
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        kept = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 1e-2}, {"params": kept, "weight_decay": 0.0}],
            lr=recipe.training.learning_rate,
        )
        self.computes_in_bf16 = self.device.type == "cuda" or computes_in_bf16()
        weights = [1.0, *(recipe.training.class_weights.get(name, 1.0) for name in shape.classes)]
        self.class_weights = torch.tensor(weights, device=self.device)
        self.step = 0
        self.seconds = 0.0

    def start_from(self, network: SiteNetwork) -> None:
        """Begin with another network's weights instead of random ones."""
        self.network.load_state_dict(network.state_dict())
        self.average.load_state_dict(network.state_dict())

    def learn(self, batch: Batch) -> Losses:
        """Take one step."""
        self.network.train()
        batch = batch.to(self.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.computes_in_bf16):
            heads, smear = self.network.heads_and_smear(images)
        result = losses(heads.float(), batch, self.class_weights, None if smear is None else smear.float())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.training, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        result.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return result

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(AVERAGE_DECAY, self.step / (self.step + 10))
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def save(self, path: Path) -> None:
        """Write a checkpoint; an interruption leaves the last one whole."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "recipe": _identity(self.recipe),
                "step": self.step,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            RecipeError: It was written for another recipe. More or fewer steps are no other recipe.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != _identity(self.recipe):
            raise RecipeError(f"{path} belongs to another recipe; delete it, or name another folder with --work.")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def _identity(recipe: Recipe) -> str:
    """All of a recipe that decides what a step does."""
    decisive = {"seed", "specimen", "simulation", "microscope", "series", "network", "training"}
    return recipe.model_dump_json(include=dict.fromkeys(decisive, True), exclude={"training": {"steps"}})


def train(recipe: Recipe, store: WaveStore, folder: Path, start: SiteNetwork | None = None) -> Training:
    """Train a recipe's network to its last step, from `folder`'s checkpoint if there is one, else from `start`.

    `folder/curve.jsonl` gets a line every 100 steps: step, losses, seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    training = Training(recipe)
    # Taking the frames of a focal series costs three times as much as learning from them, so nearly every core takes
    # frames; processes that are ahead wait. The network's threads wait for each other at every layer: few are faster.
    cores = os.cpu_count() or 2
    loader_processes = max(1, cores - 1 if training.device.type == "cuda" else math.ceil(0.75 * cores))
    torch.set_num_threads(max(1, cores // 2))
    if checkpoint.exists():
        training.load(checkpoint)
    elif start is not None:
        training.start_from(start)
    _forget_steps_after(training.step, folder / CURVE)
    started, saved = time.monotonic() - training.seconds, time.monotonic()
    sums, count = torch.zeros(4, device=training.device), 0
    for batch in tqdm(
        _batches(training, store, loader_processes),
        "training",
        recipe.training.steps,
        initial=training.step,
        unit="step",
    ):
        result = training.learn(batch)
        sums += torch.stack([result.occupancy, result.geometry, result.count, result.smear]).detach()
        count += 1
        training.seconds = time.monotonic() - started
        if training.step % 100 == 0:
            _log(folder, training, *(sums / count).tolist())
            sums, count = torch.zeros_like(sums), 0
        if time.monotonic() - saved > CHECKPOINT_EVERY_SECONDS:
            training.save(checkpoint)
            saved = time.monotonic()
    training.save(checkpoint)
    return training


def _batches(training: Training, store: WaveStore, loader_processes: int) -> Iterator[Batch]:
    batches = Batches(training.recipe, store, training.recipe.seed)
    loader: DataLoader[Batch] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(training.step, training.recipe.training.steps),
        num_workers=loader_processes,
        multiprocessing_context="spawn",
        prefetch_factor=4,
    )
    return iter(loader)


def _log(folder: Path, training: Training, occupancy: float, geometry: float, count: float, smear: float) -> None:
    line = {
        "step": training.step,
        "occupancy": occupancy,
        "geometry": geometry,
        "count": count,
        "smear": smear,
        "seconds": training.seconds,
    }
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _forget_steps_after(step: int, curve: Path) -> None:
    """Drop what was logged after the checkpoint: those steps are taken again."""
    if curve.exists():
        lines = curve.read_text(encoding="utf-8").splitlines()
        curve.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step), encoding="utf-8")
