"""The daemon as the torture sees it: the installed command in a process that may be killed at any moment."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from daemon.client import Atoms, Client, Event, Overlay, Status
from daemon.client.results import Result
from daemon.errors import HrtemdError
from daemon.frames import MIN_FRAME_PIXELS
from tests.daemon.conftest import blob_pixels

HRTEMD = Path(sys.executable).with_name("hrtemd")
PATIENCE_SECONDS = 120.0  # the machine may be busy

SMALLEST_SIDE = MIN_FRAME_PIXELS
SMALLEST_PIXEL_ANGSTROM = 0.16
"""So large, the smallest frame covers the least field that is analysed."""

RESULTS = """
[publish.files]
directory = "results"
overlays = {overlays}

[publish.zeromq]
endpoint = "ipc://{folder}/results.socket"
replay_endpoint = "ipc://{folder}/replay.socket"
"""


def free_endpoint() -> str:
    """Return a TCP endpoint on this machine that nobody uses now, so that a restarted daemon or camera finds it again.

    Not ipc://: there, a sender that leaves takes along what lies in the kernel's buffers, as no camera on TCP does.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class Usage(NamedTuple):
    """What a process holds now."""

    memory_bytes: int
    descriptors: int
    threads: int


class DaemonProcess:
    """`hrtemd run` on a folder of its own; its endpoints are files there, so that a restart finds them free.

    Args:
        folder: Where config.toml, log and results go.
        config: Sources and all else but where results go; `{folder}` in it is replaced.
        overlays: Whether they are drawn.
        results: Sections about results, in place of the usual ones.
    """

    def __init__(self, folder: Path, config: str, *, overlays: bool = True, results: str = RESULTS) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.ledger = self.results / "ledger.sqlite"
        self.log = folder / "log"
        self._config = folder / "config.toml"
        text = config + results.replace("{overlays}", str(overlays).lower())
        self._config.write_text(text.replace("{folder}", str(folder)))
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._spawned_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.kill()
        if kind:
            print(self.said()[-5000:], file=sys.stderr)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def running_seconds(self) -> float:
        """Since it was spawned."""
        return monotonic() - self._spawned_at

    def spawn(self, terminal: int | None = None) -> None:
        """Start it, and do not wait; it logs to its log, or to the descriptor of a terminal."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._spawned_at = monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([HRTEMD, "run", "--config", self._config], stderr=terminal or log)

    def start(self) -> float:
        """Start it; return the seconds until it was ready."""
        self.spawn()
        self.wait_until(lambda: self.is_ready, pause_seconds=0.005)
        return self.running_seconds

    @property
    def is_ready(self) -> bool:
        return "ready;" in self.said()

    def said(self) -> str:
        """What it has logged since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_until(
        self, happened: Callable[[], object], seconds: float = PATIENCE_SECONDS, pause_seconds: float = 0.05
    ) -> bool:
        """Wait for something that the daemon does; return whether it happened in time. It must not end meanwhile."""
        deadline = monotonic() + seconds
        while not happened():
            assert self._process
            assert self._process.poll() is None, f"the daemon ended: {self.said()[-3000:]}"
            if monotonic() > deadline:
                return False
            sleep(pause_seconds)
        return True

    def usage(self) -> Usage:
        assert self._process
        process = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Usage(
            1024 * int(status["VmRSS"].split()[0]), len(list((process / "fd").iterdir())), int(status["Threads"])
        )

    def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        if self.is_alive:
            assert self._process
            self._process.kill()
            self._process.wait()

    def client(self, *receive: type[Result], **options: Any) -> "Client[Any]":
        return Client(
            f"ipc://{self.folder}/results.socket",
            replay_endpoint=f"ipc://{self.folder}/replay.socket",
            receive=receive or (Atoms,),
            **options,
        )

    def dropped(self, source: str) -> dict[str, int]:
        """Frames given up by reason, as its last log line tells."""
        ending = re.search(r"stopped: .*", self.said())
        pattern = rf"{re.escape(source)}: (\d+) dropped \((.*?)\)"
        return {reason: int(number) for number, reason in re.findall(pattern, ending[0] if ending else "")}


class Listener:
    """A client in a thread, as an operator's script would be, which keeps the headers of all it gets.

    Args:
        daemon: Whom to listen to; it may be restarted meanwhile.
        receive: Kinds of results.
    """

    def __init__(self, daemon: DaemonProcess, *receive: type[Result]) -> None:
        self.headers: list[dict[str, Any]] = []
        self.seen_at: list[float] = []
        """Seconds since 1970 at which each came."""
        self.troubles: list[str] = []
        self.status: dict[str, Any] = {}
        self._stop = threading.Event()
        self._client = daemon.client(*(receive or (Atoms,)), Status, from_start=True, timeout_seconds=0.5)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def of(self, kind: type[Result], source: str) -> list[dict[str, Any]]:
        """Headers of one kind and source so far."""
        schema = f"hrtemd.{kind.kind}.v1"
        return [header for header in list(self.headers) if header["schema"] == schema and header["source"] == source]

    def _listen(self) -> None:
        from time import time

        with self._client as client:
            while not self._stop.is_set():
                try:
                    result = next(client)
                except TimeoutError:  # the daemon is down, or has nothing
                    continue
                except HrtemdError as error:
                    self.troubles.append(str(error))
                    continue
                if isinstance(result, Status):
                    self.status = result.header
                elif isinstance(result, Atoms | Event | Overlay):
                    self.headers.append(result.header)
                    self.seen_at.append(time())


class Pictures:
    """Frames of bright blobs, each another one, cheap to make.

    Args:
        side: Pixels; of the 160 that there are, from the top left.
    """

    KINDS = 6

    def __init__(self, side: int = 160) -> None:
        self._side = side
        self._kinds = [
            np.clip(blob_pixels(6 * (kind + 1), seed=kind)[:side, :side], 0, None).astype(np.uint16)
            for kind in range(self.KINDS)
        ]

    def __getitem__(self, number: int) -> "np.ndarray[Any, np.dtype[np.uint16]]":
        pixels = self._kinds[number % self.KINDS].copy()
        # The number in the last row, one bit a pixel: too faint to matter, yet no two frames are alike.
        bits = np.array([int(bit) for bit in f"{number:032b}"], np.uint16)
        pixels[-1, :32] = 100 + bits
        return pixels


def parts_left_in(folder: Path) -> list[str]:
    """Temporary names of files that were never finished."""
    return [str(path) for path in folder.rglob(".*.part")]


@contextmanager
def in_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something beside, until told to stop; what it raises is raised here in the end."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if raised:
            raise raised[0]


def mount(folder: Path, size_bytes: int) -> None:
    """Put a small file system of its own into a folder; needs root.

    Raises:
        subprocess.CalledProcessError: It is not allowed here.
    """
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=True, capture_output=True
    )


def remount(folder: Path, *, read_only: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", folder], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    with suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


def may_mount(folder: Path) -> bool:
    """Whether this user may mount; most may not."""
    if os.geteuid() != 0:
        return False
    try:
        mount(folder, 2**16)
    except (OSError, subprocess.CalledProcessError):
        return False
    unmount(folder)
    return True
