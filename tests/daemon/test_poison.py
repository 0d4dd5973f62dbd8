"""A frame that brings the daemon down is found among those that were in work with it, and set aside by name."""

import errno
import json
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
overlays = {overlays}
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


NAMES = ["a", "b", "c-poison", "d", "e", "f"]
OTHERS = [name for name in NAMES if "poison" not in name]


class Poisoned:
    """A daemon that dies in one of its stages of one of the files, and is started again each time."""

    def __init__(self, folder: Path, model: Path, write_frame: WriteFrame, stage: str) -> None:
        for seed, name in enumerate(NAMES):
            write_frame(folder / "incoming" / f"{name}.npy", seed=seed)
        self.results = folder / "results"
        self._config = folder / "config.toml"
        self._config.write_text(CONFIG.format(model=model, overlays=str(stage == "draw").lower()))
        self._stage = stage

    def run_until(self, happened: Callable[[], bool]) -> int:
        """Run until something has happened; return how often the daemon died before it had."""
        deaths = 0
        while True:
            script = Path(__file__).with_name("poisoned_daemon.py")
            process = subprocess.Popen([sys.executable, script, self._config, self._stage], stderr=subprocess.DEVNULL)
            try:
                wait_for(lambda process=process: process.poll() is not None or happened())
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(60) == 0
                    return deaths
                assert process.returncode == -signal.SIGKILL
                deaths += 1
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def ends(self) -> dict[str, str]:
        try:
            entries = read_history(self.results / "ledger.sqlite", source=None, state=None, since=None, limit=100)
        except HrtemdError:  # there is none yet
            return {}
        return {Path(entry.origin).stem: entry.state for entry in entries if entry.state != "received"}

    def events(self) -> list[str]:
        events = self.results / "events.jsonl"
        return [json.loads(line)["error"] for line in events.read_text().splitlines()] if events.exists() else []

    def sent(self) -> Counter[str]:
        with closing(Ledger(self.results / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
            return Counter(message.header["name"] for message in ledger.after("atoms/camera", 0))


SET_ASIDE = "c-poison is set aside: hrtemd ended 2 times while it worked on it. Please report it, with the file."


def test_a_frame_that_kills_the_process_is_set_aside_and_all_others_are_published_once(
    tmp_path: Path, blob_model: Path, write_frame: WriteFrame
) -> None:
    daemon = Poisoned(tmp_path, blob_model, write_frame, stage="infer")
    deaths = daemon.run_until(lambda: len(daemon.ends()) == len(NAMES))
    assert deaths <= 1 + MOST_ATTEMPTS, "once in company, then alone"
    assert daemon.ends() == {name: "failed" if name not in OTHERS else "published" for name in NAMES}
    assert daemon.sent() == dict.fromkeys(OTHERS, 1)
    assert daemon.events() == [SET_ASIDE]


def test_a_frame_whose_overlay_kills_the_process_is_published_once_and_drawn_no_more(
    tmp_path: Path, blob_model: Path, write_frame: WriteFrame
) -> None:
    daemon = Poisoned(tmp_path, blob_model, write_frame, stage="draw")

    def is_drawn(name: str) -> bool:
        return (daemon.results / f"{name}.overlay.png").exists()

    deaths = daemon.run_until(lambda: bool(daemon.events()) and all(map(is_drawn, OTHERS)))
    assert deaths <= 2 + MOST_ATTEMPTS, "once when nobody suspected it, once in company, then alone"
    assert daemon.ends() == dict.fromkeys(NAMES, "published")
    assert daemon.sent() == dict.fromkeys(NAMES, 1)
    assert daemon.events() == [SET_ASIDE]
    assert not is_drawn("c-poison")
