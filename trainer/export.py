"""From a trained network to a model package the daemon loads."""

import hashlib
import importlib.metadata
import warnings
from pathlib import Path

import onnx
import torch

from daemon.recognition.package import Calibration, Manifest, ModelPackage
from trainer.network import INPUT_MULTIPLE, STRIDE, SiteNetwork
from trainer.recipe import Recipe

OPSET = 18
CANDIDATE_PROBABILITY = 0.05
"""Low enough that what is reported before calibration includes what calibration may lift."""

PACKAGES = ("torch", "abtem", "ase", "numpy", "scipy", "onnx", "opencv-python-headless")


def export_network(network: SiteNetwork, path: Path) -> None:
    """Write a network as ONNX with free height and width."""
    example = torch.zeros(1, network.channels, 8 * INPUT_MULTIPLE, 6 * INPUT_MULTIPLE)
    height, width = torch.export.Dim("height_16", min=1), torch.export.Dim("width_16", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            network.eval(),
            (example,),
            opset_version=OPSET,
            dynamo=True,
            input_names=["frames"],
            output_names=["heads"],
            dynamic_shapes=({2: INPUT_MULTIPLE * height, 3: INPUT_MULTIPLE * width},),
            verbose=False,
        )
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(program.model_proto, path, save_as_external_data=False)
    onnx.checker.check_model(path)


def write_manifest(
    network: SiteNetwork, recipe: Recipe, folder: Path, training_seconds: float, calibration: Calibration | None = None
) -> ModelPackage:
    """Write `manifest.json` beside `model.onnx`; without a calibration the network's own numbers pass unchanged."""
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        specimen=recipe.specimen,
        kind=recipe.kind,
        input_frames=1 if recipe.series is None else 3,
        sampling_angstrom=recipe.network.sampling_angstrom,
        stride=STRIDE,
        input_multiple=INPUT_MULTIPLE,
        receptive_field_pixels=network.receptive_field_pixels,
        classes=recipe.network.classes,
        deepest_column=recipe.network.deepest_column,
        told_defocus=recipe.series is not None and recipe.series.told_defocus,
        ranges=recipe.ranges,
        probability_threshold=recipe.probability_threshold if calibration else CANDIDATE_PROBABILITY,
        calibration=calibration or Calibration(),
        onnx_opset=OPSET,
        onnx_sha256=hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        recipe=recipe.name,
        seed=recipe.seed,
        dataset_specimens=recipe.simulation.shards * recipe.simulation.specimens_per_shard,
        training_seconds=round(training_seconds),
        package_versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return ModelPackage.load(folder)
