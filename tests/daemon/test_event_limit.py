"""A sender of garbage fills no disk, and hides no frame."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon import event_limit
from daemon.errors import FrameError
from daemon.event_limit import MOST_A_MINUTE, WITHHELD
from daemon.ledger import read_history
from daemon.sources.source import Arrival, Failure
from tests.daemon.staging import GatedRecogniser, Running, arrival_of, running, wait_for

ENDPOINT = "tcp://127.0.0.1:9999"


@pytest.fixture
def run(tmp_path: Path, blob_model: Path) -> Iterator[Running]:
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:
        yield run


def send_garbage(run: Running, number: int) -> None:
    for index in range(number):
        run.feeds["camera"].pass_on(Failure("camera", ENDPOINT, FrameError(f"Message {index} holds no frame.")))


def events_in(run: Running) -> list[str]:
    told = [message.header["error"] for message in run.ledger.after("event/camera", 0)]
    if told:
        lines = (run.outlet.files.directory / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["error"] for line in lines][: len(told)] == told
    return told


def test_the_first_failures_of_a_minute_are_told_one_by_one_and_the_rest_together(run: Running) -> None:
    send_garbage(run, 500)
    wait_for(lambda: run.pipeline.counts["failed"] == 500)
    first = [f"Message {index} holds no frame." for index in range(MOST_A_MINUTE)]
    assert events_in(run) == first
    run.stop()
    rest = 500 - MOST_A_MINUTE
    *told, last = events_in(run)
    assert told == first
    assert last == f"{rest} more like these came within a minute. The last: Message 499 holds no frame."
    assert run.drops.counts["camera", WITHHELD] == rest


def test_the_rest_is_told_when_the_minute_is_over_and_then_the_next_begins(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_limit, "_WINDOW_SECONDS", 2.0)
    send_garbage(run, MOST_A_MINUTE + 5)
    wait_for(lambda: len(events_in(run)) == MOST_A_MINUTE + 1)
    assert events_in(run)[-1].startswith("5 more like these")
    send_garbage(run, 1)
    wait_for(lambda: len(events_in(run)) == MOST_A_MINUTE + 2)


def test_every_frame_and_every_file_that_fails_is_told_by_name(run: Running, tmp_path: Path) -> None:
    send_garbage(run, 100)
    blank = np.ones((64, 64), np.float32)
    for index in range(3 * MOST_A_MINUTE):
        frame = replace(arrival_of("camera", index).subject, pixels=blank)
        run.feeds["camera"].pass_on(Arrival("camera", ENDPOINT, frame, read_ms=0.0))
        run.feeds["camera"].pass_on(Failure("camera", f"/data/torn{index}.npy", FrameError("is cut short.")))
    wait_for(lambda: run.pipeline.counts["failed"] == 100 + 6 * MOST_A_MINUTE)
    wait_for(lambda: len(events_in(run)) == 7 * MOST_A_MINUTE)
    entries = read_history(tmp_path / "ledger.sqlite", source=None, state="failed", since=None, limit=1000)
    assert len(entries) == 3 * MOST_A_MINUTE
