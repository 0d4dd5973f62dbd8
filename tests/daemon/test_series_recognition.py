"""A focal series goes through a real engine and comes out as one table, in the pixels of its first frame."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.errors import FrameError, ModelError
from daemon.frames import Acquisition, Calibration, CalibrationSource, FocalSeries, Frame
from daemon.recognition.package import Manifest, ModelPackage
from daemon.recognition.recogniser import Recogniser
from daemon.recognition.series_input import input_channels
from tests.daemon.conftest import save_blob_network

PIXEL_SIZE_ANGSTROM = 0.1
SIDE = 200
BLOB_PX = 1.5
SPECIES = ("Mo", "S2", "S", "vacancy", "substitution")
# How each class looks in the three frames: bright or dark.
LOOKS = np.array([[1, 1, 1], [1, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1]])
DRIFT_PX = np.array([[7.3, -4.6], [0.0, 0.0], [-3.5, 9.2]])


def save_network(folder: Path, weights: NDArray[Any], biases: NDArray[Any], **manifest: Any) -> ModelPackage:
    """A package of such a network as `save_blob_network` writes."""
    folder.mkdir()
    save_blob_network(folder / "model.onnx", weights, biases, len(manifest["classes"]))
    stated = {
        "name": folder.name,
        "version": "1.0",
        "task": "species",
        "specimen": "nanoparticle",
        "kind": "column",
        "input_frames": 3,
        "sampling_angstrom": PIXEL_SIZE_ANGSTROM,
        "stride": 2,
        "input_multiple": 8,
        "receptive_field_pixels": 8,
        "ranges": {
            "pixel_size_angstrom": [0.05, 0.2],
            "dose_per_square_angstrom": [10, 1e5],
            "voltage_kv": [60, 300],
            "spherical_aberration_um": [-20, 20],
            "defocus_angstrom": [-200, 200],
            "defocus_step_angstrom": [20, 60],
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
    (folder / "manifest.json").write_text(Manifest.model_validate(stated | manifest).model_dump_json())
    return ModelPackage.load(folder)


def blob() -> NDArray[np.float64]:
    y, x = np.mgrid[-4:4, -4:4] + 0.5
    spot = np.exp(-(x**2 + y**2) / (2 * BLOB_PX**2))
    return spot / (spot**2).sum()


@pytest.fixture(scope="module")
def species_model(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Finds blobs and tells classes by how they change with defocus."""
    weights = np.zeros((1 + len(SPECIES) + 3, input_channels(told_defocus=False), 8, 8))
    weights[1:6, :3] = 4 * LOOKS[:, :, None, None] * blob()
    biases = np.array([0.0] + [-30.0] * len(SPECIES) + [0, 0, -1])
    folder = tmp_path_factory.mktemp("models") / "species"
    return save_network(folder, weights, biases, classes=SPECIES, specimen="mos2")


@pytest.fixture(scope="module")
def heights_model(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Finds blobs, brighter in the first frame or in the last, and counts atoms by the brightness in the middle."""
    deepest = 12
    weights = np.zeros((1 + 2 + deepest + 3, input_channels(told_defocus=False), 8, 8))
    weights[1, :3] = np.array([2.2, 2, 1.8])[:, None, None] * blob()
    weights[2, :3] = np.array([1.8, 2, 2.2])[:, None, None] * blob()
    numbers = np.arange(1, deepest + 1)
    weights[3 : 3 + deepest, 1] = 2 * numbers[:, None, None] * blob()
    biases = np.concatenate([[0, -25, -25], -(numbers**2), [0, 0, -1]])
    folder = tmp_path_factory.mktemp("models") / "heights"
    return save_network(folder, weights, biases, classes=("metal", "support"), deepest_column=deepest, task="heights")


def spots(positions_px: NDArray[Any], brightness: NDArray[Any], seed: int) -> NDArray[np.float32]:
    y, x = np.indices((SIDE, SIDE))
    pixels = 1000 + np.random.default_rng(seed).normal(0, 2, (SIDE, SIDE))
    for (column, row), height in zip(positions_px, brightness, strict=True):
        pixels += 200 * height * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * BLOB_PX**2))
    return pixels.astype(np.float32)


def grid() -> NDArray[np.float64]:
    """Places at all fractions of a pixel, well inside of what drifting frames share."""
    places = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2) * 24.0 + 50
    return places + np.random.default_rng(0).uniform(-1, 1, places.shape)


def series_of(looks: NDArray[Any], first: int = 1, **changes: Any) -> FocalSeries:
    """Frames of blobs as bright as `looks`, shape (25, 3), says, each frame drifted."""
    drift = DRIFT_PX - DRIFT_PX[first]
    frames = [
        Frame(
            spots(grid() + drift[index], looks[:, index], index),
            f"camera/{index}",
            f"frame-{index}",
            Calibration(PIXEL_SIZE_ANGSTROM, CalibrationSource.METADATA),
            Acquisition(defocus_angstrom=40.0 * index),
        )
        for index in range(3)
    ]
    told = {"drift_angstrom": drift * PIXEL_SIZE_ANGSTROM} | changes
    return FocalSeries((frames[0], frames[1], frames[2]), first, "camera/series", "series", **told)


def in_order(table: Any, *names: str) -> list[list[Any]]:
    """Columns of the table, rows in the order of the nearest place of the grid."""
    found = np.column_stack([table.column("x_px").to_numpy(), table.column("y_px").to_numpy()])
    distance = np.hypot(*(found[:, None] - grid()).transpose(2, 0, 1))
    assert table.num_rows == len(grid())
    assert sorted(distance.argmin(axis=1)) == list(range(len(grid())))
    order = np.argsort(distance.argmin(axis=1))
    return [[table.column(name).to_pylist()[row] for row in order] for name in names]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_positions_are_those_of_the_frame_acquired_first(species_model: ModelPackage, first: int) -> None:
    series = series_of(np.ones((25, 3)), first)

    recognition = Recogniser(species_model).recognise(series)

    x, y = in_order(recognition.table, "x_px", "y_px")
    error = np.column_stack([x, y]) - grid()
    assert np.abs(error.mean(axis=0)).max() < 0.2
    assert np.abs(error).max() < 1.05, "half a cell: the network of this test tells no more"
    assert recognition.frame is series.reference
    assert recognition.series is series
    assert recognition.subject is series
    assert set(recognition.latency_ms) == {"align", "prepare", "infer", "decode"}


def test_species_and_vacancies_are_told_by_how_sites_change_with_defocus(species_model: ModelPackage) -> None:
    truth = np.arange(25) % len(SPECIES)

    recognition = Recogniser(species_model).recognise(series_of(LOOKS[truth]))

    kinds, species, probability, n_atoms = in_order(
        recognition.table, "kind", "species", "species_probability", "n_atoms"
    )
    names = [SPECIES[index] for index in truth]
    assert kinds == ["vacancy" if name == "vacancy" else "column" for name in names]
    assert species == [None if name == "vacancy" else name for name in names]
    assert min(probability) > 0.9
    assert n_atoms == [None] * 25


def looks_of_columns(is_support: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A third of the columns dim in the middle frame, a third bright."""
    side = np.where(is_support, -0.2, 0.2)
    return np.stack([1 + side, np.repeat([0.5, 0.8, 1.1], [8, 9, 8]), 1 - side], axis=1)


def test_columns_are_counted_and_those_of_the_oxide_are_not(heights_model: ModelPackage) -> None:
    is_support = np.arange(25) % 3 == 0

    recognition = Recogniser(heights_model).recognise(series_of(looks_of_columns(is_support)))

    species, n_atoms, n_probability = in_order(recognition.table, "species", "n_atoms", "n_atoms_probability")
    assert species == ["support" if support else None for support in is_support]
    assert [number is None for number in n_atoms] == is_support.tolist()
    assert [share is None for share in n_probability] == is_support.tolist()
    dim, bright = ([number for number in part if number] for part in (n_atoms[:8], n_atoms[-8:]))
    assert min(bright) > max(dim)
    assert all(0 < share <= 1 for share in n_probability if share is not None)


def test_temperatures_change_how_sure_the_model_is_and_nothing_else(heights_model: ModelPackage) -> None:
    series = series_of(looks_of_columns(np.arange(25) % 3 == 0))
    calibration = heights_model.manifest.calibration.model_copy(
        update={"species_temperature": 4.0, "atoms_temperature": 2.0}
    )
    milder = replace(heights_model, manifest=heights_model.manifest.model_copy(update={"calibration": calibration}))

    plain, tempered = (Recogniser(model).recognise(series).table for model in (heights_model, milder))

    for name in ("n_atoms", "species", "probability", "x_px"):
        assert tempered.column(name).equals(plain.column(name))
    before, after = (table.column("n_atoms_probability").drop_null().to_numpy() for table in (plain, tempered))
    assert (after < before).all()
    share = plain.column("species_probability").to_numpy().astype(float)
    expected = share**0.25 / (share**0.25 + (1 - share) ** 0.25)
    assert expected.max() < share.min()
    np.testing.assert_allclose(tempered.column("species_probability").to_numpy(), expected, atol=0.01)


def test_an_offset_takes_back_what_a_model_overstates_of_a_class(heights_model: ModelPackage) -> None:
    series = series_of(looks_of_columns(np.arange(25) % 3 == 0))
    calibration = heights_model.manifest.calibration.model_copy(update={"species_offsets": (0.0, -np.log(10.0))})
    corrected = replace(heights_model, manifest=heights_model.manifest.model_copy(update={"calibration": calibration}))

    before, after = (Recogniser(model).recognise(series).peaks for model in (heights_model, corrected))

    assert before is not None
    assert after is not None
    metal, support = before.class_probability.T
    np.testing.assert_allclose(after.class_probability[:, 1], support / (support + 10 * metal), rtol=1e-4)
    np.testing.assert_allclose(after.class_probability.sum(axis=1), 1, rtol=1e-5)


def test_offsets_must_fit_the_classes(heights_model: ModelPackage, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(heights_model.folder, package)
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["calibration"]["species_offsets"] = [0.0, 0.0, 0.0]
    (package / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelError, match="3 species_offsets do not fit 2 classes"):
        ModelPackage.load(package)


def test_tiles_give_the_same_table(species_model: ModelPackage) -> None:
    series = series_of(LOOKS[np.arange(25) % len(SPECIES)])

    whole = Recogniser(species_model).recognise(series).table
    tiled = Recogniser(species_model, tile_pixels=64).recognise(series).table

    assert tiled.num_rows == whole.num_rows
    for name in ("kind", "species"):
        assert tiled.column(name).to_pylist() == whole.column(name).to_pylist()
    for name in ("x_px", "y_px", "probability", "species_probability"):
        np.testing.assert_allclose(tiled.column(name).to_numpy(), whole.column(name).to_numpy(), atol=1e-3)


def test_a_network_that_is_told_the_defocus_uses_it(tmp_path: Path) -> None:
    weights = np.zeros((1 + 2 + 3, input_channels(told_defocus=True), 8, 8))
    weights[1:3, :3] = 4 * blob()
    # The defocus of the frame in the middle decides the class.
    weights[1, 7], weights[2, 7] = 10 / 64, -10 / 64
    package = save_network(
        tmp_path / "told", weights, np.array([0, -30, -30, 0, 0, -1.0]), classes=("Au", "Pt"), told_defocus=True
    )

    for shift, expected in ((+60.0, "Au"), (-140.0, "Pt")):
        series = series_of(np.ones((25, 3)))
        over, middle, under = (
            replace(frame, acquisition=Acquisition(defocus_angstrom=40.0 * index + shift))
            for index, frame in enumerate(series.frames)
        )
        table = Recogniser(package).recognise(replace(series, frames=(over, middle, under))).table
        assert table.column("species").to_pylist() == [expected] * 25


def test_unknown_drift_is_measured_and_doubts_are_passed_on(
    species_model: ModelPackage, measured: Callable[..., None]
) -> None:
    drift = (DRIFT_PX - DRIFT_PX[1]) * PIXEL_SIZE_ANGSTROM
    measured(drift, ["The drift is doubtful."])

    recognition = Recogniser(species_model).recognise(series_of(np.ones((25, 3)), drift_angstrom=None))

    assert recognition.warnings[0] == "The drift is doubtful."
    assert recognition.series is not None
    np.testing.assert_array_equal(recognition.series.drift_angstrom, drift)
    in_order(recognition.table)


def test_known_drift_is_not_measured_again(species_model: ModelPackage, measured: Callable[..., None]) -> None:
    measured(np.full((3, 2), 1e3), ["Wrong."])

    recognition = Recogniser(species_model).recognise(series_of(np.ones((25, 3))))

    assert "Wrong." not in recognition.warnings
    in_order(recognition.table)


def test_frames_that_share_no_field_are_an_error(species_model: ModelPackage) -> None:
    series = series_of(np.ones((25, 3)), drift_angstrom=np.array([[0, 0], [0, 0], [18.0, 0]]))

    with pytest.raises(FrameError, match="share no field"):
        Recogniser(species_model).recognise(series)


def test_a_model_says_which_kind_of_input_it_takes(species_model: ModelPackage, blob_model: Path) -> None:
    series = series_of(np.ones((25, 3)))

    with pytest.raises(ModelError, match="frame-1 is a single frame and the model species takes focal series of 3"):
        Recogniser(species_model).recognise(series.reference)
    with pytest.raises(ModelError, match="series is a focal series and the model blobs takes single frames"):
        Recogniser(ModelPackage.load(blob_model)).recognise(series)


@pytest.mark.parametrize("shape", [(128, 128), (96, 200)])
def test_series_models_warm_up(species_model: ModelPackage, shape: tuple[int, int]) -> None:
    Recogniser(species_model).warm_up(shape, PIXEL_SIZE_ANGSTROM)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the drift that is measured be this."""

    def set_drift(drift_angstrom: NDArray[np.float64], warnings: list[str]) -> None:
        drift = SimpleNamespace(drift_angstrom=drift_angstrom, warnings=warnings)
        monkeypatch.setattr("daemon.recognition.recogniser.measure_drift", lambda *_: drift)

    return set_drift
