"""What the daemon logs: whole for who reads it, and no hindrance where nobody does."""

import fcntl
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from daemon import log
from daemon.log import log_to_stderr
from tests.daemon.terminal import hung_terminal
from tests.daemon.test_run import PATIENCE_SECONDS, Daemon

WriteFrame = Callable[..., Path]


def test_a_terminal_that_hangs_holds_up_no_frame_and_no_end(
    tmp_path: Path, hrtemd_path: Path, blob_model: Path, write_frame: WriteFrame
) -> None:
    daemon = Daemon(tmp_path, hrtemd_path, blob_model)
    for number in range(20):
        write_frame(daemon.incoming / f"frame{number}.npy", blobs=1, seed=number)
    with hung_terminal() as terminal:
        process = subprocess.Popen([hrtemd_path, "run", "--config", daemon.config], stderr=terminal)
        try:
            deadline = monotonic() + PATIENCE_SECONDS
            while len(list(daemon.results.glob("*.overlay.png"))) < 20:
                assert process.poll() is None
                assert monotonic() < deadline
                sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()
            process.wait()


def test_lines_that_were_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(log, "_STDERR", write)
    monkeypatch.setattr(log, "MOST_LINES_WAITING", 10)
    said: list[bytes] = []

    def read_on() -> None:
        while piece := os.read(read, 4096):
            said.append(piece)

    terminal = threading.Thread(target=read_on)
    with log_to_stderr():
        for number in range(200):  # many more than pipe and memory hold
            logging.getLogger("daemon").info("%s", f"line {number} ".ljust(1000, "-"))
        terminal.start()
        while not any(b"line 9 " in piece for piece in said):
            sleep(0.01)
        logging.getLogger("daemon").info("the last")
    os.close(write)
    terminal.join()
    os.close(read)

    lines = b"".join(said).decode().splitlines()
    shown = [line for line in lines if " INFO line " in line]
    assert 10 <= len(shown) < 100
    told = [int(line.split()[0]) for line in lines if line.endswith("left out here: stderr did not take them in time")]
    assert sum(told) == 200 - len(shown)
    assert lines[-1].endswith(" INFO the last")
