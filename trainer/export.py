"""From a trained network to a model package the daemon loads."""

import hashlib
import importlib.metadata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from daemon.atoms import SUPPORT
from daemon.recognition.calibrate import calibration_features
from daemon.recognition.package import Calibration, Manifest, ModelPackage
from daemon.recognition.recogniser import Recogniser
from trainer.evaluation.matching import TOLERANCE_ANGSTROM
from trainer.evaluation.scores import NORMAL_MEDIAN_DEVIATION, Outcome, outcome_of
from trainer.evaluation.truth import LabelledFrame
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


def fit_calibration(uncalibrated: ModelPackage, frames: Iterable[LabelledFrame]) -> Calibration:
    """Fit what the network says of itself to held-out frames or series, through the daemon's own recogniser.

    Probability by logistic regression of "was there a site" on the network's probability and sigma; sigma by the ratio
    of true errors to those stated; the temperatures by the likelihood of the true classes and numbers of atoms. Series
    that the aligner got wrong are left out: sites that the network is sure of stand elsewhere there, which says nothing
    of the network, and a few such series would make its probability count for nothing.
    """
    recogniser = Recogniser(uncalibrated)
    probabilities, sigmas, hits, errors, species, atoms = [], [], [], [], [], []
    for labelled in frames:
        outcome = outcome_of(recogniser.recognise(labelled.subject), labelled)
        if _is_misaligned(outcome):
            continue
        found, false = outcome.matching.pairs[:, 0], outcome.matching.false
        judged = np.concatenate([found, false])
        table = outcome.recognition.table
        probabilities.append(table.column("probability").to_numpy()[judged])
        sigmas.append(table.column("sigma_angstrom").to_numpy()[judged])
        hits.append(np.arange(len(judged)) < len(found))
        errors.append(outcome.errors_over_sigma.ravel())
        species.append(_said_of_true_species(outcome, uncalibrated.manifest.classes))
        atoms.append(_said_of_true_counts(outcome, uncalibrated.manifest.deepest_column))
    if not any(hit.any() for hit in hits):  # after a smoke run, say: there is nothing to fit
        return Calibration()
    slope, sigma_slope, offset = _logistic_regression(
        *calibration_features(np.concatenate(probabilities), np.concatenate(sigmas)), np.concatenate(hits)
    )
    # The median ignores the few matches by chance that a mean of squares would follow.
    scale = float(np.median(np.abs(np.concatenate(errors))) / NORMAL_MEDIAN_DEVIATION)
    return Calibration(
        probability_slope=slope,
        probability_sigma_slope=sigma_slope,
        probability_offset=offset,
        sigma_scale=scale,
        species_temperature=_temperature(species),
        atoms_temperature=_temperature(atoms),
    )


def _is_misaligned(outcome: Outcome) -> bool:
    series, true = outcome.recognition.series, outcome.labelled.drift_angstrom
    if series is None or series.drift_angstrom is None or true is None:
        return False
    return bool(np.linalg.norm(series.drift_angstrom - true, axis=1).max() > TOLERANCE_ANGSTROM)


Answers = tuple[NDArray[np.floating[Any]], NDArray[np.int64]]
"""What the network said, shape (n, answers), probabilities that add up to 1; and which answer was right, shape (n,)."""


def _said_of_true_species(outcome: Outcome, classes: tuple[str, ...]) -> Answers:
    found, true = outcome.matching.pairs.T
    # A model that tells no element calls each of them metal.
    names = [name if name in classes else "metal" for name in np.array(outcome.labelled.species)[true].tolist()]
    assert outcome.recognition.peaks is not None
    return outcome.recognition.peaks.class_probability[found], np.array([classes.index(name) for name in names], int)


def _said_of_true_counts(outcome: Outcome, deepest_column: int) -> Answers:
    assert outcome.recognition.peaks is not None
    said, counts = outcome.recognition.peaks.atoms_probability, outcome.labelled.atom_counts
    if said is None or counts is None:
        return np.zeros((0, 1)), np.zeros(0, int)
    found, true = outcome.matching.pairs.T
    counted = np.array(outcome.labelled.species)[true] != SUPPORT
    return said[found[counted]], np.minimum(counts[true[counted]], deepest_column).astype(int) - 1


def _temperature(answers: Sequence[Answers]) -> float:
    """The temperature under which the right answers are most probable, see `daemon.recognition.package.Calibration`."""
    said = np.log(np.clip(np.concatenate([said for said, _ in answers]), 1e-9, None))
    right = np.concatenate([right for _, right in answers])
    if said.shape[1] < 2 or not len(right):
        return 1.0

    def surprise(log_temperature: float) -> float:
        cooled = said * np.exp(-log_temperature)
        return float((logsumexp(cooled, axis=1) - cooled[np.arange(len(right)), right]).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-2.0, 2.0), method="bounded").x))


def _logistic_regression(
    logit: NDArray[np.floating[Any]], log_sigma: NDArray[np.floating[Any]], hit: NDArray[np.bool_]
) -> tuple[float, float, float]:
    features = np.stack([logit, log_sigma, np.ones(len(logit))], axis=1)
    sign = np.where(hit, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -sign * (features @ weights)).mean())

    slope, sigma_slope, offset = minimize(loss, np.array([1.0, 0.0, 0.0])).x
    return float(slope), float(sigma_slope), float(offset)
