"""Frames wait in order, in turn, and never without limit."""

import logging
import threading
from time import monotonic, perf_counter
from typing import cast

import pytest

from daemon.drops import Drops
from daemon.frames import Frame
from daemon.inbox import LOSSLESS_CAPACITY, NEWER, Inbox, Job
from daemon.sources.source import Arrival


def job(source: str, number: int) -> Job[int]:
    return Job(Arrival(source, "", cast(Frame, None), read_ms=0.0), number)


def taken(inbox: Inbox[int]) -> tuple[str, int]:
    taken = inbox.get()
    assert taken
    return taken.arrival.source, taken.content


def test_a_lossless_source_waits_and_loses_nothing() -> None:
    inbox = Inbox[int]({"camera": "lossless"}, drops := Drops())
    total = 5 * LOSSLESS_CAPACITY
    put = []

    def feed() -> None:
        for number in range(total):
            inbox.put(job("camera", number))
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
    inbox = Inbox[int]({"camera": "latest"}, drops := Drops())
    dropped = [older.content for number in range(10) for older in inbox.put(job("camera", number))]
    assert dropped == list(range(9))
    assert taken(inbox) == ("camera", 9)
    assert drops.counts == {("camera", NEWER): 9}
    assert str(drops) == "camera: 9 dropped (a newer frame came first)"
    assert caplog.messages == ["camera: 1 dropped so far (a newer frame came first)"], "not a line a frame"


def test_sources_take_turns() -> None:
    inbox = Inbox[int]({"busy": "lossless", "quiet": "lossless"}, Drops())
    for number in range(3):
        inbox.put(job("busy", number))
    inbox.put(job("quiet", 0))
    assert [taken(inbox)[0] for _ in range(4)] == ["busy", "quiet", "busy", "busy"]


def test_closing_frees_everyone() -> None:
    inbox = Inbox[int]({"camera": "lossless"}, Drops())
    for number in range(LOSSLESS_CAPACITY):
        inbox.put(job("camera", number))
    feeder = threading.Thread(target=inbox.put, args=[job("camera", 99)])
    feeder.start()
    inbox.close()
    feeder.join(10)
    assert not feeder.is_alive()
    assert inbox.get() is None


def test_a_frame_put_back_comes_again_first_but_not_before_the_others() -> None:
    inbox = Inbox[int]({"camera": "lossless", "other": "lossless"}, Drops())
    for number in range(2):
        inbox.put(job("camera", number))
    first = inbox.get()
    assert first
    started = monotonic()
    inbox.put_back(first, pause_seconds=0.2)
    inbox.put(job("other", 7))
    assert [taken(inbox) for _ in range(3)] == [("other", 7), ("camera", 0), ("camera", 1)]
    assert monotonic() - started > 0.19


def test_what_may_not_be_taken_waits_and_holds_up_no_other() -> None:
    inbox, blocked = Inbox[int]({"camera": "lossless", "other": "lossless"}, Drops()), {"camera"}
    inbox.put(job("camera", 0))
    inbox.put(job("other", 1))
    taken = [inbox.get(lambda source: source not in blocked) for _ in range(1)]
    assert [job.content for job in taken if job] == [1]
    blocked.clear()
    last = inbox.get(lambda source: source not in blocked)
    assert last
    assert last.content == 0


def test_an_inbox_that_is_to_be_finished_gives_out_what_is_there_even_what_was_put_back() -> None:
    inbox = Inbox[int]({"camera": "lossless"}, Drops())
    inbox.put(job("camera", 0))
    inbox.put(job("camera", 1))
    first = inbox.get()
    assert first
    inbox.put_back(first, pause_seconds=1000)
    inbox.end_pauses()
    inbox.close(finish=True)
    assert [taken(inbox) for _ in range(2)] == [("camera", 0), ("camera", 1)]
    assert inbox.get() is None


def test_the_time_that_a_frame_waits_is_told() -> None:
    inbox = Inbox[int]({"camera": "lossless"}, Drops())
    inbox.put(Job(job("camera", 0).arrival, 0, waited_ms=1000.0, waiting_since=perf_counter() - 2.0))
    waited = inbox.get()
    assert waited
    assert waited.waited_ms >= 3000
