"""What was received is kept until it is finished, however the daemon ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import sleep

import pytest
import zmq

from daemon.drops import Drops
from daemon.readers import DEFAULT_LIMITS
from daemon.sources import spool as spool_module
from daemon.sources import zeromq as zeromq_module
from daemon.sources.connection import Message, Place
from daemon.sources.fields import Buffer
from daemon.sources.formats import FORMATS
from daemon.sources.source import Arrival, Failure
from daemon.sources.spool import Spool, Ticket
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.wire import frames_in, has, images, sentences_in, shots, take, values_in

NOW = datetime(2026, 11, 24, 15, 54, 13, 123_456, tzinfo=UTC)
ROOM = 2**24


def message(number: int, size: int = 100) -> Message:
    return Message([b"header", bytes([number]) * size, b""], NOW)


def kept(spool: Spool) -> list[tuple[Ticket, list[bytes], bool]]:
    return [
        (stored.ticket, [bytes(part) for part in stored.message.parts], stored.is_finished)
        for stored in spool.stored()
        if not stored.is_opening
    ]


def numbers_kept(spool: Spool) -> list[int]:
    """Of those unfinished."""
    return [parts[1][0] for _, parts, is_finished in kept(spool) if not is_finished]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_messages_come_back_as_they_were(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    assert kept(spool) == []
    tickets = spool.append([message(1), message(2)]) + spool.append([message(3)])
    assert len(set(tickets)) == 3
    again = Spool(tmp_path / "spool", ROOM)
    assert kept(again) == [
        (ticket, [b"header", bytes([number]) * 100, b""], False) for number, ticket in enumerate(tickets, start=1)
    ]
    assert {stored.message.received_at for stored in again.stored()} == {NOW}


def test_finished_ones_do_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    first, second, third, fourth = spool.append([message(number) for number in (1, 2, 3, 4)])
    spool.expect(first, ["a"])
    spool.expect(second, ["b", "c"])
    spool.expect(third, [])  # it held no frame
    spool.expect(fourth, ["d"])
    for frame_id in ("a", "b", "never heard of", "a"):
        spool.finished(frame_id)
    assert numbers_kept(Spool(tmp_path, ROOM)) == [2, 4]
    spool.finished("c")
    spool.finished("d")
    assert numbers_kept(Spool(tmp_path, ROOM)) == []


def test_a_frame_that_came_twice_is_finished_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for ticket in spool.append([message(1), message(1)]):
        spool.expect(ticket, ["a"])
    spool.finished("a")
    assert numbers_kept(Spool(tmp_path, ROOM)) == []


def test_segments_are_deleted_once_all_of_them_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_SEGMENT_BYTES", 300)
    spool = Spool(tmp_path, ROOM)
    opening: list[Buffer] = [b"the start of a series"]
    tickets = [spool.append([message(number)], opening)[0] for number in range(9)]
    assert [ticket.segment for ticket in tickets] == sorted(ticket.segment for ticket in tickets)
    assert len({ticket.segment for ticket in tickets}) > 3
    for number, ticket in enumerate(tickets):
        spool.expect(ticket, [str(number)])
    for number in range(9):
        spool.finished(str(number))
    # The newest stays: it tells which numbers came.
    assert files_in(tmp_path) == [f"{tickets[-1].segment:08d}.finished", f"{tickets[-1].segment:08d}.spool"]
    again = Spool(tmp_path, ROOM)
    first, *_ = again.stored()
    assert first.is_opening
    assert first.message.parts == opening
    (after,) = again.append([message(1)])
    assert after.segment > tickets[-1].segment
    assert files_in(tmp_path) == [f"{after.segment:08d}.spool"]


def test_it_is_full_until_something_is_finished(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    number = 0
    while not spool.is_full:
        (ticket,) = spool.append([message(number)])
        spool.expect(ticket, [str(number)])
        number += 1
    assert 5 < number < 10
    assert Spool(tmp_path, 1000).is_full
    for finished in range(number):
        spool.finished(str(finished))
    assert not spool.is_full


def test_one_message_larger_than_all_of_it_does_not_block_it_for_ever(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    (ticket,) = spool.append([message(1, size=5000)])
    spool.expect(ticket, ["a"])
    assert spool.is_full
    spool.finished("a")
    assert not spool.is_full
    assert spool.append([message(2)])[0] != ticket
    assert numbers_kept(Spool(tmp_path, 1000)) == [2]


@pytest.mark.parametrize("cut", [1, 50, 120, 150])
def test_what_a_crash_cut_off_is_left_out(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append([message(1), message(2)])
    (segment,) = tmp_path.glob("*.spool")
    os.truncate(segment, segment.stat().st_size - cut)
    again = Spool(tmp_path, ROOM)
    assert numbers_kept(again) == [1]
    (ticket,) = again.append([message(3)])
    assert ticket.segment > 1
    assert numbers_kept(Spool(tmp_path, ROOM)) == [1, 3]


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    Spool(tmp_path, ROOM).append([message(1), message(2)])
    (segment,) = tmp_path.glob("*.spool")
    content = bytearray(segment.read_bytes())
    content[-20] ^= 1
    segment.write_bytes(content)
    assert numbers_kept(Spool(tmp_path, ROOM)) == [1]


def test_a_full_disk_keeps_none_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append([message(1)])
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as caught:
        spool.append([message(2), message(3)])
    assert str(caught.value.filename).endswith(".spool")
    monkeypatch.undo()
    spool.append([message(4)])
    assert numbers_kept(Spool(tmp_path, ROOM)) == [1, 4]


def test_a_disk_that_the_spool_itself_fills_has_room_once_all_of_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an append finds no room for fits when it is tried again."""
    room = 2000
    fsync = os.fsync

    def fsync_on_a_small_disk(descriptor: int) -> None:
        if sum(file.stat().st_size for file in tmp_path.glob("*.spool")) > room:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_on_a_small_disk)
    spool = Spool(tmp_path, ROOM)
    (ticket,) = spool.append([message(1, size=1500)])
    spool.expect(ticket, ["a"])
    with pytest.raises(OSError, match="No space left"):
        spool.append([message(2, size=1500)])
    assert numbers_kept(Spool(tmp_path, ROOM)) == [1], "what is unfinished stays"
    spool.finished("a")
    with pytest.raises(OSError, match="No space left"):
        spool.append([message(2, size=1500)])
    spool.append([message(2, size=1500)])
    assert numbers_kept(Spool(tmp_path, ROOM)) == [2]


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.sources.connection import Message
from daemon.sources.spool import Spool

spool = Spool(Path(sys.argv[1]), 2**30)
number = 0
while True:
    spool.append([Message([b"header", number.to_bytes(4, "big") * 5000], datetime.now(UTC))])
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    """Whatever was said to be kept is there after the process was killed while it wrote."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    said = int([line for line in lines if line.endswith("\n")][-1])
    found = [int.from_bytes(parts[1][:4], "big") for _, parts, _ in kept(Spool(tmp_path, ROOM))]
    assert found == list(range(len(found)))
    assert len(found) > said


class TestSource:
    """A source with a spool, stopped and started again."""

    @pytest.fixture
    def camera(self, tmp_path: Path) -> Iterator["zmq.Socket[bytes]"]:
        """It connects, so that what it sends waits while no source is there."""
        with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
            camera.linger = 0
            camera.sndtimeo = 30_000
            camera.connect(self.endpoint(tmp_path))
            yield camera

    def endpoint(self, folder: Path) -> str:
        return f"ipc://{folder}/socket"

    def source(self, folder: Path, format_name: str = "array-1.0") -> ZeroMQSource:
        return ZeroMQSource(
            "camera", Place(self.endpoint(folder), bind=True), FORMATS[format_name].decoder(), "lossless",
            None, DEFAULT_LIMITS, 2**20, Drops(), Spool(folder / "spool", ROOM),
        )  # fmt: skip

    def run(self, source: ZeroMQSource, number: int, finish: int) -> list[Arrival | Failure]:
        """Take frames, finish some of them, and stop."""
        with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
            found = take(arrivals, has(number))
            for arrival in frames_in(found)[:finish]:
                source.finished(arrival.subject.frame_id)
        return found

    def test_frames_that_were_not_finished_come_again_and_are_the_same(
        self, camera: "zmq.Socket[bytes]", tmp_path: Path
    ) -> None:
        for outgoing in images("array-1.0", 4):
            camera.send_multipart(outgoing.parts)
        before = self.run(self.source(tmp_path), 4, finish=2)
        after = self.run(self.source(tmp_path), 2, finish=2)
        assert values_in(after) == [2, 3]
        assert [arrival.subject.frame_id for arrival in frames_in(after)] == [
            arrival.subject.frame_id for arrival in frames_in(before)[2:]
        ]
        assert [(arrival.origin, arrival.folder, arrival.resumed) for arrival in frames_in(after)] == [
            (arrival.origin, arrival.folder, True) for arrival in frames_in(before)[2:]
        ]

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_a_gap_across_the_restart_is_said(
        self, camera: "zmq.Socket[bytes]", tmp_path: Path, format_name: str
    ) -> None:
        start_and_first, rest = [], []
        for outgoing in FORMATS[format_name].simulator().series(shots(8), 8):
            (start_and_first if outgoing.kind == "start" else rest).append(outgoing)
        for outgoing in [*start_and_first, *rest[:2]]:
            camera.send_multipart(outgoing.parts)
        self.run(self.source(tmp_path, format_name), 2, finish=2)
        for outgoing in rest[5:7]:
            camera.send_multipart(outgoing.parts)
        found = self.run(self.source(tmp_path, format_name), 2, finish=2)
        assert values_in(found) == [5, 6]
        (gap,) = sentences_in(found)
        assert gap.startswith("Frames 2 to 4")

    def test_a_series_goes_on_with_what_its_start_said(
        self, camera: "zmq.Socket[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_module, "_SEGMENT_BYTES", 1)  # each batch begins a segment
        start = [
            b'{"htype": "dheader-1.0", "series": 1}', b'{"nimages": 4}', b'{"hrtem": {"pixel_size_angstrom": 0.3}}',
        ]  # fmt: skip
        source = self.source(tmp_path, "dectris-v1")
        frames = [outgoing.parts[:4] for outgoing in images("dectris-v1", 4)]  # without appendix
        with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
            for number, parts in enumerate(frames[:3]):
                for sent in [start, parts] if number == 0 else [parts]:
                    camera.send_multipart(sent)
                (arrival,) = frames_in(take(arrivals, has(1)))
                source.finished(arrival.subject.frame_id)
        camera.send_multipart(frames[3])
        found = self.run(self.source(tmp_path, "dectris-v1"), 1, finish=1)
        assert sentences_in(found) == []
        assert frames_in(found)[0].subject.calibration.pixel_size_angstrom == 0.3  # type: ignore[union-attr]

    def test_what_is_refused_does_not_come_again(self, camera: "zmq.Socket[bytes]", tmp_path: Path) -> None:
        camera.send_multipart([b"{}", b""])
        camera.send_multipart(images("array-1.0", 1)[0].parts)
        assert len(sentences_in(self.run(self.source(tmp_path), 1, finish=0))) == 1
        assert sentences_in(self.run(self.source(tmp_path), 1, finish=1)) == []

    def test_nothing_is_received_while_the_disk_is_full(
        self, camera: "zmq.Socket[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = self.source(tmp_path)
        with monkeypatch.context() as context:
            context.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
                camera.send_multipart(images("array-1.0", 1)[0].parts)
                found = take(arrivals, lambda found: bool(sentences_in(found)))
                context.undo()
                found += take(arrivals, has(1))
        assert values_in(found) == [0]
        assert len(sentences_in(found)) == 1

    def test_a_disk_with_room_for_two_frames_takes_six_that_came_together(
        self, camera: "zmq.Socket[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def fsync_on_a_small_disk(descriptor: int) -> None:
            if sum(file.stat().st_size for file in (tmp_path / "spool").glob("*.spool")) > 8000:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync_on_a_small_disk)
        monkeypatch.setattr(zeromq_module, "_SECONDS_BETWEEN_SPOOL_ATTEMPTS", 0.05)
        source = self.source(tmp_path)
        with closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
            next(arrivals)  # the socket is open; what is sent now is taken all at once
            for outgoing in images("array-1.0", 6):
                camera.send_multipart(outgoing.parts)
            sleep(0.5)
            found: list[Arrival | Failure] = []
            for _ in range(6):
                new = take(arrivals, has(1))
                found += new
                source.finished(frames_in(new)[0].subject.frame_id)
        assert values_in(found) == [0, 1, 2, 3, 4, 5]
        assert len(sentences_in(found)) == 1
