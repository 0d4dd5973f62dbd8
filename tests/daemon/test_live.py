"""The whole way over ZeroMQ: `hrtemd replay` sends, `hrtemd run` analyses, `daemon.client` receives."""

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import zmq

from daemon.client import Atoms, Client, Event, NoResultsError, Status
from daemon.keys import make_keys
from daemon.ledger import read_history
from daemon.sources.spool import Spool

WriteFrame = Callable[..., Path]
PATIENCE_SECONDS = 120.0  # the machine may be busy

ANY = "tcp://127.0.0.1:*"

CONFIG = """
[[sources]]
name = "camera"
type = "{format}"
endpoint = "tcp://127.0.0.1:*"
bind = true
model = "{model}"
spool = "spool"
{keys}
[publish.zeromq]
endpoint = "{endpoint}"
replay_endpoint = "{replay_endpoint}"
{keys}

[alerts]
signal_below = 1e9
"""


FOLDER_CONFIG = """
[[sources]]
name = "camera"
type = "directory"
path = "{folder}"
model = "{model}"
pixel_size_angstrom = 0.1

[publish.zeromq]
endpoint = "tcp://127.0.0.1:*"
replay_endpoint = "tcp://127.0.0.1:*"
"""


class Live:
    """A daemon whose endpoints the system chooses."""

    def __init__(self, folder: Path, command: Path, model: Path) -> None:
        self.results = folder / "results"
        self._config, self._log = folder / "config.toml", folder / "log"
        self._command, self._model = command, model
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, message_format: str = "array-1.0", keys: str = "", endpoints: Sequence[str] = (ANY, ANY)) -> None:
        endpoint, replay_endpoint = endpoints
        config = CONFIG.format(
            format=message_format, model=self._model, keys=keys, endpoint=endpoint, replay_endpoint=replay_endpoint
        )
        self._run(config)
        self.camera = self._said(r"bound to (\S+)")

    def watch(self, folder: Path) -> None:
        """Start it with a folder in place of a camera."""
        self._run(FOLDER_CONFIG.format(folder=folder, model=self._model))

    def _run(self, config: str) -> None:
        self._config.write_text(config)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([self._command, "run", "--config", self._config], stderr=log)
        self.endpoint, self.replay_endpoint = self._said(r"sent from (\S+), "), self._said(r"again from (\S+)")

    def replay(self, *arguments: object) -> None:
        command = [self._command, "replay", *arguments, "--to", self.camera, "--rate", "20"]
        subprocess.run([str(part) for part in command], check=True, timeout=PATIENCE_SECONDS, capture_output=True)

    def client(self, *receive: type, from_start: bool = True, **keys: Path) -> Client:
        return Client(
            self.endpoint,
            receive=receive or (Atoms,),
            from_start=from_start,
            timeout_seconds=PATIENCE_SECONDS,
            replay_endpoint=self.replay_endpoint,
            **keys,
        )

    def end(self, request: int = signal.SIGTERM) -> int | None:
        if self._process is None:
            return None
        self._process.send_signal(request)
        return self._process.wait(PATIENCE_SECONDS)

    def _said(self, pattern: str) -> str:
        deadline = monotonic() + PATIENCE_SECONDS
        while not (match := re.search(pattern, self._log.read_text())):
            assert self._process
            assert self._process.poll() is None, self._log.read_text()
            assert monotonic() < deadline, self._log.read_text()
            sleep(0.02)
        return match[1]


@pytest.fixture
def live(tmp_path: Path, hrtemd_path: Path, blob_model: Path) -> Iterator[Live]:
    live = Live(tmp_path, hrtemd_path, blob_model)
    yield live
    live.end(signal.SIGKILL)


def write_session(folder: Path, write_frame: WriteFrame, *blobs: int) -> Path:
    for index, number in enumerate(blobs):
        path = write_frame(folder / f"frame{index}.npy", blobs=number, seed=index)
        path.with_suffix(".json").write_text('{"pixel_size_angstrom": 0.1}')
    return folder


@pytest.mark.parametrize("message_format", ["array-1.0", "dectris-v1", "dectris-stream2"])
def test_what_a_camera_sends_comes_back_as_atoms(
    live: Live, tmp_path: Path, write_frame: WriteFrame, message_format: str
) -> None:
    session = write_session(tmp_path / "session", write_frame, 3, 8, 5)
    live.start(message_format)

    live.replay(session, "--format", message_format)

    with live.client() as client:
        received = list(islice(client, 3))
    assert [atoms.table.num_rows for atoms in received] == [3, 8, 5]
    assert [atoms.sequence for atoms in received] == [1, 2, 3]
    assert live.end() == 0
    assert len(list(live.results.rglob("*.atoms.parquet"))) == 3


def test_the_same_with_keys(live: Live, tmp_path: Path, write_frame: WriteFrame) -> None:
    session = write_session(tmp_path / "session", write_frame, 3, 8)
    (daemon, _), (public, secret) = (make_keys(tmp_path / "keys", name) for name in ("daemon", "laptop"))
    (tmp_path / "allowed").mkdir()
    public.rename(tmp_path / "allowed" / public.name)
    live.start(keys='secret_key = "keys/daemon.key_secret"\nallowed_keys = "allowed"')

    live.replay(session, "--format", "array-1.0", "--secret-key", secret, "--server-key", daemon)

    with live.client(secret_key=secret, server_key=daemon) as client:
        assert [atoms.table.num_rows for atoms in islice(client, 2)] == [3, 8]
    assert live.end() == 0


def statuses(client: Client) -> Iterator[dict[str, Any]]:
    """What each heartbeat says of the source."""
    for status in client:
        yield status.header["sources"]["camera"]


def test_a_heartbeat_tells_how_each_source_is(live: Live, tmp_path: Path, write_frame: WriteFrame) -> None:
    session = write_session(tmp_path / "session", write_frame, 3, 8, 5)
    (session / "frame1.json").unlink()  # no pixel size, and no lattice that tells one
    live.start()
    with live.client(Status) as client:
        camera = next(statuses(client))
        assert (camera["connected"], camera["senders"], camera["seconds_since_last_frame"]) == (False, 0, None)
        assert camera["endpoint"] == live.camera
        ((model, backend),) = camera["models"].items()
        assert model == "blobs"
        assert "CPU" in backend
        assert camera["waiting"] == dict.fromkeys(("prepare", "infer", "decode", "publish", "file", "draw"), 0)

        with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
            sender.linger = 0
            sender.connect(live.camera)
            camera = next(camera for camera in statuses(client) if camera["connected"])
            assert camera["senders"] == 1
        next(camera for camera in statuses(client) if not camera["connected"])

        live.replay(session, "--format", "array-1.0")
        camera = next(camera for camera in statuses(client) if camera["analysed"] == 2)
        assert (camera["received"], camera["failed"], camera["skipped"], camera["dropped"]) == (3, 1, 0, {})
        assert camera["seconds_since_last_frame"] < PATIENCE_SECONDS
        assert camera["spool_bytes"] > 0
    assert live.end() == 0


def test_a_heartbeat_tells_that_a_folder_is_out_of_reach(live: Live, tmp_path: Path, write_frame: WriteFrame) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    live.watch(folder)
    with live.client(Status) as client:
        next(camera for camera in statuses(client) if camera["connected"])
        write_frame(folder / "frame.npy", blobs=4)
        camera = next(camera for camera in statuses(client) if camera["analysed"] == 1)
        assert (camera["received"], camera["folder"]) == (1, str(folder))
        folder.rename(tmp_path / "away")
        next(camera for camera in statuses(client) if not camera["connected"])
        (tmp_path / "away").rename(folder)
        next(camera for camera in statuses(client) if camera["connected"])
    assert live.end() == 0


def test_a_daemon_that_was_killed_publishes_each_frame_once_and_goes_on_counting(
    live: Live, tmp_path: Path, write_frame: WriteFrame
) -> None:
    session = write_session(tmp_path / "session", write_frame, 2, 4, 6, 3, 7)
    live.start()
    live.replay(session, "--format", "array-1.0")
    live.end(signal.SIGKILL)

    live.start()
    with live.client() as client:
        received = list(islice(client, 5))
    live.replay(write_session(tmp_path / "later", write_frame, 9), "--format", "array-1.0")
    with live.client() as client:
        last = list(islice(client, 6))[-1]

    assert [atoms.table.num_rows for atoms in received] == [2, 4, 6, 3, 7]
    assert [atoms.sequence for atoms in received] == [1, 2, 3, 4, 5]
    assert (last.sequence, last.table.num_rows) == (6, 9)


def test_a_client_that_iterates_while_the_daemon_dies_and_returns_loses_and_doubles_nothing(
    live: Live, tmp_path: Path, write_frame: WriteFrame
) -> None:
    sockets = [f"ipc://{tmp_path}/{name}" for name in ("sent", "asked")]  # the same after a restart
    live.start(endpoints=sockets)
    client = live.client()
    client._timeout_seconds = 0.5
    seen: list[Atoms] = []
    enough = threading.Event()

    def iterate() -> None:
        while not enough.is_set():
            with suppress(NoResultsError):
                seen.append(next(client))

    thread = threading.Thread(target=iterate)
    thread.start()
    try:
        for round_, ending in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
            session = write_session(tmp_path / f"session{round_}", write_frame, *range(1 + round_, 7 + round_))
            live.replay(session, "--format", "array-1.0")
            live.end(ending)
            live.start(endpoints=sockets)
        live.replay(write_session(tmp_path / "last", write_frame, 20), "--format", "array-1.0")
        with live.client() as late:
            published = []
            while not published or published[-1].table.num_rows != 20:
                published.append(next(late))
        deadline = monotonic() + PATIENCE_SECONDS
        while len(seen) < len(published) and monotonic() < deadline:
            sleep(0.1)
        sleep(1.5)  # in which nothing may come twice
    finally:
        enough.set()
        thread.join()
        client.close()
    assert [atoms.sequence for atoms in seen] == list(range(1, len(published) + 1))
    assert [atoms.header for atoms in seen] == [atoms.header for atoms in published]
    assert len({atoms.header["frame_id"] for atoms in seen}) == len(seen)


def test_what_goes_wrong_is_an_event_and_stands_in_the_ledger(
    live: Live, tmp_path: Path, write_frame: WriteFrame
) -> None:
    session = write_session(tmp_path / "session", write_frame, 3)
    (session / "frame0.json").unlink()  # no pixel size, and no lattice that tells one
    live.start()

    live.replay(session, "--format", "array-1.0")

    with live.client(Event) as client:
        event = next(iter(client))
    assert "pixel size" in event.sentence
    assert live.end() == 0
    (entry,) = read_history(live.results / "ledger.sqlite", source="camera", state="failed", since=None, limit=5)
    assert entry.error == event.sentence
    assert not list(live.results.rglob("*.atoms.parquet"))


def test_an_alert_reaches_who_listens(live: Live, tmp_path: Path, write_frame: WriteFrame) -> None:
    session = write_session(tmp_path / "session", write_frame, 3)
    live.start()

    live.replay(session, "--format", "array-1.0")

    with live.client(Event) as client:
        event = next(iter(client))
    assert event.header["alert"] == "signal"
    assert "signal is too low" in event.sentence


def test_frames_that_end_in_no_series_leave_the_spool_once_it_was_said_why(
    tmp_path: Path, hrtemd_path: Path, blob_triplet_model: Path, write_frame: WriteFrame
) -> None:
    live = Live(tmp_path, hrtemd_path, blob_triplet_model)
    session = write_session(tmp_path / "session", write_frame, 3, 8)  # of no series, and without a defocus
    try:
        live.start()
        live.replay(session, "--format", "array-1.0")
        with live.client(Event) as client:
            sentences = [event.sentence for event in islice(client, 2)]
        assert live.end() == 0
    finally:
        live.end(signal.SIGKILL)
    assert all("belongs to no series" in sentence for sentence in sentences)
    assert [stored.is_finished for stored in Spool(tmp_path / "spool" / "camera", 2**30).stored()] == [True, True]
