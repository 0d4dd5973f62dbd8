"""`hrtemd run` with a model for focal series: frames in a watched folder become series, now or after a restart."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from daemon.atoms import header_of, read_parquet
from daemon.cli import main
from daemon.ledger import read_history

WriteFrame = Callable[..., Path]
PATIENCE_SECONDS = 120.0  # the machine may be busy

# Blobs on a grid look the same wherever they drift to: the daemon takes series as they are.
RUN_WITHOUT_DRIFT = """
from types import SimpleNamespace
import numpy as np
import daemon.recognition.recogniser as recogniser
from daemon.cli.run import run
recogniser.measure_drift = lambda *_: SimpleNamespace(drift_angstrom=np.zeros((3, 2)), warnings=[])
run()
"""


class Laboratory:
    """A watched folder, what is written into it, and a daemon that runs until something has happened."""

    def __init__(self, folder: Path, model: Path, write_frame: WriteFrame) -> None:
        self.incoming, self.results = folder / "incoming", folder / "results"
        self.incoming.mkdir()
        self.config = folder / "config.toml"
        self._log = folder / "log"
        self._model, self._write_frame = model, write_frame
        self.configure("")

    def configure(self, more: str) -> None:
        self.config.write_text(
            f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{self._model}"\n'
            f'pixel_size_angstrom = 0.1\n{more}\n[recognition]\nbackend = "onnxruntime"\n'
        )

    def take(self, series: str, index: int, blobs: int = 5) -> Path:
        """Write a frame of a series; its sidecar first, as acquisition programs should."""
        path = self.incoming / f"{series}-{index}.npy"
        sidecar = {"defocus_angstrom": -40.0 * index, "series_id": series, "series_index": index, "series_length": 3}
        path.with_suffix(".json").write_text(json.dumps(sidecar))
        return self._write_frame(path, blobs, seed=index)

    def run_until(self, happened: Callable[[], bool]) -> str:
        """Run the daemon until something has happened, stop it, and return its log."""
        with self._log.open("wb") as log:
            daemon = subprocess.Popen([sys.executable, "-c", RUN_WITHOUT_DRIFT, "--config", self.config], stderr=log)
        try:
            deadline = monotonic() + PATIENCE_SECONDS
            # Before the daemon is ready a signal would end it like any other process.
            while not ("ready" in self._log.read_text() and happened()):
                assert daemon.poll() is None, self._log.read_text()
                assert monotonic() < deadline, self._log.read_text()
                sleep(0.05)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE_SECONDS) == 0, self._log.read_text()
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
        return self._log.read_text()

    def has(self, *stems: str) -> bool:
        return all((self.results / f"{stem}.overlay.png").exists() for stem in stems)

    def written_at(self, stem: str) -> int:
        return (self.results / f"{stem}.atoms.parquet").stat().st_mtime_ns

    @property
    def events(self) -> list[dict[str, Any]]:
        file = self.results / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def stems(self) -> set[str]:
        return {path.name.removesuffix(".atoms.parquet") for path in self.results.rglob("*.parquet")}


@pytest.fixture
def laboratory(tmp_path: Path, blob_triplet_model: Path, write_frame: WriteFrame) -> Laboratory:
    return Laboratory(tmp_path, blob_triplet_model, write_frame)


def test_series_are_analysed_once_and_what_was_incomplete_after_the_missing_frame_came(
    laboratory: Laboratory,
) -> None:
    laboratory.configure("series_timeout_seconds = 1.0")
    for index in (2, 0, 1):
        laboratory.take("sheet", index, blobs=7)
    for index in (0, 2):
        laboratory.take("late", index, blobs=4)
    log = laboratory.run_until(lambda: laboratory.has("sheet") and bool(laboratory.events))

    assert laboratory.stems == {"sheet"}
    table = read_parquet(laboratory.results / "sheet.atoms.parquet")
    assert table.num_rows == 7
    assert header_of(table)["series"]["names"] == ["sheet-2", "sheet-1", "sheet-0"]
    (event,) = laboratory.events
    assert event["origin"] == str(laboratory.incoming / "late-0.npy")
    assert event["error"].startswith(
        "The series late is incomplete: of its 3 frames 1 is missing (index 1), and nothing"
    )
    assert "stopped: 1 analysed, 1 failed, 0 had their results already; camera: 2 dropped (series incomplete" in log
    ledger = laboratory.results / "ledger.sqlite"
    (entry,) = read_history(ledger, source=None, state="failed", since=None, limit=9)
    assert (entry.origin, entry.error) == (event["origin"], event["error"])

    # After a restart the missing frame completes its series, and nothing is done twice.
    laboratory.take("late", 1, blobs=4)
    written_at = laboratory.written_at("sheet")
    log = laboratory.run_until(lambda: laboratory.has("late"))
    assert "stopped: 1 analysed, 0 failed, 1 had their results already" in log
    assert laboratory.written_at("sheet") == written_at
    assert laboratory.stems == {"sheet", "late"}
    assert len(laboratory.events) == 1

    # What is told anew of a frame makes its series unfinished.
    sidecar = laboratory.incoming / "sheet-1.json"
    sidecar.write_text(sidecar.read_text().replace("-40.0", "-45.0"))
    laboratory.run_until(lambda: laboratory.written_at("sheet") != written_at and laboratory.has("sheet"))
    table = read_parquet(laboratory.results / "sheet.atoms.parquet")
    assert header_of(table)["series"]["defocus_angstrom"] == [-80, -45, 0]


def test_a_stack_and_interleaved_names_come_out_of_one_folder(laboratory: Laboratory, write_frame: WriteFrame) -> None:
    laboratory.configure(r"series_pattern = '^(?P<series>[a-z]+)_(?P<index>\d)$'")
    day = laboratory.incoming / "day 1"
    for index in range(3):
        for name in ("a", "b"):
            path = write_frame(day / f"{name}_{index}.npy", blobs=3, seed=index)
            path.with_suffix(".json").write_text(json.dumps({"defocus_angstrom": 40.0 * index}))
    stack = laboratory.incoming / "stack.npy"
    np.save(stack, np.stack([np.load(day / f"a_{index}.npy") for index in range(3)]))
    stack.with_suffix(".json").write_text(json.dumps({"defocus_angstrom": [40.0, 0.0, -40.0]}))
    laboratory.run_until(lambda: laboratory.has("day 1/a", "day 1/b", "stack"))
    assert laboratory.events == []
    series = header_of(read_parquet(laboratory.results / "stack.atoms.parquet"))["series"]
    assert (series["first"], series["names"][2]) == (2, "stack-0000")


def test_check_says_how_series_are_grouped(laboratory: Laboratory) -> None:
    laboratory.configure(r"series_pattern = '(?P<series>.+)-(?P<index>\d)'")
    done = CliRunner().invoke(main, ["check", "--config", str(laboratory.config)])
    assert done.exit_code == 0, done.stderr
    assert r"focal series by series_id, by file, by the file name ((?P<series>.+)-(?P<index>\d)), else" in done.stdout
    assert "given up when incomplete for 30 s" in done.stdout
