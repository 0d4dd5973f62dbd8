"""CURVE keys: who has the right ones is served as without any; nobody else sends, listens or asks."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Literal

import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.client import Atoms, Client, NoResultsError, connection
from daemon.drops import Drops
from daemon.errors import ConfigurationError
from daemon.keys import ClientKeys, Keys, ServerKeys, apply_keys, doorkeeper, keys_for, make_keys, read_secret
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.connection import Place
from daemon.sources.formats import FORMATS
from daemon.sources.replay import camera
from daemon.sources.source import Arrival, Failure
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.broadcasting import Station
from tests.daemon.wire import PATIENCE_SECONDS, has, images, sentences_in, take, values_in

LOOPBACK = "tcp://127.0.0.1:*"
MOMENT_MS = 1500  # long enough for whoever is let in

Arrivals = Iterator[Arrival | Failure | None]


class Ring:
    """Keys of a server, of a friend whom it lets in, and of a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.allowed = folder / "allowed"
        for name in ("server", "other-server", "friend", "stranger"):
            make_keys(folder, name)
        self.allowed.mkdir()
        self.allow("friend")

    def allow(self, name: str) -> None:
        (self.allowed / f"{name}.key").write_bytes((self.folder / f"{name}.key").read_bytes())

    @property
    def server(self) -> ServerKeys:
        return ServerKeys(self.folder / "server.key_secret", self.allowed)

    def client(self, name: str, server: str = "server") -> ClientKeys:
        return ClientKeys(self.folder / f"{name}.key_secret", self.folder / f"{server}.key")

    def wrong(self) -> dict[str, ClientKeys | None]:
        """Keys of clients that must not come in."""
        return {
            "none": None,
            "a key that is not allowed": self.client("stranger"),
            "the key of another server": self.client("friend", "other-server"),
        }


WRONG = ["none", "a key that is not allowed", "the key of another server"]


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path / "keys")


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def closing_all() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_source(stack: ExitStack, place: Place) -> tuple[ZeroMQSource, Arrivals]:
    decoder = FORMATS["array-1.0"].decoder()
    source = ZeroMQSource("camera", place, decoder, "lossless", None, DEFAULT_LIMITS, 2**20, Drops())
    arrivals = stack.enter_context(closing(source.arrivals(Event())))  # type: ignore[type-var]
    assert next(arrivals) is None
    return source, arrivals


def open_sender(stack: ExitStack, kind: int, keys: Keys | None, endpoint: str, *, bind: bool) -> zmq.Socket[bytes]:
    context = stack.enter_context(zmq.Context())
    stack.enter_context(doorkeeper(context, keys))
    sender = stack.enter_context(context.socket(kind))
    sender.linger = 0
    apply_keys(sender, keys)
    (sender.bind if bind else sender.connect)(endpoint)
    return sender


@pytest.mark.parametrize("socket", ["pull", "sub"])
@pytest.mark.parametrize("bind", [True, False])
def test_a_sender_with_the_right_keys_is_received(
    ring: Ring, closing_all: ExitStack, socket: Literal["pull", "sub"], bind: bool
) -> None:
    ours, theirs = (ring.server, ring.client("friend")) if bind else (ring.client("friend"), ring.server)
    kind = zmq.PUSH if socket == "pull" else zmq.XPUB
    if bind:
        source, arrivals = open_source(closing_all, Place(LOOPBACK, socket, bind, ours))
        sender = open_sender(closing_all, kind, theirs, source.endpoint, bind=False)
    else:
        sender = open_sender(closing_all, kind, theirs, LOOPBACK, bind=True)
        endpoint = sender.getsockopt_string(zmq.LAST_ENDPOINT)
        source, arrivals = open_source(closing_all, Place(endpoint, socket, bind, ours))
    take(arrivals, lambda _: source.senders == 1)
    if socket == "sub":
        assert sender.poll(1e3 * PATIENCE_SECONDS)
        assert sender.recv() == b"\1"  # subscribed
    for message in images("array-1.0", 3):
        sender.send_multipart(message.parts)
    found = take(arrivals, has(3))
    assert values_in(found) == [0, 1, 2]
    assert sentences_in(found) == []


@pytest.mark.parametrize("wrong", WRONG)
def test_a_sender_with_wrong_keys_sends_nothing_and_others_go_on(
    ring: Ring, closing_all: ExitStack, wrong: str
) -> None:
    source, arrivals = open_source(closing_all, Place(LOOPBACK, bind=True, keys=ring.server))
    stranger = open_sender(closing_all, zmq.PUSH, ring.wrong()[wrong], source.endpoint, bind=False)
    stranger.immediate = True
    message = images("array-1.0", 1, first=7)[0]
    with suppress(zmq.Again):  # there may be no connection to put it into
        stranger.send_multipart(message.parts, zmq.NOBLOCK)
    take(arrivals, lambda _: source.gauge()["refused"] > 0)
    assert source.senders == 0
    friend = open_sender(closing_all, zmq.PUSH, ring.client("friend"), source.endpoint, bind=False)
    for message in images("array-1.0", 2):
        friend.send_multipart(message.parts)
    found = take(arrivals, has(2))
    assert values_in(found) == [0, 1]
    assert sentences_in(found) == []
    take(arrivals, lambda _: source.senders == 1)


def test_a_key_that_is_added_lets_in_without_a_restart(
    ring: Ring, closing_all: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    source, arrivals = open_source(closing_all, Place(LOOPBACK, bind=True, keys=ring.server))
    (ring.allowed / "broken.key").write_text("no key at all")
    with ExitStack() as for_now:
        open_sender(for_now, zmq.PUSH, ring.client("stranger"), source.endpoint, bind=False)
        take(arrivals, lambda _: source.gauge()["refused"] > 0)
    public = read_secret(ring.folder / "stranger.key_secret")[0].decode()
    assert f"127.0.0.1 was refused: its public key {public} is not in {ring.allowed}" in caplog.text
    ring.allow("stranger")
    sender = open_sender(closing_all, zmq.PUSH, ring.client("stranger"), source.endpoint, bind=False)
    sender.send_multipart(images("array-1.0", 1)[0].parts)
    assert values_in(take(arrivals, has(1))) == [0]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_camera_that_wants_other_keys_is_an_event_and_tried_again(
    ring: Ring, closing_all: ExitStack, wrong: str
) -> None:
    sender = open_sender(closing_all, zmq.PUSH, ring.server, LOOPBACK, bind=True)
    endpoint = sender.getsockopt_string(zmq.LAST_ENDPOINT)
    source, arrivals = open_source(closing_all, Place(endpoint, keys=ring.wrong()[wrong]))
    found = take(arrivals, lambda _: source.gauge()["refused"] > 2)
    (sentence,) = sentences_in(found)
    assert sentence.startswith(f"{endpoint}: there is something, but no sender that agrees with this source on keys")
    if wrong == "a key that is not allowed":
        ring.allow("stranger")
        take(arrivals, lambda _: source.senders == 1)
        sender.send_multipart(images("array-1.0", 1)[0].parts)
        assert values_in(take(arrivals, has(1))) == [0]


def test_without_a_doorkeeper_nobody_comes_in(ring: Ring, closing_all: ExitStack) -> None:
    context = closing_all.enter_context(zmq.Context())
    receiver = closing_all.enter_context(context.socket(zmq.PULL))
    apply_keys(receiver, ring.server)
    receiver.bind(LOOPBACK)
    endpoint = receiver.getsockopt_string(zmq.LAST_ENDPOINT)
    sender = open_sender(closing_all, zmq.PUSH, ring.client("friend"), endpoint, bind=False)
    sender.send(b"")
    assert not receiver.poll(MOMENT_MS)


def test_a_folder_of_keys_that_goes_away_lets_nobody_in_and_harms_nobody(ring: Ring, closing_all: ExitStack) -> None:
    source, arrivals = open_source(closing_all, Place(LOOPBACK, bind=True, keys=ring.server))
    friend = open_sender(closing_all, zmq.PUSH, ring.client("friend"), source.endpoint, bind=False)
    take(arrivals, lambda _: source.senders == 1)
    ring.allowed.rename(ring.folder / "elsewhere")
    open_sender(closing_all, zmq.PUSH, ring.client("friend"), source.endpoint, bind=False)
    take(arrivals, lambda _: source.gauge()["refused"] > 0)
    friend.send_multipart(images("array-1.0", 1)[0].parts)
    assert values_in(take(arrivals, has(1))) == [0]
    assert source.senders == 1


@pytest.fixture
def station(tmp_path: Path, ring: Ring) -> Iterator[Station]:
    (tmp_path / "results").mkdir()
    station = Station(tmp_path / "results", ring.server)
    yield station
    station.close()


def client_of(station: Station, keys: ClientKeys | None, **wishes: Any) -> Client[Atoms]:
    files = {"secret_key": keys.secret, "server_key": keys.server} if keys else {}
    return Client[Atoms](station.endpoint, replay_endpoint=station.replay_endpoint, **files, **wishes)


def test_a_client_with_the_right_keys_gets_what_is_sent_and_what_was_missed(ring: Ring, station: Station) -> None:
    station.post_atoms()
    with client_of(station, ring.client("friend"), from_start=True, timeout_seconds=PATIENCE_SECONDS) as client:
        assert next(client).sequence == 1, "which it had to ask for"
        station.post_atoms()
        assert next(client).sequence == 2


@pytest.mark.parametrize("wrong", WRONG)
def test_a_client_with_wrong_keys_hears_nothing_and_others_go_on(ring: Ring, station: Station, wrong: str) -> None:
    station.post_atoms()
    with (
        client_of(station, ring.wrong()[wrong], from_start=True, timeout_seconds=MOMENT_MS / 1e3) as stranger,
        client_of(station, ring.client("friend"), from_start=True, timeout_seconds=PATIENCE_SECONDS) as friend,
    ):
        with pytest.raises(NoResultsError, match=r"they must fit this client's: see docs/keys\.md"):
            next(stranger)
        assert stranger.status is None
        assert next(friend).sequence == 1
    with zmq.Context() as context, context.socket(zmq.REQ) as asking:
        asking.linger = 0
        apply_keys(asking, ring.wrong()[wrong])
        asking.connect(station.replay_endpoint)
        asking.send(b'{"topics": true}')
        assert not asking.poll(MOMENT_MS)


def test_a_client_that_was_refused_comes_by_itself_once_it_is_allowed(
    ring: Ring, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SILENT_SECONDS", 3.0)  # longer than between two heartbeats
    station.post_atoms()
    with client_of(station, ring.client("stranger"), from_start=True, timeout_seconds=0.5) as client:
        with pytest.raises(NoResultsError):
            next(client)
        ring.allow("stranger")
        deadline = monotonic() + PATIENCE_SECONDS
        while monotonic() < deadline:
            with suppress(NoResultsError):
                assert next(client).sequence == 1
                break
        else:
            pytest.fail("nothing came")


def test_a_publisher_with_keys_that_never_started_leaves_nothing(ring: Ring, station: Station) -> None:
    station.stop()
    station.start()
    (ring.folder / "server.key_secret").chmod(0o644)
    station.stop()
    with pytest.raises(ConfigurationError, match="chmod 600"):
        station.start()


def test_replay_and_tail_take_keys(
    ring: Ring, station: Station, closing_all: ExitStack, hrtemd_path: Path, tmp_path: Path
) -> None:
    frame = tmp_path / "frame.npy"
    np.save(frame, np.full((40, 40), 5, np.uint16))
    source, arrivals = open_source(closing_all, Place(LOOPBACK, bind=True, keys=ring.server))
    hrtemd = partial(started, closing_all, hrtemd_path)
    files = ["--secret-key", ring.folder / "friend.key_secret", "--server-key", ring.folder / "server.key"]
    sent = hrtemd("replay", frame, "--to", source.endpoint, "--format", "array-1.0", *files)
    assert values_in(take(arrivals, has(1))) == [5]
    assert sent.communicate(timeout=PATIENCE_SECONDS)[1] == "1 frames sent\n"

    tail = hrtemd("tail", station.endpoint, "--replay-endpoint", station.replay_endpoint, *files)
    assert tail.stderr
    assert "Following the daemon" in tail.stderr.readline()
    tail.send_signal(signal.SIGINT)
    tail.communicate(timeout=PATIENCE_SECONDS)


def test_a_replay_that_binds_lets_in_whom_it_knows(ring: Ring, closing_all: ExitStack) -> None:
    said: list[str] = []
    endpoint = f"ipc://{ring.folder}/socket"
    with camera(endpoint, "push", bind=True, keys=ring.server, say=said.append) as opened:
        source, arrivals = open_source(closing_all, Place(endpoint, keys=ring.client("friend")))
        take(arrivals, lambda _: source.senders == 1)
        opened.send(images("array-1.0", 1)[0].parts)
        assert values_in(take(arrivals, has(1))) == [0]


def test_keys_that_do_not_go_together_are_told(hrtemd: Callable[..., Any], tmp_path: Path, ring: Ring) -> None:
    secret, public = ring.folder / "friend.key_secret", ring.folder / "server.key"
    for files in ({"secret": secret}, {"server": public}, {"secret": secret, "allowed": ring.allowed}):
        with pytest.raises(ConfigurationError, match="Keys go together"):
            keys_for(binds=False, **files)
    run = hrtemd("tail", "--secret-key", secret)
    assert run.returncode == 2
    assert "Keys go together" in run.stderr


def test_the_command_makes_keys_once(hrtemd: Callable[..., Any], tmp_path: Path) -> None:
    run = hrtemd("keys", tmp_path / "keys", "daemon", "laptop")
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == 4
    secret = tmp_path / "keys" / "laptop.key_secret"
    before = secret.read_bytes()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert read_secret(secret) != read_secret(tmp_path / "keys" / "daemon.key_secret")
    again = hrtemd("keys", tmp_path / "keys", "laptop")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert secret.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_key_that_others_may_use_is_refused(ring: Ring, mode: int) -> None:
    secret = ring.folder / "friend.key_secret"
    secret.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"run `chmod 600 {secret}`"):
        read_secret(secret)


def test_what_is_no_secret_key_is_told(ring: Ring) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no secret key; name the file that ends in \.key_secret"):
        read_secret(ring.folder / "friend.key")
    with pytest.raises(ConfigurationError, match="No such file; make keys with `hrtemd keys`"):
        read_secret(ring.folder / "nobody.key_secret")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_secret(ring.folder)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"public-key")
@given(st.binary(max_size=200) | st.text(min_size=38, max_size=42).map(lambda key: f'public-key = "{key}"'.encode()))
def test_garbage_is_no_key_and_no_other_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "garbage.key_secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError):
        read_secret(file)


def started(stack: ExitStack, *command: object) -> "subprocess.Popen[str]":
    process = stack.enter_context(
        subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)
    return process
