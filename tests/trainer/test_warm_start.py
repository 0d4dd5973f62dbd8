import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from daemon.recognition.package import ModelPackage
from tests.trainer.conftest import HRTEMD_TRAIN
from trainer.batches import Batches
from trainer.rebuild import Workspace
from trainer.recipe import Recipe
from trainer.simulation import WaveStore
from trainer.training import Training

GRAPHENE = Path(__file__).parents[2] / "trainer" / "recipes" / "graphene.toml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.load(GRAPHENE).smoke()


@pytest.mark.parametrize("learns_smear", [False, True])
@torch.no_grad()
def test_a_package_gives_back_the_network_it_was_made_of(smoke: Path, recipe: Recipe, *, learns_smear: bool) -> None:
    trained = Training(recipe)
    trained.load(smoke / "training" / "checkpoint.pt")
    images = Batches(recipe, WaveStore.open(smoke / "train", recipe.simulation.shards), seed=5)[0].images

    shape = recipe.network.model_copy(update={"learns_smear": learns_smear})
    workspace = Workspace(recipe.model_copy(update={"network": shape}), smoke)
    unfolded = workspace.network_of(ModelPackage.load(smoke / "package" / "graphene"))

    expected = trained.average.eval()(images)
    assert torch.allclose(unfolded.eval()(images), expected, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
def test_its_normalisation_knows_what_reaches_it(smoke: Path, recipe: Recipe) -> None:
    # In training each batch is normalised by its own statistics: a network that starts from others forgets first.
    images = Batches(recipe, WaveStore.open(smoke / "train", recipe.simulation.shards), seed=5)[0].images
    unfolded = Workspace(recipe, smoke).network_of(ModelPackage.load(smoke / "package" / "graphene"))

    settled, learning = unfolded.eval()(images), unfolded.train()(images)

    assert float((settled - learning).abs().mean()) < 0.3 * float(settled.std())


def _train_on(package: Path, smoke: Path, work: Path) -> subprocess.CompletedProcess[str]:
    """Learn on with another seed: random weights would be others."""
    shutil.copytree(smoke / "train", work / "train")
    recipe = work / "graphene.toml"
    recipe.write_text(GRAPHENE.read_text().replace(f"seed = {Recipe.load(GRAPHENE).seed}", "seed = 7"))
    command = [str(HRTEMD_TRAIN), "train", str(recipe), "--smoke", "--work", str(work), "--start", str(package)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def _first_filters(checkpoint: Path) -> torch.Tensor:
    filters = torch.load(checkpoint, weights_only=True)["network"]["stem.0.weight"].flatten(1)
    return torch.nn.functional.normalize(filters, dim=1)


def test_the_command_learns_on_from_a_package(smoke: Path, tmp_path: Path) -> None:
    finished = _train_on(smoke / "package" / "graphene", smoke, tmp_path)

    assert finished.returncode == 0, finished.stderr
    before = _first_filters(smoke / "training" / "checkpoint.pt")
    after = _first_filters(tmp_path / "training" / "checkpoint.pt")
    likeness = float((before * after).sum(dim=1).mean())
    assert 0.5 < likeness < 0.9999


def test_a_package_of_another_shape_is_refused(smoke: Path, tmp_path: Path) -> None:
    shipped = GRAPHENE.parents[2] / "daemon" / "models" / "mos2-triplet"

    refused = _train_on(shipped, smoke, tmp_path)

    assert refused.returncode == 1
    assert "another shape" in refused.stderr
    assert str(shipped) in refused.stderr
