"""Frames wait in order, in turn, and never without limit."""

import logging
import threading
from time import monotonic
from typing import cast

import pytest

from daemon.drops import Drops
from daemon.frames import Frame
from daemon.inbox import LOSSLESS_CAPACITY, NEWER, Inbox
from daemon.sources.source import Arrival


def arrival(source: str, number: int) -> Arrival:
    return Arrival(source, str(number), cast(Frame, None), read_ms=0.0)


def taken(inbox: Inbox) -> tuple[str, int]:
    arrival = inbox.get()
    assert arrival
    return arrival.source, int(arrival.origin)


def test_a_lossless_source_waits_and_loses_nothing() -> None:
    inbox = Inbox({"camera": "lossless"}, drops := Drops())
    total = 5 * LOSSLESS_CAPACITY
    put = []

    def feed() -> None:
        for number in range(total):
            inbox.put(arrival("camera", number))
            put.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join(0.2)
    assert len(put) == LOSSLESS_CAPACITY
    assert [taken(inbox)[1] for _ in range(total)] == list(range(total))
    feeder.join()
    assert not drops.counts


def test_a_live_source_keeps_the_newest_and_tells_of_the_rest_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    inbox = Inbox({"camera": "latest"}, drops := Drops())
    for number in range(10):
        inbox.put(arrival("camera", number))
    assert taken(inbox) == ("camera", 9)
    assert drops.counts == {("camera", NEWER): 9}
    assert str(drops) == "camera: 9 dropped (a newer frame came first)"
    assert caplog.messages == ["camera: 1 dropped so far (a newer frame came first)"], "not a line a frame"


def test_sources_take_turns() -> None:
    inbox = Inbox({"busy": "lossless", "quiet": "lossless"}, Drops())
    for number in range(3):
        inbox.put(arrival("busy", number))
    inbox.put(arrival("quiet", 0))
    assert [taken(inbox)[0] for _ in range(4)] == ["busy", "quiet", "busy", "busy"]


def test_closing_frees_everyone() -> None:
    inbox = Inbox({"camera": "lossless"}, Drops())
    for number in range(LOSSLESS_CAPACITY):
        inbox.put(arrival("camera", number))
    feeder = threading.Thread(target=inbox.put, args=[arrival("camera", 99)])
    feeder.start()
    inbox.close()
    feeder.join(10)
    assert not feeder.is_alive()
    assert inbox.get() is None


def test_a_frame_put_back_comes_again_first_but_not_before_the_others() -> None:
    inbox = Inbox({"camera": "lossless", "other": "lossless"}, Drops())
    for number in range(2):
        inbox.put(arrival("camera", number))
    first = inbox.get()
    assert first
    started = monotonic()
    inbox.put_back(first, pause_seconds=0.2)
    inbox.put(arrival("other", 7))
    assert [taken(inbox) for _ in range(3)] == [("other", 7), ("camera", 0), ("camera", 1)]
    assert monotonic() - started > 0.19
