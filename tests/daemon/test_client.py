"""A client gets every result once and in order, or is told which it cannot get."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from daemon.atoms import header_of, to_stream
from daemon.client import (
    AsyncClient,
    Atoms,
    Client,
    Event,
    LostResultsError,
    NoResultsError,
    Overlay,
    Result,
    Status,
    following,
)
from daemon.errors import ConfigurationError, HrtemdError
from daemon.protocol import ProtocolError
from tests.daemon.broadcasting import Station, lossy_network, some_atoms

PATIENCE_SECONDS = 60.0  # the machine may be busy


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.close()


def connect(station: Station, **wishes: Any) -> Client[Any]:
    """Connect a client that stands where the station does."""
    wishes = {"endpoint": station.endpoint, "replay_endpoint": station.replay_endpoint} | wishes
    client = Client[Any](**wishes, timeout_seconds=PATIENCE_SECONDS)
    poller = zmq.Poller()
    client._watch(poller)
    while client.status is None:
        client._take(poller.poll())
    return client


def numbers(client: Client[Any], count: int) -> list[int]:
    return [next(client).sequence for _ in range(count)]


def test_results_come_as_they_are_posted(station: Station) -> None:
    with connect(station) as client:
        for name in ("first", "second"):
            station.post_atoms(name=name)
        first, second = next(client), next(client)
    assert isinstance(first, Atoms)
    assert [first.header["name"], second.header["name"]] == ["first", "second"]
    assert (first.source, first.sequence, first.topic) == ("camera", 1, "atoms/camera")
    assert "first: 2 C, 1 vacancy" in repr(first)


def test_atoms_are_arrow_numpy_and_pandas(station: Station) -> None:
    with connect(station) as client:
        station.post_atoms(count=3)
        atoms = next(client)
    assert atoms.table.num_rows == 4
    assert header_of(atoms.table) == atoms.header
    arrays = atoms.to_numpy()
    np.testing.assert_allclose(arrays["x_angstrom"], [0.0, 0.2, 0.4, 0.6], rtol=1e-6)
    assert arrays["x_px"].dtype == np.float32
    assert arrays["species"].tolist() == ["C", "C", "C", None]
    assert arrays["kind"].tolist() == ["atom", "atom", "atom", "vacancy"]
    assert np.isnan(arrays["n_atoms"]).all()
    pandas = pytest.importorskip("pandas")
    frame = atoms.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.query("species == 'C'").x_px.tolist() == [0.0, 2.0, 4.0]
    assert frame.attrs == atoms.header


def test_without_pandas_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    atoms = Atoms("atoms/camera", {"sequence": 1}, to_stream(some_atoms(1)))
    with pytest.raises(HrtemdError, match="pandas is not installed, and hrtemd does not need it; run `pip install"):
        atoms.to_pandas()


def test_lost_results_are_asked_for_and_come_in_order(station: Station) -> None:
    lost = {2, 3, 4, 7}
    with (
        lossy_network(station.endpoint, lambda _, count: count in lost) as endpoint,
        connect(station, endpoint=endpoint) as client,
    ):
        posted = [station.post_atoms(name=f"frame{index}", count=index) for index in range(10)]
        results = [next(client) for _ in posted]
    assert [result.header for result in results] == [message.header for message in posted]
    assert [result.table.num_rows - 1 for result in results] == list(range(10))


def test_a_loss_after_which_nothing_comes_shows_in_the_heartbeat(station: Station) -> None:
    with (
        lossy_network(station.endpoint, lambda _, count: count == 2) as endpoint,
        connect(station, endpoint=endpoint) as client,
    ):
        for number in (1, 2):
            station.post_atoms()
            assert numbers(client, 1) == [number]


def test_each_topic_is_in_order_though_most_is_lost(station: Station) -> None:
    with (
        lossy_network(station.endpoint, lambda _, count: count % 5 != 0) as endpoint,
        connect(station, endpoint=endpoint, receive=(Atoms, Event)) as client,
    ):
        for index in range(30):
            station.post_atoms(("one", "two")[index % 2])
            station.post_event(str(index), "one")
        results: dict[str, list[int]] = {}
        for _ in range(60):
            result = next(client)
            results.setdefault(result.topic, []).append(result.sequence)
    expected = list(range(1, 31))
    assert results == {"atoms/one": expected[:15], "atoms/two": expected[:15], "event/one": expected}


def test_who_reads_late_gets_all_since_it_connected(station: Station) -> None:
    station.post_atoms()
    with connect(station) as client:
        for _ in range(300):  # more than waits for who does not read
            station.post_atoms()
        assert numbers(client, 300) == list(range(2, 302))


def test_from_start_begins_with_the_oldest_that_is_kept(station: Station) -> None:
    for _ in range(3):
        station.post_atoms()
    with connect(station, from_start=True) as client:
        assert numbers(client, 3) == [1, 2, 3]
        station.post_atoms()
        assert numbers(client, 1) == [4]
    station.forget_all()
    station.post_atoms()
    with connect(station, from_start=True) as client:
        assert numbers(client, 1) == [5], "what was forgotten before is not missed"


def test_a_restarted_daemon_goes_on_where_it_was(station: Station) -> None:
    with connect(station) as client:
        station.post_atoms()
        assert numbers(client, 1) == [1]
        station.post_atoms()
        station.stop()
        station.post_atoms()  # stored, and never sent: the daemon died
        station.start()
        assert numbers(client, 2) == [2, 3]
        station.post_atoms()
        assert numbers(client, 1) == [4]


def test_a_client_may_be_there_before_the_daemon(station: Station) -> None:
    station.stop()
    client = Client[Atoms](station.endpoint, replay_endpoint=station.replay_endpoint, timeout_seconds=0.1)
    with client:
        with pytest.raises(NoResultsError, match=r"Nothing was heard from tcp://.*; is `hrtemd run` running there"):
            next(client)
        station.start()
        while client.status is None:
            with pytest.raises(NoResultsError):
                next(client)
        client._timeout_seconds = PATIENCE_SECONDS
        station.post_atoms()
        assert next(client).sequence == 1


def test_what_is_no_longer_kept_is_an_error_and_the_rest_follows(station: Station) -> None:
    with connect(station) as client:
        station.post_atoms()
        assert numbers(client, 1) == [1]
        station.stop()
        for _ in range(3):
            station.post_atoms()
        station.forget_all()
        station.start()
        with pytest.raises(LostResultsError, match="atoms/camera: results 2 to 4 were missed") as lost:
            next(client)
        assert (lost.value.topic, lost.value.first, lost.value.last) == ("atoms/camera", 2, 4)
        station.post_atoms()
        assert numbers(client, 1) == [5]
        station.stop()
        station.post_atoms()
        station.forget_all()
        station.post_atoms()
        station.start()
        with pytest.raises(LostResultsError, match="results 6 to 6"):
            next(client)
        assert numbers(client, 1) == [7]


def test_a_new_ledger_is_told_and_read_from_its_beginning(station: Station) -> None:
    with connect(station) as client:
        for _ in range(3):
            station.post_atoms()
        assert numbers(client, 3) == [1, 2, 3]
        station.lose_ledger()
        station.post_atoms()
        station.start()
        with pytest.raises(LostResultsError, match="begun a new ledger") as lost:
            next(client)
        assert lost.value.topic is None
        station.post_atoms()
        assert numbers(client, 2) == [1, 2]


def test_only_what_is_wanted_comes(station: Station) -> None:
    with (
        connect(station, sources=["cam"], receive=(Atoms, Event)) as one,
        connect(station, receive=(Overlay,)) as overlays,
    ):
        station.post_atoms("camera")
        station.post_event("Not this.", "camera")
        station.post_overlay(b"PNG", "camera")
        station.post_event("The frame is torn.", "cam")
        station.post_atoms("cam")
        assert [type(next(one)), type(next(one))] == [Event, Atoms]
        overlay = next(overlays)
        one._timeout_seconds = 0.1
        with pytest.raises(NoResultsError, match=r"runs, but had nothing to send for 0.1 s"):
            next(one)
    assert overlay.payload == overlay._repr_png_() == b"PNG"


def test_a_missed_overlay_comes_from_its_file(station: Station) -> None:
    with (
        lossy_network(station.endpoint, lambda _, count: count <= 2) as endpoint,
        connect(station, endpoint=endpoint, receive=(Overlay,)) as client,
    ):
        station.post_overlay(b"one", name="one.png")
        station.post_overlay(b"two", name="two.png")
        (station.folder / "two.png").unlink()
        station.post_overlay(b"three", name="three.png")
        results = [next(client) for _ in range(3)]
    assert [result.payload for result in results] == [b"one", b"", b"three"]
    assert "no longer there" in results[1].header["payload_missing"]
    assert results[1]._repr_png_() is None


def test_heartbeats_are_results_for_who_wants_them(station: Station) -> None:
    with connect(station, receive=(Status, Event)) as client:
        status = next(client)
        assert isinstance(status, Status)
        assert status.header["version"] == "0.1"
        station.post_event("The frame is torn.")
        while isinstance(event := next(client), Status):
            pass
    assert (event.sentence, event.source) == ("The frame is torn.", "camera")


def test_a_daemon_that_fell_silent_is_told_from_one_without_results(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENCE_SECONDS", 1e-3)
    with connect(station) as client:
        station.stop()
        client._timeout_seconds = 0.1
        with pytest.raises(NoResultsError, match=r"fell silent \d+ s ago; results go on once it runs again"):
            next(client)


def test_a_replay_endpoint_that_does_not_answer_is_told(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(following, "UNANSWERED_SECONDS", 0.2)
    nobody = "tcp://127.0.0.1:9"
    with (
        lossy_network(station.endpoint, lambda _, count: count == 1) as endpoint,
        connect(station, endpoint=endpoint, replay_endpoint=nobody) as client,
    ):
        station.post_atoms()
        station.post_atoms()
        with pytest.raises(HrtemdError, match=f"does not answer at {nobody}, where they are asked for"):
            next(client)


def test_a_refusal_of_the_daemon_is_told(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        lossy_network(station.endpoint, lambda _, count: count == 1) as endpoint,
        connect(station, endpoint=endpoint) as client,
    ):
        (station.folder / "one.png").mkdir()
        client._following._kinds = ["overlay"]
        client._broadcast.setsockopt(zmq.SUBSCRIBE, b"overlay/")
        station.post("overlay/camera", {"schema": "hrtemd.overlay.v1", "file": "one.png", "sha256": "-"}, b"")
        with pytest.raises(HrtemdError, match="does not send what was missed: The daemon cannot read what it keeps"):
            next(client)


@pytest.mark.parametrize(
    "parts",
    [
        [b"status"],
        [b"status", b"hello", b""],
        [b"status", b"[]", b""],
        [b"status", b"{}", b""],
        [b"status", b'{"schema": "hrtemd.status.v2", "sequence": 1}', b""],
        [b"statusquo", b'{"schema": "hrtemd.status.v1", "sequence": 1}', b""],
    ],
)
def test_what_is_not_hrtemd_is_told_from_it(parts: list[bytes]) -> None:
    with zmq.Context.instance().socket(zmq.XPUB) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.RCVTIMEO, 60_000)
        port = stranger.bind_to_random_port("tcp://127.0.0.1")
        with Client[Atoms](f"tcp://127.0.0.1:{port}", timeout_seconds=PATIENCE_SECONDS) as client:
            while stranger.recv() != b"\x01status":
                pass
            stranger.send_multipart(parts)
            with pytest.raises(ProtocolError, match=r"does hrtemd listen|install the version"):
                next(client)


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "http://127.0.0.1:80", "ipc:///tmp/results"])
def test_what_is_no_endpoint_is_told(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="endpoint"):
        Client(endpoint)


def test_a_closed_client_ends_its_iteration(station: Station) -> None:
    client = connect(station)
    client.close()
    assert not list(client)


def test_a_coroutine_follows_while_others_run(station: Station) -> None:
    async def follow(endpoint: str) -> list[int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        other = asyncio.create_task(tick())
        async with AsyncClient[Result](
            endpoint,
            receive=(Atoms, Status),
            replay_endpoint=station.replay_endpoint,
            timeout_seconds=PATIENCE_SECONDS,
        ) as client:
            async for first in client:
                assert isinstance(first, Status)
                break
            for _ in range(5):
                station.post_atoms()
            got: list[int] = []
            while len(got) < 5:
                result = await anext(client)
                got += [result.sequence] * isinstance(result, Atoms)
            before = ticks
            await anext(client)  # the next heartbeat
            assert ticks > before, "waiting holds up nobody"
        other.cancel()
        assert [result async for result in client] == []
        return got

    with lossy_network(station.endpoint, lambda _, count: count in (2, 3, 5)) as endpoint:
        assert asyncio.run(follow(endpoint), debug=True) == [1, 2, 3, 4, 5]


def test_a_waiting_coroutine_can_be_cancelled_and_goes_on(station: Station) -> None:
    async def follow() -> int:
        async with AsyncClient[Atoms](station.endpoint, replay_endpoint=station.replay_endpoint) as client:
            while client.status is None:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(client), 0.05)
            station.post_atoms()
            return (await asyncio.wait_for(anext(client), PATIENCE_SECONDS)).sequence

    assert asyncio.run(follow(), debug=True) == 1


def test_the_client_imports_nothing_heavy() -> None:
    script = (
        "import sys, daemon.client\n"
        "heavy = 'openvino cv2 onnxruntime rsciio pandas scipy PIL pydantic watchdog sqlite3 imagecodecs cbor2'\n"
        "ours = 'recognition sources readers config ledger publish pipeline service'\n"
        "names = heavy.split() + [f'daemon.{name}' for name in ours.split()]\n"
        "print([name for name in names if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")
