"""`hrtemd run`, the installed command in a process of its own."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest

from daemon.atoms import read_parquet
from daemon.ledger import read_history
from daemon.sources.directory_simulator import rename_in, write_in_pieces

WriteFrame = Callable[..., Path]
PATIENCE_SECONDS = 120.0  # the machine may be busy


class Daemon:
    """Starts and stops `hrtemd run` on a folder with `incoming` and `results`."""

    def __init__(self, folder: Path, command: Path, model: Path) -> None:
        self.incoming, self.results = folder / "incoming", folder / "results"
        self.incoming.mkdir()
        self.config, self.log = folder / "config.toml", folder / "log"
        self._command, self._model = command, model
        self._process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self, source: str = "", top: str = "") -> None:
        self.config.write_text(
            f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{self._model}"\n'
            f"pixel_size_angstrom = 0.1\n{source}\n{top}\n"
        )

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([self._command, "run", "--config", self.config], stderr=log)
        self.wait_for(lambda: "ready" in self.log.read_text())

    def wait_for(self, happened: Callable[[], bool]) -> None:
        deadline = monotonic() + PATIENCE_SECONDS
        while not happened():
            assert self._process
            assert self._process.poll() is None, self.log.read_text()
            assert monotonic() < deadline, self.log.read_text()
            sleep(0.02)

    def wait_for_results(self, *stems: str) -> None:
        self.wait_for(lambda: all((self.results / f"{stem}.overlay.png").exists() for stem in stems))

    def wait_for_table(self, stem: str) -> None:
        self.wait_for((self.results / f"{stem}.atoms.parquet").exists)

    def count(self, stem: str) -> int:
        rows: int = read_parquet(self.results / f"{stem}.atoms.parquet").num_rows
        return rows

    def state_of(self, stem: str) -> str | None:
        entries = read_history(self.results / "ledger.sqlite", source=None, state=None, since=None, limit=100)
        return next((entry.state for entry in entries if Path(entry.origin).stem == stem), None)

    def stop(self, request: int = signal.SIGTERM) -> int:
        assert self._process
        self._process.send_signal(request)
        return self._process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def daemon(tmp_path: Path, hrtemd_path: Path, blob_model: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, hrtemd_path, blob_model)
    yield daemon
    daemon.kill()


def test_frames_become_tables_errors_become_events_and_restarts_do_nothing_twice(
    daemon: Daemon, tmp_path: Path, write_frame: WriteFrame
) -> None:
    write_frame(daemon.incoming / "early.npy", blobs=1)
    daemon.start()
    write_in_pieces(write_frame(tmp_path / "slow.npy", blobs=2), daemon.incoming, pieces=4, pause_seconds=0.2)
    rename_in(write_frame(tmp_path / "renamed.npy", blobs=3, seed=1), daemon.incoming)
    write_frame(daemon.incoming / "session" / "deep.npy", blobs=4, seed=2)
    (daemon.incoming / "torn.npy").write_bytes((daemon.incoming / "slow.npy").read_bytes()[:500])
    daemon.wait_for_results("early", "slow", "renamed", "session/deep")
    events = daemon.results / "events.jsonl"
    daemon.wait_for(events.exists)

    assert daemon.stop() == 0
    stems = ("early", "slow", "renamed", "session/deep")
    assert [daemon.count(stem) for stem in stems] == [1, 2, 3, 4]
    (event,) = [json.loads(line) for line in events.read_text().splitlines()]
    assert event["source"] == "camera"
    assert event["origin"] == str(daemon.incoming / "torn.npy")
    assert "cut short" in event["error"]
    assert not list(daemon.results.glob("torn*"))
    assert daemon.state_of("torn") == "failed"
    log = daemon.log.read_text()
    assert "camera: renamed: 3 columns in" in log
    assert "stopped: 4 analysed, 1 failed" in log

    # After a restart only what lacks results, or has changed, is analysed.
    (daemon.incoming / "torn.npy").unlink()
    write_frame(daemon.incoming / "session" / "deep.npy", blobs=6, seed=2)
    (daemon.results / "renamed.overlay.png").unlink()
    os.utime(daemon.incoming / "early.npy")  # newer than its results, though the same
    write_frame(daemon.incoming / "meanwhile.npy", blobs=5)
    untouched = (daemon.results / "slow.atoms.parquet").stat().st_mtime_ns
    daemon.start()
    daemon.wait_for_results("meanwhile", "renamed", "session/deep")
    daemon.wait_for(lambda: daemon.count("session/deep") == 6)
    assert daemon.stop(signal.SIGINT) == 0
    assert "stopped: 3 analysed, 0 failed, 1 had their results already" in daemon.log.read_text()
    assert (daemon.results / "slow.atoms.parquet").stat().st_mtime_ns == untouched
    assert not list(daemon.results.rglob("*-2.*"))
    assert not list(daemon.results.rglob(".*"))


def test_results_may_lie_within_the_watched_folder(daemon: Daemon, write_frame: WriteFrame) -> None:
    daemon.configure(top='[publish.files]\ndirectory = "incoming"')
    daemon.results = daemon.incoming
    daemon.start()
    write_frame(daemon.incoming / "frame.npy", blobs=3)
    daemon.wait_for_results("frame")
    write_frame(daemon.incoming / "next.npy", blobs=4)
    daemon.wait_for_results("next")
    sleep(1.0)
    assert daemon.stop() == 0
    assert "stopped: 2 analysed, 0 failed" in daemon.log.read_text()


def test_live_view_drops_and_says_so(daemon: Daemon, write_frame: WriteFrame) -> None:
    daemon.configure(source='policy = "latest"')
    for index in range(5):
        os.utime(write_frame(daemon.incoming / f"old{index}.npy", blobs=index + 1), (1000 + index, 1000 + index))
    daemon.start()
    daemon.wait_for_results("old4")
    assert daemon.stop() == 0
    assert [path.name for path in daemon.results.glob("*.parquet")] == ["old4.atoms.parquet"]
    log = daemon.log.read_text()
    assert "camera: 4 dropped so far (files there before the newest one)" in log
    assert "0 had their results already; camera: 4 dropped (files there before the newest one)" in log


def test_stopping_leaves_no_half_result_and_the_next_start_finishes(daemon: Daemon, write_frame: WriteFrame) -> None:
    stems = [f"frame{index:02d}" for index in range(30)]
    for index, stem in enumerate(stems):
        write_frame(daemon.incoming / f"{stem}.npy", blobs=index + 1)
    daemon.start()
    daemon.wait_for(lambda: any(daemon.results.glob("*.atoms.parquet")))
    assert daemon.stop() == 0
    done = {path.name.removesuffix(".atoms.parquet") for path in daemon.results.glob("*.parquet")}
    assert {path.name.removesuffix(".overlay.png") for path in daemon.results.glob("*.png")} == done
    assert 0 < len(done) < len(stems), "it was stopped on the way"
    daemon.start()
    daemon.wait_for_results(*stems)
    assert daemon.stop() == 0
    assert [daemon.count(stem) for stem in stems] == list(range(1, 31))
    assert f"stopped: {len(stems) - len(done)} analysed" in daemon.log.read_text()


def test_results_that_a_dying_daemon_wrote_and_did_not_number_are_published_by_the_next(
    daemon: Daemon, write_frame: WriteFrame
) -> None:
    daemon.configure(top="[publish.files]\noverlays = false")
    write_frame(daemon.incoming / "frame.npy", blobs=3)
    ledger = daemon.results / "ledger.sqlite"

    def run_until_published() -> None:
        daemon.start()
        daemon.wait_for(lambda: daemon.state_of("frame") == "published")
        assert daemon.stop() == 0

    run_until_published()
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("DELETE FROM messages")
        connection.execute("UPDATE frames SET state = 'received', done_at = NULL")
    run_until_published()
    assert "stopped: 0 analysed" in daemon.log.read_text()
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT topic FROM messages").fetchall() == [("atoms/camera",)]


def test_results_that_a_dying_daemon_sent_and_did_not_write_are_written_by_the_next(
    daemon: Daemon, write_frame: WriteFrame
) -> None:
    daemon.configure(top="[publish.files]\noverlays = false")
    write_frame(daemon.incoming / "day" / "frame.npy", blobs=3)
    daemon.start()
    daemon.wait_for_table("day/frame")
    assert daemon.stop() == 0
    written = {path.name: path.read_bytes() for path in (daemon.results / "day").iterdir()}
    for name in written:
        (daemon.results / "day" / name).unlink()
    with closing(sqlite3.connect(daemon.results / "ledger.sqlite")) as connection, connection:
        connection.execute("INSERT INTO not_filed VALUES ('atoms/camera', 1, 'day')")

    daemon.start()
    daemon.wait_for(lambda: "results that an earlier run published have their files now: 1" in daemon.log.read_text())
    assert daemon.stop() == 0
    assert "stopped: 0 analysed, 0 failed" in daemon.log.read_text()
    assert {path.name: path.read_bytes() for path in (daemon.results / "day").iterdir()} == written


def test_the_model_is_chosen_by_what_a_frame_s_sidecar_tells(
    daemon: Daemon, write_frame: WriteFrame, blob_model: Path
) -> None:
    daemon.configure(source=f'[[sources.models]]\nmodel = "{blob_model}"\nvoltage_kv = [250, 320]')
    daemon.config.write_text(daemon.config.read_text().replace(f'model = "{blob_model}"\n', "", 1))
    for name, voltage_kv in (("high", 300), ("low", 80)):
        write_frame(daemon.incoming / f"{name}.npy", blobs=3).with_suffix(".json").write_text(
            json.dumps({"voltage_kv": voltage_kv})
        )
    daemon.start()
    daemon.wait_for_results("high")
    daemon.wait_for(lambda: daemon.state_of("low") == "failed")
    assert daemon.stop() == 0
    event = (daemon.results / "events.jsonl").read_text()
    assert (
        "low has a voltage of 80 kV and a pixel size of 0.1 Å, and no model of its source is for that: blobs" in event
    )
    assert not list(daemon.results.glob("low*"))


def test_a_second_one_on_the_same_folders_is_refused_and_harms_nothing(
    daemon: Daemon, hrtemd_path: Path, write_frame: WriteFrame
) -> None:
    daemon.start()
    second = subprocess.run(
        [hrtemd_path, "run", "--config", daemon.config],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert second.returncode == 1
    assert re.search(r"ledger\.sqlite: another hrtemd \(process \d+\) works with this ledger; stop it", second.stderr)
    write_frame(daemon.incoming / "frame.npy", 6)
    daemon.wait_for_results("frame")
    daemon.kill()
    daemon.start()
    assert daemon.stop() == 0
