"""The four stages of a model, each resumable, each of which can be run alone."""

import math
from dataclasses import dataclass
from pathlib import Path

from daemon.recognition.package import ModelPackage
from daemon.recognition.recogniser import Recogniser
from trainer.batches import Batches
from trainer.calibration import fit_calibration
from trainer.card import write_card
from trainer.evaluation.reference_limits import reference_limits, triplet_limits
from trainer.evaluation.report import NOTHING, RANGE, REFERENCE, write_report
from trainer.evaluation.series_report import write_series_report
from trainer.export import export_network, write_manifest
from trainer.heldout import (
    calibration_frames,
    empty_frames,
    held_out_simulation,
    range_frames,
    reference_exposure,
    reference_frames,
    reference_lenses,
    reference_optics,
)
from trainer.network import SiteNetwork
from trainer.optics import Optics
from trainer.recipe import Recipe, RecipeError
from trainer.simulation import WaveStore, simulate_store
from trainer.training import Training, train
from trainer.triplets import Lenses
from trainer.warm_start import unfold

TEST_SEED = 1
CALIBRATION_SEED = 2
"""Added to the recipe's seed: specimens and frames of these never occur in training."""

MIDDLE_ALONE_DIVISOR = 6
"""The network shown one frame of three takes this fraction of the steps; what it starts from took all of them."""
MOST_MIDDLE_ALONE_STEPS = 3000
MEASURED_BATCHES = 20
"""From which the statistics of a network that is learned on from are taken."""


@dataclass(frozen=True)
class Workspace:
    """Where the stages of one recipe leave what the next one needs."""

    recipe: Recipe
    folder: Path
    waves: Path | None = None
    """Where the exit waves are, if not in the same folder."""

    @property
    def package_folder(self) -> Path:
        """Where the finished model package is written."""
        return self.folder / "package" / self.recipe.name

    @property
    def middle_alone(self) -> "Workspace | None":
        """That of the same network shown but the middle frame of each series: what a triplet is measured against.

        It starts from the network of the triplets, which reads that frame already, and learns to do without the others.
        """
        series, training = self.recipe.series, self.recipe.training
        if series is None or series.middle_alone:
            return None
        steps = min(math.ceil(training.steps / MIDDLE_ALONE_DIVISOR), MOST_MIDDLE_ALONE_STEPS)
        alone = self.recipe.model_copy(
            update={
                "series": series.model_copy(update={"middle_alone": True}),
                "training": training.model_copy(update={"steps": steps}),
            }
        )
        return Workspace(alone, self.folder / "middle_alone", self.folder)

    def simulate(self) -> None:
        """Simulate the exit waves for training, for calibration and for the test, whatever of them is missing."""
        held_out = held_out_simulation(self.recipe)
        simulate_store(held_out, self.recipe.seed + TEST_SEED, self.folder / "evaluation")
        simulate_store(held_out, self.recipe.seed + CALIBRATION_SEED, self.folder / "calibration")
        simulate_store(self.recipe.simulation, self.recipe.seed, self.folder / "train")

    def network_of(self, package: ModelPackage) -> SiteNetwork:
        """The network of a package of the same shape, to learn on from.

        Raises:
            RecipeError: Its network has another shape.
        """
        batches = Batches(self.recipe, self._store("train", self.recipe.simulation.shards), self.recipe.seed)
        network = Training(self.recipe).network.cpu()
        unfold(package, network, (batches[step].images for step in range(MEASURED_BATCHES)))
        return network

    def learn_on(self, package: ModelPackage) -> None:
        """Train as `train` does, from a package's network where there is no checkpoint yet."""
        self.train(None if self._checkpoint.exists() else self.network_of(package))

    def train(self, start: SiteNetwork | None = None) -> None:
        """Train to the recipe's last step, from the last checkpoint if there is one, else from `start`."""
        store = self._store("train", self.recipe.simulation.shards)
        trained = train(self.recipe, store, self._checkpoint.parent, start)
        if self.middle_alone is not None:
            self.middle_alone.train(trained.average)

    def export(self) -> ModelPackage:
        """Write the model package: first as trained, then calibrated on held-out frames seen through the daemon.

        Raises:
            RecipeError: Training is not finished.
        """
        if self.middle_alone is not None:
            self.middle_alone.export()
        training = Training(self.recipe)
        if self._checkpoint.exists():
            training.load(self._checkpoint)
        if training.step < self.recipe.training.steps:
            done = f"{training.step} of {self.recipe.training.steps} steps"
            raise RecipeError(f"Training is not finished ({done}); run `hrtemd-train train` first.")
        network, seconds = training.average.cpu(), training.seconds
        export_network(network, self.package_folder / "model.onnx")
        uncalibrated = write_manifest(network, self.recipe, self.package_folder, seconds)
        frames = calibration_frames(self.recipe, self._held_out("calibration"), self.recipe.seed + CALIBRATION_SEED)
        calibration = fit_calibration(uncalibrated, frames)
        return write_manifest(network, self.recipe, self.package_folder, seconds, calibration)

    def evaluate(self, real_graphene: Path | None = None) -> None:
        """Write the report and the model card into the model package."""
        package = ModelPackage.load(self.package_folder)
        recogniser = Recogniser(package)
        evaluation, store = self.recipe.evaluation, self._held_out("evaluation")
        seed = self.recipe.seed + TEST_SEED
        test_sets = {
            REFERENCE: list(reference_frames(self.recipe, store, evaluation.reference_specimens)),
            RANGE: list(range_frames(self.recipe, store, seed)),
            NOTHING: list(empty_frames(self.recipe, seed)),
        }
        exposure = reference_exposure(self.recipe, 1.0)
        if self.middle_alone is not None:
            write_series_report(
                recogniser,
                test_sets,
                package.folder / "report",
                "heights" if self.recipe.task == "heights" else "species",
                Recogniser(ModelPackage.load(self.middle_alone.package_folder)),
                triplet_limits(
                    self.recipe.specimen,
                    _optics_of_series(self.recipe),
                    exposure,
                    self.recipe.simulation.thermal_motion,
                ),
            )
        else:
            tuning = reference_frames(self.recipe, self._held_out("calibration"), evaluation.tuning_specimens)
            write_report(
                recogniser,
                test_sets,
                package.folder / "report",
                tuning_frames=list(tuning),
                limits=reference_limits(self.recipe.specimen, reference_optics(self.recipe), exposure),
                real_graphene=real_graphene,
            )
        write_card(package, self.recipe)

    def rebuild(self) -> None:
        """Do all of it."""
        self.simulate()
        self.train()
        self.export()
        self.evaluate()

    def _held_out(self, name: str) -> WaveStore:
        return self._store(name, self.recipe.evaluation.shards)

    def _store(self, name: str, shards: int) -> WaveStore:
        return WaveStore.open((self.waves or self.folder) / name, shards)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "training" / "checkpoint.pt"


def _optics_of_series(recipe: Recipe) -> dict[str, tuple[Optics, ...]]:
    lenses = reference_lenses(recipe)
    return {name: lens.optics for name, lens in lenses.items() if isinstance(lens, Lenses)}
