"""Atoms come out whatever happens behind them: a disk that fills up loses no frame, drawing holds up nothing."""

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from daemon import drawing, stage
from daemon.drops import Drops
from daemon.frames import Calibration, CalibrationSource, Frame, make_frame_id
from daemon.inbox import Policy
from daemon.ledger import Ledger, LedgerLimits
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.choice import ModelChoice, Offer
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser
from daemon.sources.source import Arrival, Failure

PATIENCE_SECONDS = 60.0


class Frames:
    """A source of some frames."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self._number = number

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure]:
        for index in range(self._number):
            pixels = np.random.default_rng(index).normal(100, 10, (64, 64)).astype(np.float32)
            calibration = Calibration(0.1, CalibrationSource.SIDECAR)
            frame = Frame(pixels, make_frame_id(self.name, None, index, pixels), f"{self.name}{index}", calibration)
            yield Arrival(self.name, f"{self.name}{index}.npy", frame, read_ms=0.0)
        stop.wait()


class Running:
    """A pipeline of one or more sources, with what it wrote."""

    def __init__(self, folder: Path, model: Path, policies: dict[str, Policy], number: int) -> None:
        self.files = FilePublisher(folder, overlays=True)
        self.drops = Drops()
        recogniser = Recogniser(find_model(str(model)), "onnxruntime")
        sources = [Frames(name, number) for name in policies]
        self.ledger = Ledger(folder.parent / "ledger.sqlite", LedgerLimits(2**30, 30))
        outlet = Outlet(self.files, self.ledger)
        self.pipeline = Pipeline(
            sources,
            policies,
            dict.fromkeys(policies, ModelChoice(Offer(recogniser))),
            outlet,
            self.drops,
            on_end=lambda _: None,
        )
        self.pipeline.start()

    def written(self, pattern: str = "*.parquet") -> set[str]:
        return {path.name.split(".")[0] for path in self.files.directory.glob(pattern)}

    def wait_for(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path, blob_model: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(number: int, **policies: Policy) -> Running:
        started.append(Running(tmp_path / "results", blob_model, policies, number))
        return started[-1]

    yield start
    for running in started:
        running.pipeline.stop()
        running.ledger.close()


def test_frames_wait_for_a_disk_that_is_full_and_none_is_lost(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(stage, "_SHORTEST_HOLD_SECONDS", 0.02)
    full = Event()
    full.set()
    attempts = []
    write_tables = FilePublisher.write_tables

    def write(files: FilePublisher, arrival: Arrival, *arguments: Any) -> Path:
        if full.is_set() and arrival.source == "camera":
            attempts.append(arrival.origin)
            raise OSError(errno.ENOSPC, "No space left on device", "camera.atoms.csv")
        return write_tables(files, arrival, *arguments)

    monkeypatch.setattr(FilePublisher, "write_tables", write)
    running = run(3, camera="lossless", other="lossless")
    running.wait_for(lambda: len(attempts) > 2)
    running.wait_for(lambda: running.written() == {"other0", "other1", "other2"})
    assert set(attempts) == {"camera0.npy"}
    full.clear()
    running.wait_for(lambda: len(running.written()) == 6)
    running.wait_for(lambda: "camera: results are written again" in caplog.messages)
    assert sum("No space left on device" in message for message in caplog.messages) == 1
    assert running.pipeline.counts["failed"] == 0


def test_a_result_that_can_never_be_written_holds_up_nothing(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables = FilePublisher.write_tables

    def write(files: FilePublisher, arrival: Arrival, *arguments: Any) -> Path:
        if arrival.origin == "camera0.npy":
            raise OSError(errno.ENAMETOOLONG, "File name too long", "camera0")
        return write_tables(files, arrival, *arguments)

    monkeypatch.setattr(FilePublisher, "write_tables", write)
    running = run(3, camera="lossless")
    running.wait_for(lambda: running.written() == {"camera1", "camera2"})
    assert "File name too long" in (running.files.directory / "events.jsonl").read_text()


@pytest.mark.parametrize("limit", [{"WAITING_BYTES": 3 * 64 * 64 * 4}, {"WAITING_OVERLAYS": 3}], ids=str)
@pytest.mark.parametrize("policy", ["lossless", "latest"])
def test_slow_drawing_never_holds_up_atoms(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, policy: Policy, limit: dict[str, int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(drawing, name, value)
    monkeypatch.setattr(drawing, "FINISH_SECONDS", 0.1)
    may_draw = Event()
    write_overlay = FilePublisher.write_overlay

    def write(files: FilePublisher, *arguments: Any) -> None:
        may_draw.wait(PATIENCE_SECONDS)
        write_overlay(files, *arguments)

    monkeypatch.setattr(FilePublisher, "write_overlay", write)
    running = run(12, camera=policy)
    last = "camera11"
    running.wait_for(lambda: last in running.written())
    if policy == "lossless":
        assert len(running.written()) == 12
        assert running.drops.counts["camera", drawing.NO_ROOM] > 0
    assert not running.written("*.png")
    may_draw.set()
    running.wait_for(lambda: bool(running.written("*.png")))
    if policy == "latest":
        running.wait_for(lambda: last in running.written("*.png"))
