"""What a network for series gains from being told the defocus that was asked for.

    .venv/bin/python benchmarks/told_defocus.py RECIPE WORK [STEPS]

Two networks start from the trained one in WORK, as `hrtemd-train train RECIPE --work WORK` leaves it, and learn on for
STEPS steps at a low rate: one as before, one from which the planes of defocus are hidden. Both then answer the same
batches of held-out exit waves. Prints the losses a site of both, and how sure the difference is.
"""

import sys
from pathlib import Path

import torch

from trainer.batches import Batches
from trainer.network import SiteNetwork
from trainer.recipe import Recipe
from trainer.simulation import WaveStore
from trainer.training import Training, losses
from trainer.triplets import FRAMES

LEARNING_RATE = 3e-4
HELD_OUT_BATCHES = 60
HELD_OUT_SEED = 71


def main(recipe_path: str, work: str, steps: str = "600") -> None:
    """Train both, and compare them."""
    recipe = Recipe.load(Path(recipe_path))
    assert recipe.series is not None
    assert recipe.series.told_defocus
    trained = Training(recipe)
    trained.load(Path(work) / "training" / "checkpoint.pt")
    training = recipe.training.model_copy(update={"steps": int(steps), "learning_rate": LEARNING_RATE})
    short = recipe.model_copy(update={"training": training})
    waves = WaveStore.open(Path(work) / "train", recipe.simulation.shards)
    contestants = {name: Training(short) for name in ("told", "not told")}
    hidden = torch.ones(1, trained.network.channels, 1, 1)
    hidden[:, 2 * FRAMES :] = 0.0
    for name, contestant in contestants.items():
        contestant.start_from(trained.average)
        if name == "not told":
            for network in (contestant.network, contestant.average):
                del network.shown  # None, which no buffer can take the place of
                network.shown = torch.nn.Buffer(hidden, persistent=False)
    batches = Batches(short, waves, recipe.seed + 1)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for batch in loader:
        for contestant in contestants.values():
            contestant.learn(batch)
        if (step := contestants["told"].step) % 100 == 0:
            print(f"{step} steps", flush=True)

    held_out = Batches(short, WaveStore.open(Path(work) / "evaluation", recipe.evaluation.shards), HELD_OUT_SEED)
    answers = {name: _held_out_losses(contestant.average, held_out) for name, contestant in contestants.items()}
    for column, what in enumerate(("occupancy", "geometry", "count")):
        told, not_told = (answers[name][:, column] for name in ("told", "not told"))
        more = not_told - told
        error = float(more.std()) / len(more) ** 0.5
        print(f"{what}: told {told.mean():.4f}, not told {not_told.mean():.4f}: {more.mean():+.4f} ± {error:.4f}")


@torch.no_grad()
def _held_out_losses(network: SiteNetwork, batches: Batches) -> torch.Tensor:
    """Shape (batches, 3): occupancy, geometry and count."""
    found = []
    for index in range(HELD_OUT_BATCHES):
        batch = batches[index]
        result = losses(network(batch.images), batch)
        found.append(torch.stack([result.occupancy, result.geometry, result.count]))
    return torch.stack(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
