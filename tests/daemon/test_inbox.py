"""Frames wait in order, in turn, and never without limit."""

import threading
from typing import cast

from daemon.frames import Frame
from daemon.inbox import LOSSLESS_CAPACITY, Inbox
from daemon.sources.source import Arrival


def arrival(source: str, number: int) -> Arrival:
    return Arrival(source, str(number), cast(Frame, None), read_ms=0.0)


def taken(inbox: Inbox) -> tuple[str, int]:
    arrival = inbox.get()
    assert arrival
    return arrival.source, int(arrival.origin)


def test_a_lossless_source_waits_and_loses_nothing() -> None:
    inbox = Inbox({"camera": "lossless"})
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
    assert not inbox.dropped


def test_a_live_source_keeps_the_newest_and_counts_the_rest() -> None:
    inbox = Inbox({"camera": "latest"})
    for number in range(10):
        inbox.put(arrival("camera", number))
    assert taken(inbox) == ("camera", 9)
    assert inbox.dropped == {("camera", "a newer frame came first"): 9}


def test_sources_take_turns() -> None:
    inbox = Inbox({"busy": "lossless", "quiet": "lossless"})
    for number in range(3):
        inbox.put(arrival("busy", number))
    inbox.put(arrival("quiet", 0))
    assert [taken(inbox)[0] for _ in range(4)] == ["busy", "quiet", "busy", "busy"]


def test_closing_frees_everyone() -> None:
    inbox = Inbox({"camera": "lossless"})
    for number in range(LOSSLESS_CAPACITY):
        inbox.put(arrival("camera", number))
    feeder = threading.Thread(target=inbox.put, args=[arrival("camera", 99)])
    feeder.start()
    inbox.close()
    feeder.join(10)
    assert not feeder.is_alive()
    assert inbox.get() is None
