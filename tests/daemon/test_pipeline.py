"""Stages work side by side and in order, and each frame ends once: published, dropped and counted, or set aside."""

import errno
import json
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from daemon import stage
from daemon.alerts import AlertWatch
from daemon.config.alerts import Alerts
from daemon.drops import Drops
from daemon.inbox import LOSSLESS_CAPACITY, NEWER
from daemon.ledger import Ledger, LedgerLimits, read_history
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.choice import ModelChoice, Offer
from daemon.sources.source import Arrival
from tests.daemon.staging import PATIENCE_SECONDS, Feed, GatedRecogniser, Running, arrival_of, running, wait_for


def names(source: str, *indices: int) -> list[str]:
    return [f"{source}{index}" for index in indices]


def states(folder: Path) -> dict[str, str]:
    entries = read_history(folder / "ledger.sqlite", source=None, state=None, since=None, limit=1000)
    return {entry.origin.removesuffix(".npy"): entry.state for entry in entries}


def test_while_a_frame_is_in_the_engine_the_next_is_prepared_and_the_one_before_decoded(
    tmp_path: Path, blob_model: Path
) -> None:
    recogniser = GatedRecogniser(blob_model, closed="infer decode")
    with running(tmp_path, recogniser, camera="lossless") as run:
        run.feeds["camera"].send(0, 1, 2)
        recogniser.permits["infer"].release()
        # Frame 0 is being decoded, 1 is in the engine: neither may end.
        wait_for(lambda: recogniser.begun["decode"] == names("camera", 0))
        wait_for(lambda: recogniser.begun["infer"] == names("camera", 0, 1))
        wait_for(lambda: recogniser.begun["prepare"] == names("camera", 0, 1, 2))
        assert run.published("camera") == []
        wait_for(lambda: run.pipeline.waiting()["infer"] == {"camera": 1})


def test_each_source_gets_its_results_in_order(tmp_path: Path, blob_model: Path) -> None:
    with running(tmp_path, GatedRecogniser(blob_model), left="lossless", right="lossless") as run:
        for feed in run.feeds.values():
            feed.send(*range(25))
        wait_for(lambda: len(run.published("left")) == len(run.published("right")) == 25)
        for source in ("left", "right"):
            assert run.published(source) == names(source, *range(25))
        header = run.ledger.after("atoms/left", 0)[-1].header
        assert header["latency_ms"].keys() == {"read", "wait", "prepare", "infer", "decode"}
        assert header["latency_ms"]["wait"] > 0
        assert not run.drops.counts


def test_a_lossless_source_is_held_up_by_a_busy_engine_and_loses_nothing(tmp_path: Path, blob_model: Path) -> None:
    recogniser = GatedRecogniser(blob_model, closed="infer")
    with running(tmp_path, recogniser, camera="lossless") as run:
        run.feeds["camera"].send(*range(30))
        # In the engine, waiting for it, waiting to be prepared, and in the hands of the source.
        most = 1 + 1 + LOSSLESS_CAPACITY + 1
        wait_for(lambda: run.feeds["camera"].taken == most)
        recogniser.permits["infer"].release(30)
        wait_for(lambda: len(run.published("camera")) == 30)
        assert run.published("camera") == names("camera", *range(30))


def test_of_a_live_source_the_newest_prepared_frame_takes_the_place_of_the_one_that_waits_for_the_engine(
    tmp_path: Path, blob_model: Path
) -> None:
    recogniser = GatedRecogniser(blob_model, closed="infer")
    with running(tmp_path, recogniser, camera="latest") as run:
        run.feeds["camera"].send(0)
        wait_for(lambda: recogniser.begun["infer"])
        for index in range(1, 8):
            run.feeds["camera"].send(index)
            wait_for(lambda index=index: recogniser.begun["prepare"][-1] == f"camera{index}")
        wait_for(lambda: run.drops.counts["camera", NEWER] == 6)
        for number in (1, 2):
            recogniser.permits["infer"].release()
            wait_for(lambda number=number: len(run.published("camera")) == number)
        assert run.published("camera") == names("camera", 0, 7)
        assert run.drops.counts == {("camera", NEWER): 6}
        # Those that were begun and dropped leave nothing behind.
        assert states(tmp_path) == {"camera0": "published", "camera7": "published"}
        assert run.outlet.begun == set()


def test_live_frames_are_published_or_counted(tmp_path: Path, blob_model: Path) -> None:
    with running(tmp_path, GatedRecogniser(blob_model), camera="latest") as run:
        run.feeds["camera"].send(*range(300))
        wait_for(lambda: run.published("camera")[-1:] == ["camera299"])
        published = run.published("camera")
        assert len(published) + run.drops.counts["camera", NEWER] == 300
        assert published == sorted(published, key=lambda name: int(name.removeprefix("camera")))
        assert set(states(tmp_path).values()) == {"published"}


def test_stopping_finishes_what_is_in_work_and_leaves_the_rest_as_if_it_had_never_come(
    tmp_path: Path, blob_model: Path
) -> None:
    recogniser = GatedRecogniser(blob_model, closed="infer")
    with running(tmp_path, recogniser, camera="lossless") as run:
        run.feeds["camera"].send(*range(20))
        wait_for(lambda: recogniser.begun["prepare"] == names("camera", 0, 1))
        stopping = Thread(target=run.stop)
        stopping.start()
        recogniser.permits["infer"].release(20)
        stopping.join()
        published = run.published("camera")
        assert published == recogniser.begun["prepare"]
        assert 2 <= len(published) < 20
        assert set(states(tmp_path)) == set(published)
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:
        run.feeds["camera"].send(*range(20))
        wait_for(lambda: len(run.published("camera")) == 20)
        assert run.published("camera") == names("camera", *range(20))
        assert run.pipeline.counts["skipped"] == len(published)


def test_atoms_are_out_before_their_files_are_begun(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = Event()
    write_tables = FilePublisher.write_tables

    def write(files: FilePublisher, *arguments: Any) -> Path:
        may_write.wait(PATIENCE_SECONDS)
        return write_tables(files, *arguments)

    monkeypatch.setattr(FilePublisher, "write_tables", write)
    with running(tmp_path, GatedRecogniser(blob_model), camera="latest") as run:
        run.feeds["camera"].send(0)
        wait_for(lambda: run.published("camera") == ["camera0"])
        assert not list((tmp_path / "results").glob("camera0*"))
        run.feeds["camera"].send(1)
        wait_for(lambda: run.published("camera") == ["camera0", "camera1"])
        may_write.set()
        wait_for(lambda: len(list((tmp_path / "results").glob("*.parquet"))) == 2)


def test_a_result_whose_files_cannot_be_written_stays_published_and_is_told_of(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk("camera", monkeypatch)
    with running(tmp_path, GatedRecogniser(blob_model), camera="latest") as run:
        run.feeds["camera"].send(0)
        wait_for(lambda: run.pipeline.counts["failed"] == 1)
        wait_for(lambda: run.ledger.newest("event/camera") == 1)
        (event,) = run.ledger.after("event/camera", 0)
        assert "No space left on device" in event.header["error"]
        assert run.published("camera") == ["camera0"]
        assert set(states(tmp_path).values()) == {"published"}
    disk.is_full = False
    with running(tmp_path, GatedRecogniser(blob_model), camera="latest"):
        assert not list((tmp_path / "results").glob("*.parquet")), "it was given up, not left to the next start"


class FullDisk:
    """While it is full, tables of one source cannot be written."""

    def __init__(self, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self.refused: list[str] = []
        write_tables = FilePublisher.write_tables

        def write(files: FilePublisher, arrival: Arrival, *arguments: Any) -> Path:
            if self.is_full and arrival.source == source:
                self.refused.append(arrival.subject.name)
                raise OSError(errno.ENOSPC, "No space left on device", "camera.atoms.csv")
            return write_tables(files, arrival, *arguments)

        monkeypatch.setattr(FilePublisher, "write_tables", write)


def test_a_source_that_waits_for_its_disk_fills_its_own_queues_only_and_nothing_is_recognised_twice(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_SHORTEST_HOLD_SECONDS", 0.02)
    disk = FullDisk("camera", monkeypatch)
    recogniser = GatedRecogniser(blob_model)
    with running(tmp_path, recogniser, camera="lossless", other="lossless") as run:
        run.feeds["camera"].send(*range(20))
        wait_for(lambda: len(disk.refused) > 2)
        run.feeds["other"].send(*range(20))
        wait_for(lambda: len(run.published("other")) == 20)
        assert run.feeds["camera"].taken < 20
        assert run.published("camera") == ["camera0"], "it is out, and its files wait"
        disk.is_full = False
        wait_for(lambda: len(run.published("camera")) == 20)
        assert run.published("camera") == names("camera", *range(20))
        assert [name for name in recogniser.begun["infer"] if "camera" in name] == names("camera", *range(20))


def test_a_daemon_stopped_while_its_disk_is_full_ends_and_goes_on_in_order(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk("camera", monkeypatch)
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:
        run.feeds["camera"].send(*range(10))
        wait_for(lambda: disk.refused)
        run.stop()
        assert set(disk.refused) == {"camera0"}, "none overtakes the first"
    disk.is_full = False
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:
        run.feeds["camera"].send(*range(10))
        wait_for(lambda: len(run.published("camera")) == 10)
        assert run.published("camera") == names("camera", *range(10))


def failing(recogniser: GatedRecogniser, stage: str, name: str, times: int) -> None:
    failures = iter(range(times))

    def fail(entered: str, frame: str) -> None:
        if (entered, frame) == (stage, name) and next(failures, None) is not None:
            raise ZeroDivisionError("nobody foresaw this")

    recogniser.before = fail


def events_of(run: Running) -> list[dict[str, Any]]:
    return [message.header for message in run.ledger.after("event/camera", 0)]


@pytest.mark.parametrize("where", ["prepare", "infer", "decode"])
def test_a_frame_that_fails_as_nobody_foresaw_is_tried_once_more_then_set_aside_by_name(
    tmp_path: Path, blob_model: Path, where: str
) -> None:
    recogniser = GatedRecogniser(blob_model)
    with running(tmp_path, recogniser, camera="lossless") as run:
        failing(recogniser, where, "camera1", times=1)
        run.feeds["camera"].send(*range(3))
        wait_for(lambda: len(run.published("camera")) == 3)
        assert run.published("camera") == names("camera", 0, 1, 2)
        assert not events_of(run)

        failing(recogniser, where, "camera4", times=2)
        run.feeds["camera"].send(*range(3, 6))
        wait_for(lambda: run.published("camera")[-1] == "camera5")
        assert run.published("camera") == names("camera", 0, 1, 2, 3, 5)
        (event,) = events_of(run)
        assert event["error"] == (
            f"camera4 is set aside: {where} failed on it twice (ZeroDivisionError: nobody foresaw this). "
            "Please report it, with the file and the log."
        )
        assert states(tmp_path)["camera4"] == "failed"
        lines = (tmp_path / "results" / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["origin"] for line in lines] == ["camera4.npy"]


def test_a_result_that_is_published_stays_so_whatever_fails_behind_it(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("nobody foresaw this")

        monkeypatch.setattr(run.outlet, "_forget", fail)
        run.feeds["camera"].send(0)
        wait_for(lambda: run.pipeline.counts["analysed"] == 1)
        assert run.published("camera") == ["camera0"]
        assert states(tmp_path) == {"camera0": "published"}
        assert not events_of(run)


def test_a_frame_that_is_only_drawn_after_a_restart_is_neither_published_nor_told_again(
    tmp_path: Path, blob_model: Path
) -> None:
    recogniser = GatedRecogniser(blob_model)
    sha256 = recogniser.manifest.onnx_sha256
    overlay = tmp_path / "results" / "camera0.overlay.png"
    for resumed in (False, True):
        overlay.unlink(missing_ok=True)
        feed = Feed("camera")
        with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
            outlet = Outlet(FilePublisher(tmp_path / "results", overlays=True), ledger)
            alerts = {("camera", sha256): AlertWatch(Alerts(signal_below=1e9), recogniser.manifest)}
            models = {"camera": ModelChoice(Offer(recogniser))}
            pipeline = Pipeline(
                [feed], {"camera": "lossless"}, models, outlet, Drops(), on_end=lambda _: None, alerts=alerts
            )
            pipeline.start()
            feed.pass_on(arrival_of("camera", 0, resumed=resumed))
            wait_for(overlay.exists)
            pipeline.stop()
            assert ledger.newest("atoms/camera") == 1
            assert ledger.newest("event/camera") == 1
            assert outlet.begun == set()
