"""What is published is published once, and a frame that brings the daemon down is set aside."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from daemon.atoms import from_stream, header_of
from daemon.errors import FrameError
from daemon.frames import Calibration, CalibrationSource, Frame, make_frame_id
from daemon.ledger import Ledger, LedgerLimits, read_history
from daemon.publish.files import FilePublisher
from daemon.publish.header import result_table
from daemon.publish.outlet import MOST_ATTEMPTS, Outlet
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser
from daemon.sources.source import Arrival, Failure


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        yield ledger


def arrival() -> Arrival:
    pixels = np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32)
    frame = Frame(pixels, make_frame_id("camera", "s", 1, pixels), "one", Calibration(0.1, CalibrationSource.METADATA))
    return Arrival("camera", "tcp://somewhere/one", frame, read_ms=0.0)


def outlet(folder: Path, ledger: Ledger, finished: list[str] | None = None) -> Outlet:
    files = FilePublisher(folder / "results", overlays=False)
    return Outlet(files, ledger, finish={"camera": finished.append} if finished is not None else None)


def test_a_frame_under_which_the_process_died_is_set_aside(tmp_path: Path, ledger: Ledger) -> None:
    frame = arrival()
    for _ in range(MOST_ATTEMPTS):  # each in a process that was killed meanwhile
        dying = outlet(tmp_path, ledger)
        assert not dying.is_published(frame)
        dying.begin(frame)
        dying.begin(frame)  # tried again in the same process, after a full disk

    living = outlet(tmp_path, ledger)
    assert not living.is_published(frame)
    with pytest.raises(FrameError, match=r"one is set aside: hrtemd ended 2 times") as error:
        living.begin(frame)

    living.write_failure(Failure("camera", frame.origin, error.value), str(error.value), frame)
    (entry,) = read_history(tmp_path / "ledger.sqlite", source=None, state=None, since=None, limit=9)
    assert (entry.state, entry.error) == ("failed", str(error.value))


def test_a_process_that_is_stopped_while_results_wait_blames_no_frame(tmp_path: Path, ledger: Ledger) -> None:
    frame = arrival()
    for _ in range(MOST_ATTEMPTS + 3):
        stopped = outlet(tmp_path, ledger)
        assert not stopped.is_published(frame)
        stopped.begin(frame)
        stopped.close()


def test_a_result_that_could_not_be_numbered_is_published_once_when_it_can(
    tmp_path: Path, ledger: Ledger, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, finished = arrival(), list[str]()
    publishing = outlet(tmp_path, ledger, finished)
    recognition = Recogniser(find_model(str(blob_model)), "onnxruntime").recognise(frame.subject)
    assert not publishing.is_published(frame)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "ledger.sqlite")

    with monkeypatch.context() as disk:
        disk.setattr(ledger, "post", full)
        with pytest.raises(OSError, match="No space"):
            publishing.publish(frame, recognition)
    assert not finished
    assert not publishing.is_published(frame)

    publishing.file(frame, publishing.publish(frame, recognition))

    assert finished == [frame.subject.frame_id]
    assert [message.sequence for message in ledger.after("atoms/camera", 0)] == [1]
    assert publishing.is_published(frame)
    assert len(list((tmp_path / "results").glob("*.parquet"))) == 1


@pytest.mark.parametrize("folder", ["", "day 1/grid:2", "a\udcff"])
def test_a_result_that_was_published_and_not_filed_is_filed_at_the_next_start_and_not_published_again(
    tmp_path: Path, ledger: Ledger, blob_model: Path, folder: str
) -> None:
    frame, finished = replace(arrival(), folder=PurePosixPath(folder), resumed=True), list[str]()
    dying = outlet(tmp_path, ledger, finished)
    assert not dying.is_published(frame)
    dying.begin(frame)
    recognition = Recogniser(find_model(str(blob_model)), "onnxruntime").recognise(frame.subject)
    published = dying.publish(frame, recognition)  # and there it dies
    assert not finished, "its files are still to be written, so its source must keep it"
    assert not list((tmp_path / "results").rglob("*.parquet"))

    living = outlet(tmp_path, ledger, finished)
    assert living.file_what_was_left() == 1
    assert living.is_published(frame)
    assert living.has_results(frame), "its files are those that it would have had"
    assert living.files.read_table(frame).equals(published.table)
    assert living.file_what_was_left() == 0
    assert [message.sequence for message in ledger.after("atoms/camera", 0)] == [1]


def test_files_of_a_frame_that_a_new_ledger_does_not_know_are_published_without_being_analysed_again(
    tmp_path: Path, ledger: Ledger, blob_model: Path
) -> None:
    frame, finished = arrival(), list[str]()
    recognition = Recogniser(find_model(str(blob_model)), "onnxruntime").recognise(frame.subject)
    table = result_table(frame, recognition)
    outlet(tmp_path, ledger).files.write_tables(frame, table)  # of a run with a ledger that was lost

    for _ in range(2):
        living = outlet(tmp_path, ledger, finished)
        living.is_published(frame)
        assert living.has_results(frame)
        living.finish(frame)  # as the pipeline does with what has its results

    (message,) = ledger.after("atoms/camera", 0)
    assert from_stream(message.payload).equals(table)
    assert header_of(table).items() <= message.header.items()
    assert finished[0] == frame.subject.frame_id
    assert ledger.state("camera", frame.subject.frame_id) == "published"


def test_all_frames_of_a_series_are_finished_with_it_those_included_that_were_not_chosen(
    tmp_path: Path, ledger: Ledger
) -> None:
    finished = list[str]()
    series = replace(arrival(), members=("one", "two", "three", "four"))
    failing = outlet(tmp_path, ledger, finished)
    assert not failing.is_published(series)
    failing.begin(series)
    failing.write_failure(Failure("camera", series.origin, FrameError("blank.")), "blank.", series)
    assert finished == ["one", "two", "three", "four"]


def test_a_frame_that_was_published_and_not_drawn_is_drawn_and_not_published_again(
    tmp_path: Path, ledger: Ledger, blob_model: Path
) -> None:
    recognition = Recogniser(find_model(str(blob_model)), "onnxruntime").recognise(arrival().subject)
    frame, finished = replace(arrival(), resumed=True), list[str]()
    dying = Outlet(FilePublisher(tmp_path / "results", overlays=True), ledger, finish={"camera": finished.append})
    assert not dying.is_published(frame)
    assert not dying.is_out(frame)
    stem = dying.file(frame, dying.publish(frame, recognition))
    assert not finished, "its overlay is still to be drawn, so it must come again should the process die now"

    living = Outlet(dying.files, ledger)
    assert living.is_published(frame)
    assert living.is_out(frame)
    assert not living.has_results(frame)
    assert living.files.stem_of(frame) == stem
    living.write_overlay(stem, recognition)

    assert living.has_results(frame)
    assert [message.sequence for message in ledger.after("atoms/camera", 0)] == [1]
