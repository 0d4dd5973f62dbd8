"""A frame that brings the daemon down is found among those that were in work with it, and set aside by name."""

import errno
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.errors import HrtemdError
from daemon.ledger import Ledger, LedgerLimits, read_history
from daemon.publish.outlet import MOST_ATTEMPTS
from tests.daemon.staging import GatedRecogniser, arrival_of, running, wait_for

WriteFrame = Callable[..., Path]

CONFIG = """
[[sources]]
name = "camera"
type = "directory"
path = "incoming"
model = "{model}"
pixel_size_angstrom = 0.1

[recognition]
backend = "onnxruntime"

[publish.files]
overlays = false
"""


def test_frames_that_were_in_work_when_the_process_died_go_their_way_alone(tmp_path: Path, blob_model: Path) -> None:
    suspects = [arrival_of("camera", index) for index in range(3)]
    with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        for arrival in suspects:  # and then the process dies
            ledger.receive("camera", arrival.subject.frame_id, arrival.origin, arrival.subject.received_at)
            ledger.begin("camera", arrival.subject.frame_id)
    recogniser = GatedRecogniser(blob_model)
    with running(tmp_path, recogniser, camera="lossless") as run:
        company: dict[str, set[str]] = {}

        def note(stage: str, name: str) -> None:
            begun = {frame_id for _, frame_id in run.outlet.begun}
            company.setdefault(name, set()).update(begun)

        recogniser.before = note
        assert [run.ledger.attempts("camera", arrival.subject.frame_id) for arrival in suspects] == [0, 0, 0]
        run.feeds["camera"].send(*range(6))
        wait_for(lambda: len(run.published("camera")) == 6)
    assert [company[arrival.subject.name] for arrival in suspects] == [
        {arrival.subject.frame_id} for arrival in suspects
    ]
    assert set(company) == {f"camera{index}" for index in range(6)}


def test_a_suspect_is_not_kept_waiting_by_a_frame_whose_failure_could_not_be_written(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect = arrival_of("camera", 1)
    with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        ledger.receive("camera", suspect.subject.frame_id, suspect.origin, suspect.subject.received_at)
        ledger.begin("camera", suspect.subject.frame_id)
    with running(tmp_path, GatedRecogniser(blob_model), camera="lossless") as run:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "events.jsonl")

        monkeypatch.setattr(run.outlet.files, "write_event", full)
        blank = replace(arrival_of("camera", 0).subject, pixels=np.ones((64, 64), np.float32))
        run.feeds["camera"].pass_on(replace(arrival_of("camera", 0), subject=blank))
        run.feeds["camera"].send(1)
        wait_for(lambda: run.published("camera") == ["camera1"])
        assert run.ledger.attempts("camera", blank.frame_id) == 0


def test_a_frame_that_kills_the_process_is_set_aside_and_all_others_are_published_once(
    tmp_path: Path, blob_model: Path, write_frame: WriteFrame
) -> None:
    names = ["a", "b", "c-poison", "d", "e", "f"]
    for seed, name in enumerate(names):
        write_frame(tmp_path / "incoming" / f"{name}.npy", seed=seed)
    (tmp_path / "config.toml").write_text(CONFIG.format(model=blob_model))
    script = Path(__file__).with_name("poisoned_daemon.py")

    def run() -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, script, tmp_path / "config.toml"], stderr=subprocess.DEVNULL)

    def ends() -> dict[str, str]:
        ledger = tmp_path / "results" / "ledger.sqlite"
        try:
            entries = read_history(ledger, source=None, state=None, since=None, limit=100)
        except HrtemdError:  # there is none yet
            return {}
        return {Path(entry.origin).stem: entry.state for entry in entries if entry.state != "received"}

    deaths = 0
    while len(ends()) < len(names):
        process = run()
        try:
            wait_for(lambda process=process: process.poll() is not None or len(ends()) == len(names))
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            else:
                assert process.returncode == -signal.SIGKILL
                deaths += 1
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert deaths <= 1 + MOST_ATTEMPTS, "once in company, then alone"
    assert ends() == {name: "failed" if "poison" in name else "published" for name in names}
    with closing(Ledger(tmp_path / "results" / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        sent = Counter(message.header["name"] for message in ledger.after("atoms/camera", 0))
        (event,) = ledger.after("event/camera", 0)
    assert sent == {name: 1 for name in names if "poison" not in name}
    assert event.header["error"].startswith("c-poison is set aside: hrtemd ended 2 times while it analysed it")
