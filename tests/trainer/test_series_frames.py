"""Focal series in training: what is drawn, what the network is shown of it, and what is labelled."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from daemon.frames import FocalSeries
from trainer.batches import Batches
from trainer.camera import Exposure
from trainer.heldout import held_out_simulation, range_frames, reference_frames
from trainer.network import SiteNetwork
from trainer.optics import Optics
from trainer.rebuild import Workspace
from trainer.recipe import Recipe
from trainer.simulation import ExitWave, WaveStore, multislice, simulate, simulate_store
from trainer.specimens.hopping import hopped
from trainer.specimens.specimen import Specimen
from trainer.training import Training, train
from trainer.triplets import FRAMES, defocused, draw_lenses, take_triplet

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
LENS = Optics(80, c10=90, c30=-1e5, focal_spread_angstrom=30)


@pytest.fixture(scope="module", params=["mos2-triplet", "nanoparticle-triplet"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    recipe = Recipe.load(RECIPES / f"{request.param}.toml").smoke()
    small = {"shards": 1, "specimens_per_shard": 2, "field_angstrom": 60.0, "field_pixels": 400}
    return recipe.model_copy(update={"simulation": recipe.simulation.model_copy(update=small)})


@pytest.fixture(scope="module")
def store(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> WaveStore:
    folder = tmp_path_factory.mktemp(recipe.name)
    simulate_store(recipe.simulation, recipe.seed, folder, workers=1)
    return WaveStore.open(folder, 1)


def two_atoms(height_angstrom: float = 3.0, cell_angstrom: float = 6.0) -> Specimen:
    positions = [[7.0, 8.0, height_angstrom], [10.0, 9.0, height_angstrom]]
    atoms = Atoms(["Mo", "S"], positions=positions, cell=[16, 16, cell_angstrom])
    return Specimen(atoms, np.array([0, 1], np.int32), ("Mo", "S"), np.zeros(2, bool))


def still(specimen: Specimen, monkeypatch: pytest.MonkeyPatch, moments: int = 1) -> ExitWave:
    monkeypatch.setattr("trainer.simulation.THERMAL_RMS_ANGSTROM", {"Mo": 0.0, "S": 0.0})
    return simulate(specimen, 128, 80.0, np.random.default_rng(0), moments)


def test_defocus_counts_from_the_sites_not_from_what_lies_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    exposure = Exposure(0.125, 1e9)
    thin, deep = (still(two_atoms(3.0, height), monkeypatch) for height in (6.0, 46.0))

    frames = [
        take_triplet(
            wave, defocused(LENS, 40.0), exposure, np.zeros((3, 2)), np.arange(3), np.random.default_rng(0), 1.0
        )
        for wave in (thin, deep)
    ]

    assert deep.depth_angstrom - thin.depth_angstrom == pytest.approx(40)
    for one, other in zip(frames[0].shots, frames[1].shots, strict=True):
        relative = one.pixels / one.pixels.mean(), other.pixels / other.pixels.mean()
        assert relative[0].std() > 0.005
        assert np.abs(relative[0] - relative[1]).max() < 0.1 * relative[0].std()


def test_the_frames_of_a_triplet_are_in_order_of_defocus_and_refer_to_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wave = still(two_atoms(), monkeypatch)
    displacement = np.array([[0.7, -0.4], [0.0, 0.0], [-0.6, 0.2]])
    lenses = defocused(LENS, 40.0)

    triplet = take_triplet(
        wave, lenses, Exposure(0.125, 1e4), displacement, np.array([2, 0, 1]), np.random.default_rng(0), 1.0
    )

    assert lenses.nominal_defocus_angstrom == (-130.0, -90.0, -50.0)
    assert [optics.c10 for optics in lenses.optics] == [130.0, 90.0, 50.0]
    assert triplet.first == 1
    first = triplet.reference
    np.testing.assert_allclose((first.positions_px + 8) * first.pixel_size_angstrom, wave.positions_angstrom, atol=1e-4)
    for shot, moved in zip(triplet.shots, displacement, strict=True):
        shift = (shot.positions_px - first.positions_px) * first.pixel_size_angstrom
        np.testing.assert_allclose(shift, np.tile(moved, (2, 1)), atol=1e-4)


def test_each_frame_shows_the_moment_it_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = still(two_atoms(), monkeypatch)
    nothing = np.ones_like(wave.wave)
    gone = ExitWave(**{**vars(wave), "later_waves": (nothing,)})

    triplet = take_triplet(
        gone,
        defocused(LENS, 0.0),
        Exposure(0.125, 1e9),
        np.zeros((3, 2)),
        np.array([1, 2, 0]),
        np.random.default_rng(0),
        1.0,
    )

    contrast = [shot.pixels.std() / shot.pixels.mean() for shot in triplet.shots]
    assert contrast[2] > 10 * contrast[0]
    assert contrast[2] > 10 * contrast[1]


def test_drawn_lenses_are_asked_for_within_the_stated_steps(recipe: Recipe) -> None:
    assert recipe.series is not None
    rng = np.random.default_rng(0)
    misses = []
    for _ in range(200):
        lenses = draw_lenses(recipe.microscope, recipe.series, recipe.simulation.voltage_kv, rng)
        low, middle, high = lenses.nominal_defocus_angstrom
        step_low, step_high = recipe.series.defocus_step_angstrom
        assert step_low <= middle - low <= step_high
        assert high - middle == pytest.approx(middle - low)
        misses += [
            -optics.c10 - asked for optics, asked in zip(lenses.optics, lenses.nominal_defocus_angstrom, strict=True)
        ]
    expected = np.hypot(recipe.series.zero_error_angstrom, recipe.series.step_error_angstrom)
    assert np.std(misses) == pytest.approx(expected, rel=0.2)


def test_an_atom_that_hops_leaves_sites_nobody_is_asked_about() -> None:
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(60):
        before = two_atoms()
        after = hopped(before, rng)
        moved = np.hypot(*(after.atoms.positions - before.atoms.positions)[:, :2].T) > 0
        assert after.site_ignored[after.site_of_atom[moved]].all()
        assert not before.site_ignored.any()
        changed += bool(moved.any())
    assert 0 < changed < 30


def test_batches_of_series_hold_what_the_network_takes(recipe: Recipe, store: WaveStore) -> None:
    batches = Batches(recipe, store, 5)
    batch, again = batches[3], Batches(recipe, store, 5)[3]
    training = Training(recipe)

    result = training.learn(batch)

    assert torch.equal(batch.images, again.images)
    assert batch.images.shape[1] == 9
    assert torch.isfinite(batch.images).all()
    assert torch.isfinite(result.total)
    assert (float(result.count.detach()) > 0) == bool(recipe.network.deepest_column and batch.atoms.any())


def test_the_network_of_one_frame_starts_from_that_of_all_three(
    recipe: Recipe, store: WaveStore, tmp_path: Path
) -> None:
    alone = Workspace(recipe, tmp_path).middle_alone
    assert alone is not None
    hardly = alone.recipe.training.model_copy(update={"steps": 1, "learning_rate": 1e-12})
    start = Training(recipe).network
    torch.nn.init.normal_(start.logits.weight)

    trained = train(alone.recipe.model_copy(update={"training": hardly}), store, tmp_path, start).network

    assert torch.allclose(trained.logits.weight, start.logits.weight, atol=1e-6)
    assert trained.shown is not None


def test_what_is_hidden_from_a_network_does_not_change_its_answer() -> None:
    torch.manual_seed(0)
    network = SiteNetwork(6, 2, (4, 4, 4, 4), (1, 1, 1, 1), hidden=(0, 2, 3, 5), contrasts=3).eval()
    torch.nn.init.normal_(network.logits.weight)
    images = torch.randn(1, 6, 64, 64)
    others, middle = images.clone(), images.clone()
    others[:, [0, 2, 3, 5]] = torch.randn(1, 4, 64, 64)
    middle[:, 1] = torch.randn(1, 64, 64)

    with torch.no_grad():
        assert torch.equal(network(images), network(others))
        assert not torch.equal(network(images), network(middle))


def test_a_network_for_series_sees_the_intensity_that_the_normalisation_took_away() -> None:
    torch.manual_seed(0)
    network = SiteNetwork(6, 1, (4, 4, 4, 4), (1, 1, 1, 1), contrasts=3).eval()
    intensity = 0.1 * torch.randn(1, 3, 64, 64)
    logarithm = torch.full_like(intensity, -1.0)
    seen = []
    network.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    with torch.no_grad():
        network(torch.cat([intensity / 0.1, logarithm], dim=1))

    assert torch.allclose(seen[0][:, 6:], intensity, atol=1e-6)


def gold_column() -> Specimen:
    heights = 2.0 + 2.88 * np.arange(6)
    atoms = Atoms("Au6", positions=[[8.0, 8.0, z] for z in heights], cell=[16, 16, 20])
    return Specimen(atoms, np.zeros(6, np.int32), ("Au",), np.zeros(1, bool))


def test_the_average_of_thermal_motion_does_not_scatter_from_frame_to_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.specimens.hopping.HOPPING_SHARE", 0.0)
    snapshot = simulate(gold_column(), 128, 300.0, np.random.default_rng(0), moments=2)
    averaged = simulate(gold_column(), 128, 300.0, np.random.default_rng(0), moments=2, thermal_motion="averaged")

    assert not np.array_equal(snapshot.at(0), snapshot.at(1))
    assert np.array_equal(averaged.at(0), averaged.at(1))
    assert averaged.atom_counts.tolist() == [6]


def test_the_average_of_thermal_motion_scatters_less_to_high_angles() -> None:
    atom = gold_column().atoms[:1]
    still, smeared = (multislice(atom, 128, 300.0, smearing_angstrom=rms) for rms in (None, np.full(1, 0.085)))
    frequency = np.fft.fftfreq(128, 16 / 128)
    wide = np.hypot(frequency[:, None], frequency[None, :])
    power = [np.abs(np.fft.fft2(wave)) ** 2 for wave in (still, smeared)]

    high, low = (wide > 1.5) & (wide < 2.5), (wide > 0) & (wide < 0.3)
    assert power[1][high].sum() < 0.7 * power[0][high].sum()
    assert power[1][low].sum() == pytest.approx(power[0][low].sum(), rel=0.1)


def test_an_atom_that_hops_is_seen_in_averages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.specimens.hopping.HOPPING_SHARE", 1.0)
    wave = simulate(gold_column(), 128, 300.0, np.random.default_rng(0), moments=2, thermal_motion="averaged")

    assert not np.array_equal(wave.at(0), wave.at(1))
    assert wave.ignored.tolist() == [True]


def test_held_out_series_are_labelled_where_the_first_frame_shows_them(recipe: Recipe, tmp_path: Path) -> None:
    simulate_store(held_out_simulation(recipe), 9, tmp_path, workers=1)
    store = WaveStore.open(tmp_path, 1)
    few = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"range_frames": 2})})

    labelled = [*reference_frames(few, store, 1), *range_frames(few, store, 7)]

    assert len(labelled) == 2 + 2
    for one in labelled:
        assert isinstance(one.subject, FocalSeries)
        assert one.drift_angstrom is not None
        assert not one.drift_angstrom[one.subject.first].any()
        assert 0 < np.hypot(*one.drift_angstrom.T).max() <= 4.0
        assert list(one.subject.defocus_angstrom) == sorted(one.subject.defocus_angstrom)
        assert len({frame.pixels.shape for frame in one.subject.frames}) == 1
        assert len(one.subject.frames) == FRAMES
        assert (one.atom_counts is not None) == bool(recipe.network.deepest_column)
