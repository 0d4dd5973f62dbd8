"""Whoever missed results gets them, or is told which are gone; no request can do harm."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.ledger import Ledger
from daemon.publish import replay
from daemon.publish.replay import Replay
from tests.daemon.broadcasting import Station


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.close()


def answer(station: Station, **request: Any) -> tuple[list[dict[str, Any]], list[bytes], dict[str, Any]]:
    """Ask, and return headers, payloads and the end marker."""
    with station.ask() as socket:
        socket.send_json(request)
        *parts, marker = socket.recv_multipart()
    assert all(topic.decode() == request["topic"] for topic in parts[::3])
    return [json.loads(header) for header in parts[1::3]], parts[2::3], json.loads(marker)


def numbers(headers: list[dict[str, Any]]) -> list[int]:
    return [header["sequence"] for header in headers]


def test_what_was_missed_comes_in_order_with_a_marker_at_its_end(station: Station) -> None:
    posted = [station.post_atoms(count=count) for count in range(5)]
    headers, payloads, marker = answer(station, topic="atoms/camera", after=2)
    assert headers == [message.header for message in posted[2:]]
    assert payloads == [message.payload for message in posted[2:]]
    assert marker == {
        "schema": "hrtemd.replay.v1",
        "error": None,
        "ledger": station.ledger.identity,
        "topic": "atoms/camera",
        "after": 2,
        "oldest": 1,
        "newest": 5,
        "pruned": None,
        "more": False,
    }


def test_a_limit_leaves_more_to_ask_for(station: Station) -> None:
    for _ in range(5):
        station.post_atoms()
    headers, _, marker = answer(station, topic="atoms/camera", limit=2)
    assert numbers(headers) == [1, 2]
    assert marker["more"]
    headers, _, marker = answer(station, topic="atoms/camera", after=2, limit=3)
    assert numbers(headers) == [3, 4, 5]
    assert not marker["more"]


def test_an_answer_is_of_bounded_size_yet_never_empty(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "ANSWER_BYTES", 10_000)
    for size in (6_000, 3_000, 50_000, 10):
        station.post("atoms/camera", {}, bytes(size))
        station.post_overlay(bytes(size), name=f"{size}.png")
    for topic in ("atoms/camera", "overlay/camera"):
        after, answers = 0, []
        while after < 4:
            headers, _, marker = answer(station, topic=topic, after=after)
            answers.append(numbers(headers))
            after = answers[-1][-1]
            assert marker["more"] == (after < 4)
        assert answers == [[1, 2], [3], [4]]


def test_a_request_socket_gets_its_answer_too(station: Station) -> None:
    station.post_atoms()
    with station.ask(zmq.REQ) as socket:
        for _ in range(2):
            socket.send_json({"topic": "atoms/camera"})
            topic, header, _, marker = socket.recv_multipart()
            assert topic == b"atoms/camera"
            assert json.loads(header)["sequence"] == 1
            assert json.loads(marker)["newest"] == 1


def test_what_was_pruned_is_said(station: Station) -> None:
    for _ in range(5):
        station.post_atoms()
    station.forget_all()
    _, _, marker = answer(station, topic="atoms/camera", after=3)
    assert (marker["pruned"], marker["oldest"], marker["newest"]) == ([4, 5], None, 5)
    station.post_atoms()
    headers, _, marker = answer(station, topic="atoms/camera", after=3)
    assert numbers(headers) == [6]
    assert (marker["pruned"], marker["oldest"], marker["newest"]) == ([4, 5], 6, 6)
    _, _, marker = answer(station, topic="atoms/camera", after=6)
    assert marker["pruned"] is None


def test_a_topic_nobody_posted_to_is_empty(station: Station) -> None:
    headers, _, marker = answer(station, topic="atoms/nobody")
    assert not headers
    assert (marker["newest"], marker["pruned"], marker["more"]) == (0, None, False)


def test_topics_can_be_asked_for(station: Station) -> None:
    station.post_atoms("one")
    station.post_atoms("one")
    station.post_event("It broke.", "two")
    with station.ask() as socket:
        socket.send_json({"topics": True})
        (marker,) = socket.recv_multipart()
    assert json.loads(marker)["topics"] == {
        "atoms/one": {"oldest": 1, "newest": 2},
        "event/two": {"oldest": 1, "newest": 1},
    }


def test_overlays_come_from_the_results_folder_or_it_is_said_why_not(station: Station) -> None:
    for name in ("kept", "deleted", "redrawn"):
        station.post_overlay(name.encode(), name=f"{name}.overlay.png")
    (station.folder / "deleted.overlay.png").unlink()
    (station.folder / "redrawn.overlay.png").write_bytes(b"of other atoms")
    headers, payloads, _ = answer(station, topic="overlay/camera")
    assert numbers(headers) == [1, 2, 3]
    assert payloads == [b"kept", b"", b""]
    assert "payload_missing" not in headers[0]
    assert "deleted.overlay.png is no longer there" in headers[1]["payload_missing"]
    assert "redrawn.overlay.png is no longer there" in headers[2]["payload_missing"]


REQUESTS = st.dictionaries(
    st.sampled_from(["topic", "topics", "after", "limit", "x"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("atoms/camera"),
)


@given(
    st.lists(st.binary(max_size=20) | REQUESTS.map(lambda request: json.dumps(request).encode()), max_size=3)
    | REQUESTS.map(lambda request: [json.dumps(request).encode()])
)
@example([b"[" * 60_000])
@example([b'{"topic": "\\ud800"}'])
@example([b'{"topic": "a", "after": ' + b"9" * 5000 + b"}"])
@example([b'{"topic": "atoms/camera\\u0000"}'])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_request_is_answered_or_refused_with_a_sentence(station: Station, request_parts: list[bytes]) -> None:
    parts = Replay(station.ledger, station.folder).answer(request_parts)
    marker = json.loads(parts[-1])
    assert marker["schema"] == "hrtemd.replay.v1"
    assert len(parts) % 3 == 1
    if marker["error"] is None:
        assert "newest" in marker or "topics" in marker
    else:
        assert len(parts) == 1
        assert "fault in hrtemd" not in marker["error"]
        assert marker["error"].endswith(".")


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (b"hello", "Invalid JSON"),
        (b"{}", 'give either "topic" or "topics": true'),
        (b'{"topic": "a", "after": -1}', "after: Input should be greater than or equal to 0"),
        (b'{"topic": "a", "limit": "many"}', "limit: Input should be a valid integer"),
        (b'{"topic": "a", "before": 3}', "before: Extra inputs are not permitted"),
    ],
)
def test_a_refusal_says_what_was_wrong(station: Station, request_: bytes, complaint: str) -> None:
    with station.ask() as socket:
        socket.send(request_)
        (marker,) = socket.recv_multipart()
    assert complaint in json.loads(marker)["error"]


def test_after_garbage_of_any_shape_others_are_answered(station: Station) -> None:
    station.post_atoms()
    shapes = [[b""], [b"", b""], [b"", b"", b""], [b"x", b"y"], [b"x"] * 200, [b"\xff" * 60_000], [b"", b"{}", b"{}"]]
    with station.ask() as socket:
        for parts in shapes:
            socket.send_multipart(parts)
            assert json.loads(socket.recv_multipart()[-1])["error"]
    with station.ask() as socket:
        socket.send(bytes(2**20))  # larger than any request: disconnected
        assert numbers(answer(station, topic="atoms/camera")[0]) == [1]


def test_a_ledger_that_cannot_be_read_is_said_and_read_again(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    station.post_atoms()
    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "after", fail)
        with station.ask() as socket:
            socket.send_json({"topic": "atoms/camera"})
            (marker,) = socket.recv_multipart()
    assert json.loads(marker)["error"] == "The daemon cannot read what it keeps: Input/output error; ask again later."
    assert numbers(answer(station, topic="atoms/camera")[0]) == [1]
