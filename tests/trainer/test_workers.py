"""Nothing goes on working for a command that was killed."""

import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

PARENT = """
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from trainer.workers import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_workers_of_a_killed_command_end(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout
        worker = Path("/proc") / parent.stdout.readline().decode().strip()
        assert (worker / "stat").exists()
        parent.kill()
        parent.wait()
        deadline = monotonic() + 30
        while _runs(worker):
            assert monotonic() < deadline
            sleep(0.05)


def _runs(process: Path) -> bool:
    """Whether it is there; one that ended and that nobody waited for is not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
