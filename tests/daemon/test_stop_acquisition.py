"""The example script, against the daemon's own publisher."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from daemon.alerts import Alert
from daemon.client import Client, Event
from daemon.ledger import Ledger, LedgerLimits
from daemon.protocol import EVENT, schema_of, topic_of
from daemon.publish.zeromq import ZeroMQPublisher

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "stop_acquisition.py"


class Daemon:
    """What of the daemon sends events."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite", LedgerLimits(10**7, 1.0))
        self.publisher = ZeroMQPublisher("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", self.ledger, folder, dict)
        self.publisher.start()

    def send(self, content: dict[str, Any], *, broadcast: bool = True) -> None:
        message = self.ledger.post(topic_of(EVENT, "camera"), {"schema": schema_of(EVENT), **content}, b"")
        if broadcast:
            self.publisher.send(message)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path)
    yield running
    running.publisher.close()
    running.ledger.close()


def alert(kind: Any) -> dict[str, Any]:
    return Alert(kind, f"Too much {kind}.", 2.0, 1.0, "camera/-/7/0", "frame-7").as_event()


def test_an_acquisition_is_stopped_by_the_alert_that_was_asked_for(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    names = runpy.run_path(str(EXAMPLE))
    taken: list[int] = []
    stopped: list[int] = []
    listening: list[Client[Event]] = []

    def watch() -> None:
        endpoints = daemon.publisher.endpoint, daemon.publisher.replay_endpoint
        with Client(endpoints[0], receive=[Event], replay_endpoint=endpoints[1]) as events:
            listening.append(events)
            names["stop_on_alert"](events, ["atoms_lost"], lambda: stopped.append(len(taken)))

    watching = Thread(target=watch)
    watching.start()
    deadline = monotonic() + 20
    while not (listening and listening[0].status):  # an acquisition that would go on for ever
        daemon.send({"error": "no alert at all"})
        sleep(0.05)
        assert monotonic() < deadline
    while not stopped:
        taken.append(len(taken))
        daemon.send(alert("drift"))
        # That a broadcast is lost must not matter.
        if len(taken) == 3:
            daemon.send(alert("atoms_lost"), broadcast=False)
        sleep(0.02)
        assert monotonic() < deadline
    watching.join()

    assert stopped[0] >= 3
    assert "Stopped: Too much atoms_lost. (camera, frame-7)" in capsys.readouterr().out
