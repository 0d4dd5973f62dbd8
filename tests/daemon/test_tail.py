"""`hrtemd tail`, the installed command in a process of its own, in front of a daemon that comes and goes."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

import pytest

from daemon.cli.tail import _follow, _line
from daemon.client import Status
from tests.daemon.broadcasting import Station

PATIENCE_SECONDS = 60.0  # the machine may be busy


class Tail:
    """A running `hrtemd tail` and what it says."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: dict[str, SimpleQueue[str]] = {"stdout": SimpleQueue(), "stderr": SimpleQueue()}
        self._readers = [
            Thread(target=self._read, args=[getattr(self._process, name), lines]) for name, lines in self._lines.items()
        ]
        for reader in self._readers:
            reader.start()

    def line(self) -> str:
        """The next result."""
        return self._lines["stdout"].get(timeout=PATIENCE_SECONDS)

    def notice(self) -> str:
        """The next thing said that is no result."""
        return self._lines["stderr"].get(timeout=PATIENCE_SECONDS)

    def stop(self, request: int = signal.SIGINT) -> int:
        """End it, and return its exit status; nothing may be left unsaid."""
        self._process.send_signal(request)
        status = self._process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join()
        for lines in self._lines.values():
            with pytest.raises(Empty):
                assert not lines.get_nowait()
        return status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    @staticmethod
    def _read(stream: IO[str], lines: "SimpleQueue[str]") -> None:
        with stream:
            for line in stream:
                lines.put(line.rstrip("\n"))


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    station.close()


@pytest.fixture
def start_tail(station: Station, hrtemd_path: Path) -> Iterator[Callable[..., Tail]]:
    tails = []

    def start(*options: str) -> Tail:
        endpoints = [station.endpoint, "--replay-endpoint", station.replay_endpoint]
        tails.append(Tail([str(hrtemd_path), "tail", *endpoints, *options]))
        return tails[-1]

    yield start
    for tail in tails:
        tail.kill()


def test_one_line_a_frame_with_events_between(station: Station, start_tail: Callable[..., Tail]) -> None:
    tail = start_tail()
    assert tail.notice().endswith(f"Following the daemon at {station.endpoint}.")
    taken_at = datetime.now(UTC) - timedelta(hours=1)
    station.post_atoms(name="frame-17", count=3, acquired_at=taken_at.isoformat(), warnings=["The dose is low."])
    line = tail.line()
    time, rest = line.split("  ", 1)
    assert datetime.strptime(time, "%H:%M:%S")
    assert rest.startswith("camera  frame-17  3 atoms (3 C, 1 vacancy)  41 ms  36")
    assert rest.endswith(" s old; warning: The dose is low.")
    station.post_event("torn.npy: is cut short.", "other")
    assert tail.line().endswith("  other  event: torn.npy: is cut short.")
    assert tail.stop() == 0


def test_a_daemon_that_goes_is_told_once_and_what_was_missed_comes(
    station: Station, start_tail: Callable[..., Tail]
) -> None:
    tail = start_tail()
    assert "Following" in tail.notice()
    station.post_atoms(name="before")
    assert "before" in tail.line()
    station.stop()
    assert "fell silent" in tail.notice()
    station.post_atoms(name="forgotten")
    station.forget_all()
    station.post_atoms(name="meanwhile")
    station.start()
    notices = {tail.notice()[10:], tail.notice()[10:]}
    assert f"Following the daemon at {station.endpoint}." in notices
    assert any(notice.startswith("atoms/camera: results 2 to 2 were missed") for notice in notices)
    assert "meanwhile" in tail.line()
    assert tail.stop() == 0


def test_without_a_daemon_that_is_said(station: Station, start_tail: Callable[..., Tail]) -> None:
    station.stop()
    tail = start_tail()
    assert "Nothing was heard from" in tail.notice()
    station.start()
    assert "Following" in tail.notice()
    assert tail.stop() == 0


def test_how_a_source_is_stands_there_at_first_and_when_it_changes(
    station: Station, start_tail: Callable[..., Tail]
) -> None:
    gauge = {
        "connected": False, "senders": 0, "refused": 2, "endpoint": "tcp://127.0.0.1:9999",
        "received": 12, "seconds_since_last_frame": 3.2, "analysed": 9, "failed": 1, "skipped": 0,
        "dropped": {"a newer frame came first": 2}, "waiting": {"prepare": 0, "infer": 1, "draw": 4},
        "models": {"graphene": "openvino CPU f32"},
    }  # fmt: skip
    station.status = lambda: {"sources": {"camera": gauge}}
    tail = start_tail()
    assert "Following" in tail.notice()
    assert tail.notice()[10:] == (
        "camera: 0 senders at tcp://127.0.0.1:9999 (refused 2 times: see docs/keys.md); last frame 3 s ago; "
        "12 received, 9 analysed, 1 failed, 2 dropped (a newer frame came first); waiting: 1 to infer, 4 to draw; "
        "graphene on openvino CPU f32"
    )
    gauge |= {"connected": True, "senders": 1, "refused": 0, "seconds_since_last_frame": None}
    assert tail.notice()[10:].startswith("camera: 1 sender at tcp://127.0.0.1:9999; no frame yet; 12 received")
    station.stop()
    assert "fell silent" in tail.notice()
    station.start()
    assert "Following" in tail.notice()
    assert "camera: 1 sender" in tail.notice()
    assert tail.stop() == 0


def test_json_lines_are_headers(station: Station, start_tail: Callable[..., Tail]) -> None:
    messages = [station.post_atoms("one"), station.post_atoms("two"), station.post_event("It broke.", "two")]
    tail = start_tail("--json", "--from-start", "--source", "two")
    assert "Following" in tail.notice()
    lines = [json.loads(tail.line()) for _ in range(2)]
    assert sorted(lines, key=str) == sorted(({"topic": sent.topic, **sent.header} for sent in messages[1:]), key=str)
    assert tail.stop() == 0


def test_names_cannot_command_the_terminal(station: Station, start_tail: Callable[..., Tail]) -> None:
    tail = start_tail("--from-start")
    station.post_atoms(name="\x1b]0;owned\x07\nname\udcff")
    assert "  �]0;owned��name�  " in tail.line()
    tail.notice()
    assert tail.stop() == 0


def test_an_unusable_endpoint_is_status_2(hrtemd: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    run = hrtemd("tail", "nonsense")
    assert run.returncode == 2
    assert "nonsense: has no port" in run.stderr


def test_that_a_daemon_has_no_results_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    module = sys.modules["daemon.cli.tail"]  # by its name, `daemon.cli.tail` is the command
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(module, "_tell", said.append)

    def heartbeats_until_interrupted() -> Iterator[Status]:
        yield from [Status("status", {}, b"")] * 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _follow(heartbeats_until_interrupted(), "tcp://daemon:1", _line)  # type: ignore[arg-type]
    assert said == ["Following the daemon at tcp://daemon:1.", "The daemon runs, but has had no results for 0 s."]
