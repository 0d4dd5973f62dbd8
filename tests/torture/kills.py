"""`kill -9` at random moments under load, with a watched folder and a spooled camera at once.

Of a folder, a file is acknowledged once it is there. Of a camera, a frame is acknowledged once its message is whole in
the spool, which is looked into after each kill; what was still in a socket then is lost, and must be said to be.
"""

import json
import random
import re
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from itertools import count
from math import inf
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import zmq
from PIL import Image

from daemon.atoms import header_of, read_parquet
from daemon.client import Atoms, Event
from daemon.ledger import Entry, read_history
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.simulator import Shot
from daemon.sources.spool_records import read_records
from tests.torture.outcome import Circumstances, Outcome, spread
from tests.torture.running import DaemonProcess, Listener, Pictures, free_endpoint, in_thread, parts_left_in

ASKED = 200
RESTART_SECONDS = 5.0

CONFIG = """
[[sources]]
name = "folder"
type = "directory"
path = "incoming"
model = "{model}"
pixel_size_angstrom = 0.1

[[sources]]
name = "camera"
type = "array-1.0"
endpoint = "{camera}"
bind = true
spool = "spool"
model = "{model}"
pixel_size_angstrom = 0.1

[limits]
spool_bytes = 8_000_000  # so that it is often begun anew, and sometimes full
"""

_FRAMES_A_SECOND = 12.0
_MOST_FILES_WAITING = 40
_SHARE_KILLED_WHILE_STARTING = 0.2
_LONGEST_LIFE_SECONDS = 2.0
_QUIET_SECONDS = 2.0
_DRAIN_SECONDS = 300.0


class Load:
    """A microscope's two ways out, at work whether the daemon is alive or not."""

    def __init__(self, daemon: DaemonProcess, listener: Listener, camera: str) -> None:
        self.files = 0
        self.sent = 0
        self._daemon = daemon
        self._listener = listener
        self._camera = camera
        self._pictures = Pictures()

    def write_files(self, stop: threading.Event) -> None:
        """Rename frames into the watched folder, never many more than are analysed."""
        incoming, aside = self._daemon.folder / "incoming", self._daemon.folder / "aside"
        aside.mkdir(exist_ok=True)
        for number in count():
            while len(self._listener.of(Atoms, "folder")) < number - _MOST_FILES_WAITING:
                if stop.wait(0.05):
                    return
            if stop.wait(1 / _FRAMES_A_SECOND):
                return
            file = aside / f"frame{number:06d}.npy"
            np.save(file, self._pictures[number])
            file.rename(incoming / file.name)
            self.files = number + 1

    def send_frames(self, stop: threading.Event) -> None:
        """Push frames as fast as they are taken, within reason."""
        simulator = Array10Simulator()
        with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
            camera.linger = 0
            camera.sndhwm = 1
            camera.connect(self._camera)
            for number in count():
                if stop.wait(1 / _FRAMES_A_SECOND):
                    return
                (message,) = simulator.series([Shot(self._pictures[number], {})])
                while not camera.poll(50, zmq.POLLOUT):
                    if stop.is_set():
                        return
                camera.send_multipart(message.parts)
                self.sent = number + 1


def kills(folder: Path, model: Path, number: int = ASKED, seed: int = 4, minutes: float = inf) -> Outcome:
    """Kill a daemon so often, or as often as there is time for."""
    circumstances = Circumstances()
    until = monotonic() + 60 * minutes
    outcome = Outcome("kills", f"{ASKED} kills at random moments", "")
    chance = random.Random(seed)
    (folder / "incoming").mkdir()
    acknowledged: set[int] = set()
    in_work: Counter[str] = Counter()
    starts: list[float] = []
    kills_while_starting = 0
    camera = free_endpoint()
    config = CONFIG.format(model=model, camera=camera)
    with DaemonProcess(folder, config) as daemon, Listener(daemon, Atoms, Event) as listener:
        load = Load(daemon, listener, camera)
        with in_thread(load.write_files), in_thread(load.send_frames):
            for killed in range(number):
                if monotonic() > until:
                    number = killed
                    break
                if starts and chance.random() < _SHARE_KILLED_WHILE_STARTING:
                    daemon.spawn()
                    sleep(chance.uniform(0, starts[-1]))
                    kills_while_starting += 1
                else:
                    starts.append(daemon.start())
                    _live(daemon, chance.uniform(0, _LONGEST_LIFE_SECONDS))
                daemon.kill()
                acknowledged |= _numbers_in(folder / "spool" / "camera")
                in_work.update(
                    entry.frame_id for entry in _entries(daemon.ledger) if entry.attempts and entry.state == "received"
                )
            starts.append(daemon.start())
        # The load is over: what is still to be done is done.
        began_to_drain = monotonic()
        sleep(_QUIET_SECONDS)  # what is in sockets is received
        drained = daemon.wait_until(lambda: _is_drained(daemon, load), _DRAIN_SECONDS, 0.5)
        seconds = monotonic() - began_to_drain
        outcome.check("all that waits is done after the last start", drained, f"{seconds:.0f} s")
        daemon.wait_until(lambda: len(listener.headers) >= _posted(daemon.ledger), 30.0)
        status = daemon.stop()
        outcome.check("the daemon stops when asked to", status == 0, f"exit status {status}")
    acknowledged |= _numbers_in(folder / "spool" / "camera")

    entries = _entries(daemon.ledger)
    acknowledged |= {_number(entry.frame_id) for entry in entries if entry.source == "camera"}
    set_aside = {entry.frame_id for entry in entries if entry.state == "failed" and "set aside" in (entry.error or "")}
    outcome.run = f"{number} kills, seed {seed}"
    outcome.numbers = {
        "kills": number,
        "kills_while_starting": kills_while_starting,
        "files": load.files,
        "camera_frames_sent": load.sent,
        "camera_frames_acknowledged": len(acknowledged),
        "camera_frames_lost_in_sockets": load.sent - len(acknowledged),
        "set_aside": sorted(set_aside),
        "restart_seconds": spread(starts),
    }
    _check_once(outcome, "folder", range(load.files), entries, daemon, listener, set_aside)
    _check_once(outcome, "camera", sorted(acknowledged), entries, daemon, listener, set_aside)
    outcome.check(
        "a frame is set aside only where kills hit its own analysis twice",
        all(in_work[frame_id] >= 2 for frame_id in set_aside),
        f"{len(set_aside)} set aside",
    )
    lost, told = set(range(load.sent)) - acknowledged, _numbers_told_missing(daemon.results / "events.jsonl")
    lost = {missing for missing in lost if missing < max(acknowledged)}  # what follows a loss tells of it
    outcome.check("camera frames lost in a socket are told as missing", lost <= told, f"{len(lost - told)} are not")
    _check_files(outcome, daemon, entries)
    outcome.check(
        f"a restart takes less than {RESTART_SECONDS:g} s, caches warm",
        max(starts[1:]) < RESTART_SECONDS,
        f"median {spread(starts[1:])['median']:.2f} s, largest {max(starts[1:]):.2f} s of {len(starts) - 1}",
        is_timing=True,
    )
    outcome.check("the log shows no fault in hrtemd", "Traceback" not in daemon.log.read_text())
    return circumstances.end(outcome)


def _live(daemon: DaemonProcess, seconds: float) -> None:
    """Let it work for a while; it must not end by itself."""
    sleep(seconds)
    assert daemon.is_alive, daemon.said()[-3000:]


def _numbers_in(spool: Path) -> set[int]:
    """Numbers of the images whose messages are whole in a spool."""
    return {
        json.loads(bytes(message.parts[0]))["frame"]
        for segment in spool.glob("*.spool")
        for message, _ in read_records(segment)
    }


def _number(frame_id: str) -> int:
    return int(frame_id.split("/")[2])


def _entries(ledger: Path) -> list[Entry]:
    return read_history(ledger) if ledger.exists() else []


def _is_drained(daemon: DaemonProcess, load: Load) -> bool:
    """Whether every file is done, and whatever came from the camera, overlays too."""
    entries = _entries(daemon.ledger)
    files = sum(entry.source == "folder" for entry in entries)
    if files < load.files or any(entry.state == "received" for entry in entries):
        return False
    published = sum(entry.state == "published" for entry in entries)
    overlays = len(list(daemon.results.rglob("*.overlay.png")))
    return overlays + len(_overlays_set_aside(daemon, entries)) >= published


def _overlays_set_aside(daemon: DaemonProcess, entries: list[Entry]) -> set[str]:
    """Origins of frames that are published and whose drawing kills hit twice, which an event says; see decision 15."""
    events = daemon.results / "events.jsonl"
    told = map(json.loads, events.read_text().splitlines() if events.exists() else [])
    set_aside = {event["origin"] for event in told if "is set aside: hrtemd ended" in event["error"]}
    return set_aside & {entry.origin for entry in entries if entry.state == "published"}


def _posted(ledger: Path) -> int:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        (number,) = connection.execute("SELECT sum(newest) FROM topics WHERE topic NOT LIKE 'overlay/%'").fetchone()
        return int(number or 0)


def _check_once(
    outcome: Outcome,
    source: str,
    numbers: "range | list[int]",
    entries: list[Entry],
    daemon: DaemonProcess,
    listener: Listener,
    set_aside: set[str],
) -> None:
    """Check that each acknowledged frame of a source was published exactly once, by all who know of it."""
    wanted = Counter(dict.fromkeys(numbers, 1))
    done = Counter(_frame_number(entry) for entry in entries if entry.source == source and entry.state == "published")
    aside = Counter(_frame_number(entry) for entry in entries if entry.source == source and entry.frame_id in set_aside)
    outcome.check(
        f"{source}: the ledger has each acknowledged frame as published once, or set aside",
        done + aside == wanted,
        f"{len(wanted)} frames, {done.total()} published, {aside.total()} set aside; "
        f"{_some((wanted - done - aside).elements())} missing",
    )
    with closing(sqlite3.connect(f"file:{daemon.ledger}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT sequence, header FROM messages WHERE topic = ? ORDER BY sequence", (f"atoms/{source}",)
        ).fetchall()
    posted = Counter(_header_number(json.loads(header)) for _, header in rows)
    outcome.check(
        f"{source}: each has exactly one result, and results are numbered without a gap",
        posted == done and [sequence for sequence, _ in rows] == list(range(1, len(rows) + 1)),
        f"{len(rows)} results; {_some((posted - done).elements())} too many, "
        f"{_some((done - posted).elements())} too few",
    )
    received = listener.of(Atoms, source)
    heard = Counter(map(_header_number, received))
    outcome.check(
        f"{source}: a client that was there all the time received each exactly once and in order",
        heard == posted and [header["sequence"] for header in received] == list(range(1, len(rows) + 1)),
        f"{len(received)} received; {_some((heard - posted).elements())} too many, "
        f"{_some((posted - heard).elements())} too few; {len(listener.troubles)} troubles {listener.troubles[:2]}",
    )


def _frame_number(entry: Entry) -> int:
    return _number(entry.frame_id) if entry.source == "camera" else _file_number(entry.origin)


def _header_number(header: dict[str, str]) -> int:
    return _number(header["frame_id"]) if header["source"] == "camera" else _file_number(header["origin"])


def _file_number(origin: str) -> int:
    return int(Path(origin).stem.removeprefix("frame"))


def _some(numbers: object) -> list[int]:
    return sorted(numbers)[:5]  # type: ignore[call-overload]


def _numbers_told_missing(events: Path) -> set[int]:
    told: set[int] = set()
    for line in events.read_text().splitlines() if events.exists() else []:
        if match := re.match(r"Frames? (\d+)(?: to (\d+))?", json.loads(line)["error"]):
            told |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return told


def _check_files(outcome: Outcome, daemon: DaemonProcess, entries: list[Entry]) -> None:
    """Check that the results folder holds whole files only, the right ones, and each once."""
    tables = list(daemon.results.rglob("*.atoms.parquet"))
    wrong, without_overlay = [], 0
    for path in tables:
        table = read_parquet(path)
        header = header_of(table)
        number = _header_number(header) if header else -1
        lines = path.with_name(path.name.replace(".parquet", ".csv")).read_text().splitlines()
        if not table.num_rows == len(lines) - 1 == 6 * (number % Pictures.KINDS + 1):
            wrong.append(path.name)
        overlay = path.with_name(path.name.replace(".atoms.parquet", ".overlay.png"))
        if overlay.exists():
            with Image.open(overlay) as picture:
                picture.load()  # raises where it is cut short
        else:
            without_overlay += 1
    published = sum(entry.state == "published" for entry in entries)
    outcome.check(
        "each published frame has its tables, whole and with the right atoms",
        len(tables) == published and not wrong,
        f"{len(tables)} tables for {published} frames; wrong: {wrong[:5]}",
    )
    aside = _overlays_set_aside(daemon, entries)
    outcome.check(
        "each table has its overlay, and it is whole, or an event says that drawing it was set aside",
        without_overlay == len(aside),
        f"{without_overlay} have none, {len(aside)} set aside",
    )
    left = parts_left_in(daemon.results)
    outcome.check("no half-written output is left", not left, f"{len(left)} temporary files {left[:3]}")
