"""A JSON file beside a frame supplies what the frame's own metadata lacks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.errors import FrameError
from daemon.frames import Calibration, CalibrationSource
from daemon.readers import Sidecar, parse_sidecar, read_frames, read_sidecar

PIXELS = np.random.default_rng(1).integers(0, 4000, (40, 48)).astype(np.uint16)

ALL_KEYS: dict[str, Any] = {
    "pixel_size_angstrom": 0.12,
    "defocus_angstrom": -40,
    "voltage_kv": 80,
    "dose_per_square_angstrom": 300.5,
    "series_id": "tilt 3",
    "series_index": 1,
    "series_length": 3,
}


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    np.save(tmp_path / "frame.npy", PIXELS)
    return tmp_path / "frame.npy"


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    np.save(tmp_path / "frame.npy", np.stack([PIXELS, PIXELS + 1, PIXELS + 2]))
    return tmp_path / "frame.npy"


def give(path: Path, keys: object) -> None:
    path.with_suffix(".json").write_text(keys if isinstance(keys, str) else json.dumps(keys))


def refusal(path: Path) -> str:
    with pytest.raises(FrameError) as caught:
        list(read_frames(path))
    assert "frame.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key(frame: Path) -> None:
    give(frame, ALL_KEYS)
    (read,) = read_frames(frame)
    assert read.calibration == Calibration(0.12, CalibrationSource.SIDECAR)
    for key, value in ALL_KEYS.items():
        assert key == "pixel_size_angstrom" or getattr(read.acquisition, key) == value
    assert read.frame_id.startswith("files/tilt 3/1/")


def test_one_value_per_image_of_a_stack(stack: Path) -> None:
    give(stack, {"defocus_angstrom": [-40, 0, 40], "series_index": [0, 1, 2], "voltage_kv": 80})
    frames = list(read_frames(stack))
    assert [read.acquisition.defocus_angstrom for read in frames] == [-40, 0, 40]
    assert [read.acquisition.series_index for read in frames] == [0, 1, 2]
    assert [read.acquisition.voltage_kv for read in frames] == [80] * 3


def test_a_list_of_the_wrong_length(stack: Path) -> None:
    give(stack, {"defocus_angstrom": [-40, 40]})
    message = refusal(stack)
    assert "`defocus_angstrom` lists 2 values" in message
    assert "3 images" in message


def test_a_key_that_does_not_exist(frame: Path) -> None:
    give(frame, {"pixel_size_nm": 0.012})
    message = refusal(frame)
    assert "'pixel_size_nm'" in message
    assert all(key in message for key in ALL_KEYS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pixel_size_angstrom", 0),
        ("pixel_size_angstrom", -0.1),
        ("pixel_size_angstrom", "0.1"),
        ("pixel_size_angstrom", True),
        ("pixel_size_angstrom", float("nan")),
        ("pixel_size_angstrom", float("inf")),
        ("pixel_size_angstrom", {"value": 0.1}),
        ("defocus_angstrom", [0, "40", 80]),
        ("defocus_angstrom", [0, None, 80]),
        ("voltage_kv", 0),
        ("dose_per_square_angstrom", -1),
        ("series_id", 7),
        ("series_id", ""),
        ("series_index", -1),
        ("series_index", 1.5),
        ("series_length", 0),
    ],
)
def test_a_value_that_is_not_allowed(frame: Path, key: str, value: object) -> None:
    give(frame, {key: value})
    message = refusal(frame)
    assert f"`{key}` must be" in message


def test_all_mistakes_are_named_at_once(frame: Path) -> None:
    give(frame, {"voltage_kv": "80", "dose": 3})
    message = refusal(frame)
    assert "`voltage_kv`" in message
    assert "'dose'" in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "0.1", "null", "{'voltage_kv': 80}", '{"a": ' * 100_000])
def test_a_sidecar_that_is_not_a_json_object(frame: Path, text: str) -> None:
    give(frame, text)
    refusal(frame)


def test_a_sidecar_in_another_encoding(frame: Path) -> None:
    frame.with_suffix(".json").write_bytes('{"series_id": "Å"}'.encode("latin-1"))
    refusal(frame)


def test_a_sidecar_from_a_windows_editor(frame: Path) -> None:
    frame.with_suffix(".json").write_bytes(b'\xef\xbb\xbf{"voltage_kv": 80}\r\n')
    (read,) = read_frames(frame)
    assert read.acquisition.voltage_kv == 80


def test_null_is_the_same_as_absent(frame: Path) -> None:
    give(frame, {"voltage_kv": None, "pixel_size_angstrom": None})
    (read,) = read_frames(frame)
    assert read.acquisition.voltage_kv is None
    assert read.calibration is None


def test_no_sidecar_gives_no_keys(frame: Path) -> None:
    assert read_sidecar(frame) == Sidecar()
    assert Sidecar().for_image(0) == {}


def test_a_pixel_size_far_from_atomic_resolution(frame: Path) -> None:
    give(frame, {"pixel_size_angstrom": 120})
    with pytest.raises(FrameError, match=r"120 Å \(from the sidecar\)"):
        list(read_frames(frame))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*ALL_KEYS, "other"]), JSON, max_size=4) | JSON)
def test_any_json_is_taken_or_explained(values: object) -> None:
    reason = ""
    try:
        parse_sidecar(values, "frame.json")
    except FrameError as error:
        reason = str(error)
    assert reason.startswith("frame.json: ") or (isinstance(values, dict) and set(values) <= set(ALL_KEYS))
    assert "\n" not in reason


@given(content=st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_taken_or_explained(frame: Path, content: bytes) -> None:
    frame.with_suffix(".json").write_bytes(content)
    reason = ""
    try:
        assert len(list(read_frames(frame))) == 1
    except FrameError as error:
        reason = str(error)
    assert not reason or "frame.json" in reason
