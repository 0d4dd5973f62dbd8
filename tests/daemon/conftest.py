"""A small model package that finds bright blobs, frames of blobs, and the installed `hrtemd` command."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.daemon.watching import Watching

HRTEMD = Path(sys.executable).with_name("hrtemd")
BLOB_SPACING_PX = 20
PIXEL_SIZE_ANGSTROM = 0.1


@pytest.fixture(scope="session")
def blob_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real package for the real engines: a convolution that answers to blobs of 0.15 Å."""
    return write_blob_package(tmp_path_factory.mktemp("models") / "blobs", frames=1)


@pytest.fixture(scope="session")
def blob_triplet_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for focal series: it answers to blobs that stand at one place in all three frames."""
    return write_blob_package(tmp_path_factory.mktemp("models") / "blob-triplet", frames=3)


def write_blob_package(folder: Path, frames: int) -> Path:
    folder.mkdir()
    y, x = np.mgrid[-4:4, -4:4] + 0.5
    blob = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    channels = 1 if frames == 1 else 2 * frames  # of a series, the frames and the contrast of each
    weights = np.zeros((5, channels, 8, 8), np.float32)  # nothing, metal, offset x, offset y, log sigma
    weights[1, :frames] = 10 * blob / (blob**2).sum() / frames
    # A blob's centre is at 7 or more standard deviations of the normalised frame, noise below 2.
    biases = np.array([0, -40, 0, 0, -1], np.float32)
    save_blob_network(folder / "model.onnx", weights, biases, class_count=1)
    manifest = {
        "name": folder.name,
        "version": "1.0",
        "task": "positions",
        "specimen": "nanoparticle",
        "kind": "column",
        "input_frames": frames,
        "sampling_angstrom": PIXEL_SIZE_ANGSTROM,
        "stride": 2,
        "input_multiple": 8,
        "receptive_field_pixels": 8,
        "classes": ["metal"],
        "ranges": {
            "pixel_size_angstrom": [0.05, 0.2],
            "dose_per_square_angstrom": [10, 1e5],
            "voltage_kv": [60, 300],
            "spherical_aberration_um": [-20, 20],
            "defocus_angstrom": [-200, 200],
            "defocus_step_angstrom": None if frames == 1 else [20, 60],
        },
        "probability_threshold": 0.5,
        "calibration": {},
        "onnx_opset": 17,
        "onnx_sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "recipe": "by hand",
        "seed": 0,
        "dataset_specimens": 0,
        "training_seconds": 0.0,
        "package_versions": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def save_blob_network(
    path: Path, weights: np.ndarray[Any, Any], biases: np.ndarray[Any, Any], class_count: int
) -> None:
    """Write a network of one convolution of 8 × 8 pixels; `weights` has shape (heads, channels, 8, 8).

    As a trained network does, it puts a site into one cell and says nothing of those around it: the logit of nothing
    rises by as much as the best of the 5 × 5 cells around is better than what is found in the cell itself.
    """
    heads, channels = weights.shape[:2]
    nodes = [
        helper.make_node("Conv", ["image", "weights", "biases"], ["answers"], strides=[2, 2], pads=[3, 3, 3, 3]),
        helper.make_node("Split", ["answers", "parts"], ["nothing", "classes", "others"], axis=1),
        helper.make_node("ReduceMax", ["classes"], ["found"], axes=[1], keepdims=1),
        helper.make_node("MaxPool", ["found"], ["best"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        helper.make_node("Sub", ["best", "found"], ["worse"]),
        helper.make_node("Mul", ["worse", "strength"], ["suppression"]),
        helper.make_node("Add", ["nothing", "suppression"], ["nothing_else"]),
        helper.make_node("Concat", ["nothing_else", "classes", "others"], ["heads"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, "height", "width"])],
        [helper.make_tensor_value_info("heads", TensorProto.FLOAT, ["batch", heads, "rows", "columns"])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
            numpy_helper.from_array(biases.astype(np.float32), "biases"),
            numpy_helper.from_array(np.array([1, class_count, heads - 1 - class_count]), "parts"),
            numpy_helper.from_array(np.array(50.0, np.float32), "strength"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def blob_pixels(blobs: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """A frame of 160 by 160 pixels with up to 36 blobs on a grid."""
    y, x = np.mgrid[:160, :160]
    pixels = 100 + np.random.default_rng(seed).normal(0, 1, y.shape)
    for index in range(blobs):
        row, column = divmod(index, 6)
        centre_x, centre_y = 30.5 + BLOB_SPACING_PX * column, 30.5 + BLOB_SPACING_PX * row
        pixels += 200 * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * 1.5**2))
    return pixels.astype(np.float32)


@pytest.fixture
def write_frame() -> Callable[..., Path]:
    """Write a frame with this many blobs as .npy; every `seed` gives another frame."""

    def write(path: Path, blobs: int = 12, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, blob_pixels(blobs, seed))
        return path

    return write


@pytest.fixture
def no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs on a grid look the same wherever they drift to: take series as they are."""
    still = SimpleNamespace(drift_angstrom=np.zeros((3, 2)), warnings=[])
    monkeypatch.setattr("daemon.recognition.recogniser.measure_drift", lambda *_: still)


@pytest.fixture(scope="session")
def hrtemd_path() -> Path:
    """The command as installed beside this interpreter."""
    return HRTEMD


@pytest.fixture
def hrtemd() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `hrtemd` with arguments and wait for it."""

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [str(HRTEMD), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=200, env=os.environ | environment, check=False
        )

    return run


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "incoming").mkdir()
    watching = Watching(tmp_path / "incoming")
    yield watching
    watching.stop()
