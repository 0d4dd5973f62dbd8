"""Each camera against its source, through real sockets on this machine."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from socket import create_connection
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import zmq

from daemon.drops import Drops
from daemon.errors import FrameError, HrtemdError
from daemon.inbox import NEWER, Policy
from daemon.publish.files import safe_name
from daemon.readers import DEFAULT_LIMITS
from daemon.sources.connection import Place
from daemon.sources.formats import FORMATS
from daemon.sources.simulator import Outgoing, Shot
from daemon.sources.source import Arrival, Failure
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.wire import (
    PATIENCE_SECONDS,
    endpoint_of,
    frames_in,
    has,
    images,
    said,
    send,
    sentences_in,
    shots,
    take,
    values_in,
)

LOOPBACK = "tcp://127.0.0.1:*"
MESSAGE_BYTES = 2**20


class Bench:
    """A source under test and sockets that send to it; everything is closed in the end."""

    def __init__(self) -> None:
        self.stop = Event()
        self.drops = Drops()
        self._context = zmq.Context()
        self._senders: list[zmq.Socket[bytes]] = []

    def source(
        self, endpoint: str, format_name: str = "array-1.0", policy: Policy = "lossless", **place: Any
    ) -> ZeroMQSource:
        decoder = FORMATS[format_name].decoder()
        return ZeroMQSource(
            "camera", Place(endpoint, **place), decoder, policy, None, DEFAULT_LIMITS, MESSAGE_BYTES, self.drops
        )

    def sender(self, kind: int = zmq.PUSH, endpoint: str = LOOPBACK, *, bind: bool = True) -> "zmq.Socket[bytes]":
        sender = self._context.socket(kind)
        self._senders.append(sender)
        sender.linger = 0
        sender.sndtimeo = round(1e3 * PATIENCE_SECONDS)
        (sender.bind if bind else sender.connect)(endpoint)
        return sender

    def close(self) -> None:
        self.stop.set()
        for sender in self._senders:
            sender.close(0)
        self._context.term()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with closing(Bench()) as bench:
        yield bench


def until_there_is_a_sender(source: ZeroMQSource, arrivals: Iterator[Arrival | Failure | None]) -> None:
    take(arrivals, lambda _: source.senders > 0)


@contextmanager
def running(source: ZeroMQSource, stop: Event) -> Iterator[Iterator[Arrival | Failure | None]]:
    """Open a source's socket, and close it in the end."""
    arrivals = source.arrivals(stop)
    with closing(arrivals):  # type: ignore[type-var]
        assert next(arrivals) is None
        yield arrivals


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_camera_that_binds_is_connected_to(bench: Bench, format_name: str) -> None:
    camera = bench.sender()
    source = bench.source(endpoint_of(camera), format_name)
    with running(source, bench.stop) as arrivals:
        until_there_is_a_sender(source, arrivals)
        send(camera, FORMATS[format_name].simulator().series(shots(5), 5))
        found = take(arrivals, has(5))
        assert values_in(found) == [0, 1, 2, 3, 4]
        assert sentences_in(found) == []
        first = frames_in(found)[0]
        assert first.source == "camera"
        assert first.origin == f"{endpoint_of(camera)}/{first.subject.name}"
        assert first.folder == PurePosixPath("camera", f"{first.subject.received_at:%Y-%m-%d}")  # type: ignore[union-attr]
        assert safe_name(first.subject.name) == first.subject.name
        assert next(arrivals) is None
    assert not bench.drops.counts


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_camera_may_connect_and_publish(bench: Bench, format_name: str) -> None:
    source = bench.source(LOOPBACK, format_name, socket="sub", bind=True)
    with running(source, bench.stop) as arrivals:
        camera = bench.sender(zmq.XPUB, source.endpoint, bind=False)
        until_there_is_a_sender(source, arrivals)
        assert camera.recv() == b"\1"  # subscribed
        send(camera, FORMATS[format_name].simulator().series(shots(5), 5))
        assert values_in(take(arrivals, has(5))) == [0, 1, 2, 3, 4]


def test_several_senders_push_to_a_source_that_binds(bench: Bench) -> None:
    source = bench.source(LOOPBACK, bind=True)
    with running(source, bench.stop) as arrivals:
        for _ in range(2):
            with bench.sender(endpoint=source.endpoint, bind=False) as sender:
                send(sender, images("array-1.0", 3))
                found = take(arrivals, has(3))
                assert values_in(found) == [0, 1, 2]
                assert sentences_in(found) == []
            take(arrivals, lambda _: source.senders == 0)


@pytest.mark.parametrize("format_name", ["dectris-v1", "dectris-stream2"])
def test_a_daemon_that_connects_late_takes_what_is_left(bench: Bench, format_name: str) -> None:
    camera = bench.sender(zmq.XPUB)
    source = bench.source(endpoint_of(camera), format_name, socket="sub")
    start, *rest = FORMATS[format_name].simulator().series(shots(6), 6)
    send(camera, [start, *rest[:3]])  # nobody listens yet
    with running(source, bench.stop) as arrivals:
        until_there_is_a_sender(source, arrivals)
        assert camera.recv() == b"\1"
        send(camera, rest[3:])
        found = take(arrivals, has(3))
        assert values_in(found) == [3, 4, 5]
        assert sentences_in(found) == []


def test_an_aborted_series_ends_where_the_next_begins(bench: Bench) -> None:
    camera = bench.sender()
    simulator = FORMATS["dectris-v1"].simulator()
    with running(bench.source(endpoint_of(camera), "dectris-v1"), bench.stop) as arrivals:
        send(camera, list(simulator.series(shots(9), 9))[:3])
        assert values_in(take(arrivals, has(2))) == [0, 1]
        send(camera, simulator.series(shots(2), 2))
        found = take(arrivals, has(2))
        assert values_in(found) == [0, 1]
        assert [sentence.split(",")[0] for sentence in sentences_in(found)] == ["Series 1 stopped at 2 of its 9 frames"]


def test_what_is_no_message_of_the_format_is_said_and_the_next_is_taken(bench: Bench) -> None:
    camera = bench.sender()
    good = images("array-1.0", 2)
    cut_off = [good[1].parts[0], good[1].parts[1][:-1]]
    with running(bench.source(endpoint_of(camera)), bench.stop) as arrivals:
        for parts in ([b""], [b"\x80\x04junk", b""], good[0].parts, cut_off, [b"x"] * 40, good[1].parts):
            camera.send_multipart(parts)
        found = take(arrivals, has(2))
        assert values_in(found) == [0, 1]
        assert [type(item.error) for item in found if isinstance(item, Failure)] == [FrameError] * 4


def test_a_gap_is_said_of_a_lossless_source_and_counted_of_a_live_one(bench: Bench) -> None:
    messages = images("array-1.0", 6)
    policies: list[Policy] = ["lossless", "latest"]
    for policy in policies:
        with (
            bench.sender() as camera,
            running(bench.source(endpoint_of(camera), policy=policy), bench.stop) as arrivals,
        ):
            send(camera, messages[:1])
            take(arrivals, has(1))
            send(camera, messages[4:5])
            found = take(arrivals, has(1))
            assert [sentence.split(";")[0] for sentence in sentences_in(found)] == (
                ["Frames 1 to 3 never came"] if policy == "lossless" else []
            )
    assert dict(bench.drops.counts) == {("camera", "lost before they came"): 3}


def test_a_repeated_frame_is_counted_and_left_out(bench: Bench) -> None:
    camera = bench.sender()
    (first, second) = images("array-1.0", 2)
    with running(bench.source(endpoint_of(camera)), bench.stop) as arrivals:
        send(camera, [first, first, second])
        assert values_in(take(arrivals, has(2))) == [0, 1]
    assert dict(bench.drops.counts) == {("camera", "it came before"): 1}


def test_the_newest_wins_and_every_other_is_counted(bench: Bench) -> None:
    camera = bench.sender()
    source = bench.source(endpoint_of(camera), "dectris-stream2", policy="latest")
    with running(source, bench.stop) as arrivals:
        until_there_is_a_sender(source, arrivals)
        send(camera, list(FORMATS["dectris-stream2"].simulator().series(shots(12), 12)))
        found = take(arrivals, lambda found: 11 in values_in(found))
    assert sentences_in(found) == []
    assert values_in(found) == sorted(values_in(found))
    assert bench.drops.counts[("camera", NEWER)] == 12 - len(frames_in(found))


def test_a_message_that_is_too_large_is_refused_and_the_next_is_taken(bench: Bench) -> None:
    camera = bench.sender()
    large, small = shots(1, size=800), shots(2)
    simulator = FORMATS["array-1.0"].simulator()
    with running(bench.source(endpoint_of(camera)), bench.stop) as arrivals:
        send(camera, [*simulator.series(large), *simulator.series(small)])
        found = take(arrivals, has(2))
        (refusal,) = sentences_in(found)
        assert "bytes is larger than the 1,048,576 that one may have" in refusal


def test_a_sender_of_one_larger_by_far_is_cut_off_and_comes_back(bench: Bench) -> None:
    camera = bench.sender()
    source = bench.source(endpoint_of(camera))
    with running(source, bench.stop) as arrivals:
        until_there_is_a_sender(source, arrivals)
        camera.send_multipart([b"{}", bytes(3 * MESSAGE_BYTES)])
        found = take(arrivals, said("is gone; frames are taken again once it is back"))
        assert "see `limits.message_bytes`" in sentences_in(found)[0]
        until_there_is_a_sender(source, arrivals)
        send(camera, images("array-1.0", 2))
        assert values_in(take(arrivals, has(2))) == [0, 1]


def test_a_sender_that_is_cut_off_and_back_between_two_looks_is_said_all_the_same(bench: Bench) -> None:
    camera = bench.sender()
    source = bench.source(endpoint_of(camera))
    with running(source, bench.stop) as arrivals:
        until_there_is_a_sender(source, arrivals)
        camera.send_multipart([b"{}", bytes(3 * MESSAGE_BYTES)])
        sleep(1.5)  # the next look finds the connection given up, and makes it anew first
        found = take(arrivals, said("is gone; frames are taken again once it is back"))
        assert len(sentences_in(found)) == 1


def test_a_camera_that_dies_is_said_and_taken_up_again_when_it_returns(bench: Bench) -> None:
    camera = bench.sender()
    endpoint = endpoint_of(camera)
    source = bench.source(endpoint, "dectris-v1")
    with running(source, bench.stop) as arrivals:
        send(camera, FORMATS["dectris-v1"].simulator().series(shots(2), 2))
        take(arrivals, has(2))
        assert source.senders == 1
        camera.close(0)
        take(arrivals, said("is gone"))
        assert source.senders == 0
        camera = bench.sender(endpoint=endpoint)
        send(camera, FORMATS["dectris-v1"].simulator().series(shots(2), 2))
        found = take(arrivals, has(2))
        assert values_in(found) == [0, 1]
        assert sentences_in(found) == []


def test_an_endpoint_in_use_is_said_with_its_name(bench: Bench) -> None:
    taken = endpoint_of(bench.sender(zmq.PULL))
    with pytest.raises(HrtemdError, match=rf"{taken}: Address already in use; stop the program"):
        next(bench.source(taken, bind=True).arrivals(bench.stop))


def test_a_source_that_waits_for_its_turn_lets_its_sender_wait(bench: Bench) -> None:
    """Bounded memory: what nobody takes stays with the sender, which may not send without end."""
    source = bench.source(LOOPBACK, bind=True)
    with running(source, bench.stop):
        camera = bench.sender(endpoint=source.endpoint, bind=False)
        camera.sndhwm = 1
        camera.sndtimeo = 500
        big = Outgoing("image", [b"{}", bytes(MESSAGE_BYTES // 2)])
        with pytest.raises(zmq.Again):
            send(camera, [big] * 2000)


def test_strangers_that_come_while_it_waits_for_its_turn_hold_up_nothing(bench: Bench) -> None:
    """ZeroMQ itself stands still where nobody takes what its monitor tells."""
    source = bench.source(LOOPBACK, bind=True)
    with running(source, bench.stop) as arrivals:
        port = int(source.endpoint.rpartition(":")[2])
        for _ in range(1500):
            create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS).close()
        send(bench.sender(endpoint=source.endpoint, bind=False), images("array-1.0", 1))
        assert values_in(take(arrivals, has(1))) == [0]
        # Told last of all, perhaps, and after the frame that it sent.
        take(arrivals, lambda _: (source.gauge()["refused"], source.senders) == (1500, 1))


def test_hostile_ids_stay_inside_the_results_folder(bench: Bench, tmp_path: Path) -> None:
    camera = bench.sender()
    keys = {"series_id": "../../../etc/cron.d/x", "pixel_size_angstrom": 0.1}
    simulator = FORMATS["dectris-v1"].simulator()
    with running(bench.source(endpoint_of(camera), "dectris-v1"), bench.stop) as arrivals:
        send(camera, simulator.series([Shot(np.ones((40, 40), np.uint16), keys)]))
        (arrival,) = frames_in(take(arrivals, has(1)))
    stem = tmp_path.joinpath(*arrival.folder.parts, arrival.subject.name)
    assert stem.resolve() == stem
    assert stem.is_relative_to(tmp_path)
