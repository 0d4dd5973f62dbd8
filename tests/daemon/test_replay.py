"""`hrtemd replay` as a camera: the command itself against a source."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import numpy as np
import pytest
import tifffile

from daemon.drops import Drops
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.connection import Place
from daemon.sources.formats import FORMATS
from daemon.sources.simulator import Faults, with_faults
from daemon.sources.source import Arrival, Failure
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.wire import frames_in, has, sentences_in, shots, take, values_in

Play = Callable[..., "tuple[Iterator[Arrival | Failure | None], subprocess.Popen[str]]"]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three frames, the last two in one file, with what their sidecars say."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.full((40, 48), 1, np.uint16))
    (folder / "a.json").write_text('{"pixel_size_angstrom": 0.11, "voltage_kv": 80}')
    tifffile.imwrite(folder / "b.tif", np.stack([np.full((40, 48), value, np.uint16) for value in (2, 3)]))
    (folder / "b.json").write_text('{"pixel_size_angstrom": 0.12, "series_id": "b", "series_index": [0, 1]}')
    return folder


@pytest.fixture
def play(hrtemd_path: Path, tmp_path: Path) -> Iterator[Play]:
    """Begin to replay to a source; both are stopped in the end."""
    with ExitStack() as stack:

        def begin(
            *arguments: object, format_name: str = "array-1.0", socket: Any = "pull", bind: bool = True
        ) -> "tuple[Iterator[Arrival | Failure | None], subprocess.Popen[str]]":
            endpoint = f"ipc://{tmp_path}/socket"
            place = Place(endpoint, socket, bind=bind)
            source = ZeroMQSource(
                "camera", place, FORMATS[format_name].decoder(), "lossless", None, DEFAULT_LIMITS, 2**20, Drops()
            )
            arrivals = stack.enter_context(closing(source.arrivals(Event())))  # type: ignore[type-var]
            assert next(arrivals) is None
            command = [hrtemd_path, "replay", *arguments, "--to", endpoint, "--format", format_name, "--rate", 200]
            process = subprocess.Popen(
                [*map(str, command), *([] if bind else ["--bind"])], stderr=subprocess.PIPE, text=True
            )
            stack.enter_context(stopped(process))
            return arrivals, process

        yield begin


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[None]:
    with process:
        try:
            yield
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("format_name", FORMATS)
def test_frames_arrive_with_what_is_known_of_them(play: Play, recorded: Path, format_name: str) -> None:
    arrivals, process = play(recorded, format_name=format_name)
    found = take(arrivals, has(3))
    assert values_in(found) == [1, 2, 3]
    assert sentences_in(found) == []
    first, _, last = (arrival.subject for arrival in frames_in(found))
    assert first.calibration.pixel_size_angstrom == 0.11  # type: ignore[union-attr]
    assert first.acquisition.voltage_kv == 80  # type: ignore[union-attr]
    assert last.calibration.pixel_size_angstrom == 0.12  # type: ignore[union-attr]
    assert (last.acquisition.series_id, last.acquisition.series_index) == ("b", 1)  # type: ignore[union-attr]
    _, said = process.communicate(timeout=60)
    assert said == "3 frames sent\n"
    assert process.returncode == 0


@pytest.mark.parametrize("format_name", FORMATS)
def test_it_loops_until_it_is_stopped(play: Play, recorded: Path, format_name: str) -> None:
    arrivals, process = play(recorded, "--loop", format_name=format_name)
    found = take(arrivals, has(8))
    assert values_in(found)[:8] == [1, 2, 3, 1, 2, 3, 1, 2]
    assert sentences_in(found) == []
    assert len({arrival.subject.frame_id for arrival in frames_in(found)}) == 8
    series = [arrival.subject.acquisition.series_id for arrival in frames_in(found)[:8]]  # type: ignore[union-attr]
    assert series[2::3] == ["b", "b (2)"], "a focal series that is taken again is another one"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "stopped\n" in said
    assert "frames sent" in said
    assert process.returncode == 0


def test_it_publishes_to_a_source_that_connects(play: Play, recorded: Path) -> None:
    arrivals, _ = play(recorded, "--socket", "pub", format_name="dectris-v1", socket="sub", bind=False)
    assert values_in(take(arrivals, has(3))) == [1, 2, 3]


def test_faults_reach_the_source(play: Play, recorded: Path) -> None:
    arrivals, process = play(
        recorded, "--loop", "--no-start", "--abort-after", 2, "--drop", 0.2, "--corrupt", 0.2, "--jitter", 0.5,
        "--seed", 1, format_name="dectris-stream2",
    )  # fmt: skip
    found = take(arrivals, has(15))
    assert 3 not in values_in(found)
    assert sentences_in(found)
    assert process.poll() is None


def test_faults_are_the_same_for_the_same_seed() -> None:
    def lost(seed: int) -> list[bool]:
        messages = FORMATS["array-1.0"].simulator().series(shots(50))
        return [not message.parts for message in with_faults(messages, Faults(drop=0.3), Random(seed))]

    assert lost(1) == lost(1) != lost(2)
    assert 5 < sum(lost(1)) < 25


@pytest.mark.parametrize(
    ("faults", "kinds"),
    [
        (Faults(), ["start", "image", "image", "image", "end"]),
        (Faults(no_start=True), ["image", "image", "image", "end"]),
        (Faults(abort_after=2), ["start", "image", "image"]),
        (Faults(abort_after=2, no_start=True, drop=1.0), ["image", "image"]),
    ],
)
def test_faults_of_a_series(faults: Faults, kinds: list[str]) -> None:
    messages = FORMATS["dectris-v1"].simulator().series(shots(3), 3)
    assert [message.kind for message in with_faults(messages, faults, Random(0))] == kinds


def test_what_cannot_be_read_is_said_and_the_rest_is_sent(play: Play, recorded: Path) -> None:
    (recorded / "c.tif").write_bytes(b"no image")
    arrivals, process = play(recorded)
    assert values_in(take(arrivals, has(3))) == [1, 2, 3]
    _, said = process.communicate(timeout=60)
    assert "c.tif" in said
    assert process.returncode == 1


def test_an_endpoint_that_cannot_be_used_is_said(hrtemd: Any, recorded: Path) -> None:
    done = hrtemd("replay", recorded, "--to", "nowhere", "--format", "array-1.0")
    assert done.returncode == 1
    assert "nowhere: Invalid argument; name another endpoint." in done.stderr


def test_a_folder_without_images_is_said(hrtemd: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(json.dumps({}))
    done = hrtemd("replay", tmp_path, "--to", "tcp://127.0.0.1:1", "--format", "array-1.0")
    assert done.returncode == 2
    assert "There is no image file in" in done.stderr
    assert os.listdir(tmp_path) == ["notes.txt"]  # noqa: PTH208
