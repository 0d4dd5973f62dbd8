"""Results reach who listens; who does not read slows and fills nothing."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
import zmq

from daemon.errors import ConfigurationError
from daemon.ledger import Ledger, LedgerLimits
from daemon.publish import zeromq
from daemon.publish.replay import Replay
from daemon.publish.zeromq import ANSWERS_WAITING, RESULTS_WAITING, ZeroMQPublisher
from tests.daemon.broadcasting import ANY_PORT, Station

MIB = 2**20


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.close()


def memory_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_a_result_is_topic_header_and_arrow_stream(station: Station) -> None:
    with station.subscribe("") as socket:
        assert socket.recv_multipart()[0] == b"status"  # it is connected
        message = station.post_atoms(count=4)
        parts = socket.recv_multipart()
        while parts[0] == b"status":
            parts = socket.recv_multipart()
    topic, header, payload = parts
    assert topic == b"atoms/camera"
    assert json.loads(header) == message.header
    assert json.loads(header)["sequence"] == 1
    assert pa.ipc.open_stream(payload).read_all().num_rows == 5


def test_who_joins_late_gets_a_heartbeat_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "STATUS_SECONDS", 1e4)
    station = Station(tmp_path)
    station.post_atoms()
    station.post_atoms()
    try:
        with ExitStack() as all_stay:
            for prefix in ("status", "status", "stat", ""):
                socket = all_stay.enter_context(station.subscribe(prefix))
                topic, header, payload = socket.recv_multipart()
                assert (topic, payload) == (b"status", b"")
                assert json.loads(header).items() >= {"schema": "hrtemd.status.v1", "version": "0.1"}.items()
    finally:
        station.close()


def test_heartbeats_go_on_and_say_where_each_topic_stands(station: Station) -> None:
    station.post_atoms("one")
    station.post_atoms("one")
    station.post_atoms("two")
    with station.subscribe("status") as socket:
        first, second = (json.loads(socket.recv_multipart()[1]) for _ in range(2))
    assert second["sequence"] == first["sequence"] + 1
    assert second["newest"] == {"atoms/one": 2, "atoms/two": 1}
    assert second["ledger"] == station.ledger.identity
    station.stop()
    station.start()
    with station.subscribe("status") as socket:
        assert json.loads(socket.recv_multipart()[1])["newest"] == {"atoms/one": 2, "atoms/two": 1}


@pytest.mark.parametrize("status", [lambda: 1 / 0, lambda: {"sources": {"not", "json"}}])
def test_a_status_that_fails_is_still_a_heartbeat(station: Station, status: object) -> None:
    station.status = status  # type: ignore[assignment]
    with station.subscribe("status") as socket:
        while "warnings" not in (header := json.loads(socket.recv_multipart()[1])):
            pass
    assert "could not be told" in header["warnings"][0]


def test_an_endpoint_in_use_is_a_configuration_error(station: Station, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "other.sqlite", LedgerLimits(2**30, 30))
    try:
        for endpoint, replay_endpoint in ((station.endpoint, ANY_PORT), (ANY_PORT, station.endpoint)):
            with pytest.raises(ConfigurationError, match="another hrtemd"):
                ZeroMQPublisher(endpoint, replay_endpoint, ledger, tmp_path, dict)
    finally:
        ledger.close()


def test_a_publisher_that_never_started_closes_and_frees_its_ports(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))
    publisher = ZeroMQPublisher(ANY_PORT, ANY_PORT, ledger, tmp_path, dict)
    publisher.close()
    again = ZeroMQPublisher(publisher.endpoint, publisher.replay_endpoint, ledger, tmp_path, dict)
    again.close()
    ledger.close()


def test_what_was_handed_over_before_closing_still_arrives(station: Station) -> None:
    with station.subscribe("atoms") as socket, station.subscribe("status") as greeting:
        greeting.recv_multipart()
        _wait_until_subscribed(station, socket)
        numbers = [station.post_atoms().sequence for _ in range(20)]
        station.stop()
        assert [json.loads(socket.recv_multipart()[1])["sequence"] for _ in numbers] == numbers


def test_sending_after_closing_does_no_harm(station: Station) -> None:
    publisher = station.publisher
    assert publisher
    station.stop()
    publisher.send(station.post_atoms())


def test_a_subscriber_that_stops_reading_costs_others_nothing_and_bounded_memory(station: Station) -> None:
    results = 5 * RESULTS_WAITING
    with station.subscribe("overlay") as sleeper, station.subscribe("overlay") as reader:
        sleeper.setsockopt(zmq.RCVHWM, 1)
        for socket in (sleeper, reader):
            _wait_until_subscribed(station, socket)
        before = memory_bytes()
        for number in range(results):
            png = bytes([number % 256]) * MIB
            message = station.ledger.post("overlay/camera", {"file": "-", "sha256": "-"}, b"")
            assert station.publisher
            station.publisher.send(message, png)
            assert reader.recv_multipart()[2] == png, "whoever reads gets everything"
        assert memory_bytes() - before < (RESULTS_WAITING + 100) * MIB < results * MIB
        received = [json.loads(sleeper.recv_multipart()[1])["sequence"]]
        while sleeper.poll(500):
            received.append(json.loads(sleeper.recv_multipart()[1])["sequence"])
    assert len(received) < results, "what it had no room for was dropped"


def test_a_client_that_asks_and_does_not_read_costs_others_nothing_and_bounded_memory(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = []
    answer = Replay.answer
    monkeypatch.setattr(Replay, "answer", lambda *request: answered.append(1) or answer(*request))  # type: ignore[func-returns-value]
    for _ in range(4):
        station.ledger.post("atoms/camera", {"schema": "hrtemd.atoms.v1"}, bytes(MIB))
    requests = 20 * ANSWERS_WAITING
    with station.ask() as sleeper, station.ask(zmq.REQ) as reader:
        sleeper.setsockopt(zmq.RCVHWM, 1)
        before = memory_bytes()
        for _ in range(requests):
            sleeper.send(b'{"topic": "atoms/camera"}')
        asked = 0
        while len(answered) < requests + asked:
            reader.send(b'{"topic": "atoms/camera"}')
            assert len(reader.recv_multipart()) == 3 * 4 + 1
            asked += 1
        assert memory_bytes() - before < (4 * ANSWERS_WAITING + 100) * MIB < 4 * requests * MIB


def _wait_until_subscribed(station: Station, socket: "zmq.Socket[bytes]") -> None:
    """Post results that do not count until one arrives."""
    while not socket.poll(20):
        for topic in ("atoms/greeting", "overlay/greeting"):
            station.post(topic, {"file": "-", "sha256": "-"}, b"")
    while socket.poll(100):
        socket.recv_multipart()
