import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.backends import ENGINES, open_session
from daemon.recognition.package import ModelPackage
from daemon.recognition.recogniser import Recogniser
from trainer.batches import Batch, Batches
from trainer.export import export_network
from trainer.network import SiteNetwork
from trainer.rebuild import Workspace
from trainer.recipe import Recipe, RecipeError
from trainer.simulation import WaveStore, simulate_store
from trainer.training import Training, losses, smear_told

GRAPHENE = Path(__file__).parents[2] / "trainer" / "recipes" / "graphene.toml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.load(GRAPHENE).smoke()


def test_a_rebuild_leaves_a_package_the_daemon_runs(smoke: Path) -> None:
    package = ModelPackage.load(smoke / "package" / "graphene")
    noise = np.random.default_rng(0).poisson(50, (128, 128)).astype(np.uint16)
    frame = Frame(noise, "id", "noise", Calibration(0.2, CalibrationSource.OVERRIDE))

    recognition = Recogniser(package).recognise(frame)

    assert recognition.model == "graphene"
    assert recognition.model_sha256 == package.manifest.onnx_sha256


def test_a_rebuild_leaves_a_report(smoke: Path) -> None:
    report = smoke / "package" / "graphene" / "report"

    numbers = json.loads((report / "numbers.json").read_text())

    assert set(numbers["test_sets"]) == {"reference", "range", "nothing"}
    assert list(report.glob("*.png"))
    assert "hrtemd-train rebuild graphene" in (report.parent / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(64, 64), (160, 96)])
def test_the_exported_package_and_the_torch_network_agree(
    smoke: Path, recipe: Recipe, engine: str, shape: tuple[int, int]
) -> None:
    training = Training(recipe)
    training.load(smoke / "training" / "checkpoint.pt")
    images = np.random.default_rng(1).normal(size=(1, 1, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = training.average.eval()(torch.from_numpy(images)).numpy()

    session = open_session(smoke / "package" / "graphene" / "model.onnx", engine)
    heads = session.run(images)

    # bf16 keeps eight bits: two or three digits.
    tolerance = 0.05 if "bf16" in session.description else 1e-4
    assert heads.shape == expected.shape
    assert np.abs(heads - expected).max() < tolerance * np.abs(expected).max()


def test_an_exported_network_with_random_weights_agrees_too(tmp_path: Path) -> None:
    # Weights after a short training are all small and alike; random ones are not.
    torch.manual_seed(3)
    network = SiteNetwork(1, 2, (8, 12, 16, 16), (1, 2, 1, 1)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(network.logits.weight)
    images = np.random.default_rng(1).normal(size=(1, 1, 80, 112)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()

    export_network(network, tmp_path / "model.onnx")

    heads = open_session(tmp_path / "model.onnx", "onnxruntime").run(images)
    np.testing.assert_allclose(heads, expected, atol=1e-3)


def test_no_cell_sees_farther_than_the_stated_reach() -> None:
    torch.manual_seed(0)
    network = SiteNetwork(1, 1, (4, 4, 4, 4), (1, 2, 2, 1)).eval()
    torch.nn.init.normal_(network.logits.weight)
    side, centre = 512, 128
    images = torch.randn(1, 1, side, side, requires_grad=True)

    network(images)[0, :, centre, centre].sum().backward()

    assert images.grad is not None
    seen = images.grad[0, 0].abs().nonzero() - 2 * centre
    assert 20 < seen.abs().max() <= network.receptive_field_pixels


def test_batches_depend_on_seed_and_step_only(smoke: Path, recipe: Recipe) -> None:
    store = WaveStore.open(smoke / "train", 2)
    first, again, other = Batches(recipe, store, 5)[7], Batches(recipe, store, 5)[7], Batches(recipe, store, 6)[7]

    for field in fields(Batch):
        assert torch.allclose(getattr(first, field.name), getattr(again, field.name), 0, 0, equal_nan=True)
    assert not torch.equal(first.images, other.images)


def test_training_goes_on_where_it_stopped(smoke: Path, recipe: Recipe, tmp_path: Path) -> None:
    batches = Batches(recipe, WaveStore.open(smoke / "train", 2), 1)
    straight, interrupted, resumed = Training(recipe), Training(recipe), Training(recipe)

    for step in range(4):
        straight.learn(batches[step])
    for step in range(2):
        interrupted.learn(batches[step])
    interrupted.save(tmp_path / "checkpoint.pt")
    resumed.load(tmp_path / "checkpoint.pt")
    for step in range(2, 4):
        resumed.learn(batches[step])

    assert resumed.step == 4
    for name, value in straight.average.state_dict().items():
        torch.testing.assert_close(resumed.average.state_dict()[name], value)


def test_training_learns(smoke: Path, recipe: Recipe) -> None:
    batch = Batches(recipe, WaveStore.open(smoke / "train", 2), 1)[0]
    training = Training(recipe)

    before = float(training.learn(batch).total.detach())
    for _ in range(25):
        result = training.learn(batch)

    assert float(result.total.detach()) < 0.9 * before


def test_the_losses_are_lowest_for_the_truth(smoke: Path, recipe: Recipe) -> None:
    batch = Batches(recipe, WaveStore.open(smoke / "train", 2), 1)[3]
    log_sigma = torch.full((len(batch.images), 1, *batch.near.shape[1:]), -2.0)
    truth = torch.cat([torch.log(batch.shares.clamp(min=1e-6)), batch.offsets, log_sigma], dim=1)
    shifted = torch.cat([truth[:, :2].roll(2, dims=-1), batch.offsets + 0.5, log_sigma], dim=1)

    assert losses(truth, batch).occupancy < losses(shifted, batch).occupancy
    assert losses(truth, batch).geometry < losses(shifted, batch).geometry


def test_smear_is_learned_where_columns_tell_it(smoke: Path, recipe: Recipe) -> None:
    batch = Batches(recipe, WaveStore.open(smoke / "train", 2), 1)[3]
    cells = batch.near.shape[1]
    smears = torch.full((len(batch.images), 2, cells, cells), torch.nan)
    smears[:, 0, 4:12, 4:12], smears[:, 1, 4:12, 4:12] = 0.4, -0.2
    batch = replace(batch, smears=smears)
    heads = torch.zeros(len(batch.images), batch.shares.shape[1] + 3, cells, cells)
    said = torch.randn(len(batch.images), 3, cells // 2, cells // 2)
    said[:, :, 2:6, 2:6] = smear_told(torch.tensor([[-0.4, 0.2]]))[0, :, None, None] + 0.1

    assert torch.isclose(losses(heads, batch, smear=said).smear, torch.tensor(0.1)), "to either side it is the same"
    assert losses(heads, batch).smear == 0

    shape = recipe.network.model_copy(update={"learns_smear": True})
    training = Training(recipe.model_copy(update={"network": shape}))
    before = float(training.learn(batch).smear.detach())
    for _ in range(25):
        result = training.learn(batch)
    assert float(result.smear.detach()) < 0.7 * before


def test_rare_classes_may_count_more_and_the_truth_stays_the_best_answer(smoke: Path, recipe: Recipe) -> None:
    batch = Batches(recipe, WaveStore.open(smoke / "train", 2), 1)[3]
    kinds = batch.shares.shape[1]
    unsure = 0.9 * batch.shares + 0.1 / kinds  # no share is 0, so that the truth can be said in logits
    batch = replace(batch, shares=unsure)
    weights = torch.linspace(1.0, 9.0, kinds)

    def slope(logits: torch.Tensor) -> float:
        heads = torch.cat([logits, batch.offsets, torch.zeros_like(batch.offsets[:, :1])], dim=1).requires_grad_()
        losses(heads, batch, weights).occupancy.backward()
        assert heads.grad is not None
        return float(heads.grad[:, :kinds].abs().max())

    assert slope(unsure.log()) < 1e-6 < 1e-3 < slope(unsure.log().roll(1, dims=1))


def test_an_interrupted_simulation_is_finished_as_if_nothing_had_happened(recipe: Recipe, tmp_path: Path) -> None:
    simulation = recipe.simulation.model_copy(
        update={"specimens_per_shard": 1, "field_angstrom": 20.0, "field_pixels": 100}
    )
    simulate_store(simulation, 3, tmp_path / "straight", workers=1)
    simulate_store(simulation, 3, tmp_path / "broken", workers=1)
    (tmp_path / "broken" / "shard-00001.h5").unlink()
    (tmp_path / "broken" / "shard-00001.partial").write_bytes(b"half a shard")

    simulate_store(simulation, 3, tmp_path / "broken", workers=1)

    stores = [WaveStore.open(tmp_path / name, simulation.shards) for name in ("straight", "broken")]
    for straight, broken in zip(*stores, strict=True):
        # FFTW's plans differ from run to run, and with them the last digit that half precision keeps.
        np.testing.assert_allclose(straight.wave, broken.wave, atol=2e-3)
        np.testing.assert_array_equal(straight.positions_angstrom, broken.positions_angstrom)


def test_waves_of_two_recipes_never_mix(recipe: Recipe, tmp_path: Path) -> None:
    tiny = {"specimens_per_shard": 1, "shards": 1, "field_angstrom": 20.0, "field_pixels": 100}
    simulate_store(recipe.simulation.model_copy(update=tiny), 3, tmp_path, workers=1)

    with pytest.raises(RecipeError, match="field_pixels"):
        simulate_store(recipe.simulation.model_copy(update={**tiny, "field_pixels": 120}), 3, tmp_path, workers=1)
    with pytest.raises(RecipeError, match="seed"):
        simulate_store(recipe.simulation.model_copy(update=tiny), 4, tmp_path, workers=1)


def test_a_missing_shard_is_named(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lacks 2 of 2 shards"):
        WaveStore.open(tmp_path, 2)


def test_a_checkpoint_of_another_recipe_is_refused(smoke: Path, recipe: Recipe) -> None:
    other = recipe.model_copy(update={"seed": 1})
    longer = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 99})})

    with pytest.raises(RecipeError, match="another recipe"):
        Training(other).load(smoke / "training" / "checkpoint.pt")
    Training(longer).load(smoke / "training" / "checkpoint.pt")


def test_an_unfinished_training_is_not_exported(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not finished"):
        Workspace(recipe, tmp_path).export()


def test_a_window_of_a_wave_is_that_part_of_it(smoke: Path) -> None:
    store = WaveStore.open(smoke / "train", 2)
    whole, part = store.read(0), store.read(0, (30, 50, 64))

    np.testing.assert_array_equal(part.wave, whole.wave[30:94, 50:114])
    corner = np.array([50, 30]) * whole.sampling_angstrom
    np.testing.assert_allclose(part.positions_angstrom, whole.positions_angstrom - corner, atol=1e-4)


@pytest.mark.parametrize(
    ("line", "replacement", "complaint"),
    [
        ('specimen = "graphene"', 'specimen = "granite"', "specimen"),
        ("steps = ", "stepps = ", "stepps"),
        ("field_angstrom = 64.0", "field_angstrom = -1", "field_angstrom"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, line: str, replacement: str, complaint: str) -> None:
    text = GRAPHENE.read_text()
    assert line in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(line, replacement, 1))

    with pytest.raises(RecipeError, match=complaint):
        Recipe.load(path)
