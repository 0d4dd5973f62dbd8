"""Bad neighbours: who stops reading, fills the disk, takes rights away or dies, harms nobody else, and is forgiven.

Each scene runs a daemon with two sources, `good` and `bad`. Disks that fill up are small file systems of their own,
which takes root; elsewhere those scenes are left out, and said to be.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import zmq

from daemon.client import Atoms, Event, Overlay
from daemon.ledger import read_history
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.simulator import Shot
from tests.daemon.terminal import hung_terminal
from tests.torture.outcome import Circumstances, Outcome
from tests.torture.running import (
    DaemonProcess,
    Listener,
    Pictures,
    free_endpoint,
    in_thread,
    may_mount,
    mount,
    remount,
    unmount,
)

ASKED = 300
"""Frames in each scene, of each source."""

CONFIG = """
[[sources]]
name = "good"
type = "array-1.0"
endpoint = "{good}"
bind = true
spool = "spool"
model = "{model}"
pixel_size_angstrom = 0.1

[[sources]]
name = "bad"
type = "{bad_type}"
{bad_place}
model = "{model}"
pixel_size_angstrom = 0.1

[ledger]
path = "ledger.sqlite"
"""
CAMERA = 'endpoint = "{bad}"'
SPOOLED = CAMERA + '\nbind = true\nspool = "small"'
FOLDER = 'path = "incoming"'

_MOST_MEMORY_BYTES = 150 * 2**20
_FULL_BYTES = 2**20
_SHARE_BEFORE = 1 / 3

NEED_A_DISK = frozenset({"a full results disk", "a full spool disk", "a results folder that becomes read-only"})
"""Scenes on a file system of their own; where none may be mounted they are left out."""


def neighbours(folder: Path, model: Path, number: int = ASKED, chosen: Collection[str] = ()) -> Outcome:
    """Play scenes: those chosen, else every one."""
    circumstances = Circumstances()
    scenes = {name: play for name, play in _scenes().items() if name in (chosen or _scenes())}
    if not may_mount(folder / "probe"):
        scenes = {name: play for name, play in scenes.items() if name not in NEED_A_DISK}
    outcome = Outcome("neighbours", "every bad neighbour", f"{', '.join(scenes)}; with {number} frames of each source")
    for place, (name, play) in enumerate(scenes.items()):
        scene_folder = folder / f"scene{place}"
        scene_folder.mkdir()
        play(Scene(name, scene_folder, model, number, outcome))
    return circumstances.end(outcome)


class Scene:
    """What all scenes share."""

    def __init__(self, name: str, folder: Path, model: Path, number: int, outcome: Outcome) -> None:
        self.name = name
        self.folder = folder
        self.number = number
        self._model = model
        self._good, self._bad = free_endpoint(), free_endpoint()
        self._outcome = outcome

    def daemon(self, bad_type: str, bad_place: str) -> DaemonProcess:
        place = bad_place.replace("{bad}", self._bad)
        config = CONFIG.format(model=self._model, good=self._good, bad_type=bad_type, bad_place=place)
        return DaemonProcess(self.folder, config)

    def check(self, what: str, holds: object, measured: object = "") -> None:
        self._outcome.check(f"{self.name}: {what}", holds, measured)

    def good_camera(self) -> "Camera":
        return Camera(self._good, bind=False)

    def bad_camera(self, *, bind: bool = False) -> "Camera":
        return Camera(self._bad, bind=bind)

    def check_all_of(self, source: str, daemon: DaemonProcess, listener: Listener, number: int) -> None:
        """Wait for so many results of a source, each once."""
        came = daemon.wait_until(lambda: len(listener.of(Atoms, source)) >= number, 120.0)
        sequences = [header["sequence"] for header in listener.of(Atoms, source)]
        self.check(
            f"every frame of `{source}` is published once",
            came and sequences == list(range(1, number + 1)),
            f"{len(sequences)} of {number}",
        )


class Camera:
    """Sends as many frames as it is told to, and waits until they are taken."""

    def __init__(self, endpoint: str, *, bind: bool) -> None:
        self._endpoint, self._bind = endpoint, bind
        self._simulator = Array10Simulator()
        self._pictures = Pictures()
        self._numbers = count()
        self._context = zmq.Context()
        self._socket = self._open()

    def _open(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.PUSH)
        socket.linger = 0
        socket.sndhwm = 2
        socket.sndtimeo = 120_000
        (socket.bind if self._bind else socket.connect)(self._endpoint)
        return socket

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)
        self._context.term()

    def send(self, number: int) -> None:
        for _ in range(number):
            self.send_one()

    def send_one(self) -> None:
        (message,) = self._simulator.series([Shot(self._pictures[next(self._numbers)], {})])
        self._socket.send_multipart(message.parts)

    def die(self) -> None:
        self._socket.close(0)

    def come_back(self) -> None:
        """As a new process: numbers begin again."""
        self._simulator = Array10Simulator()
        self._socket = self._open()


def _a_subscriber_that_stops_reading(scene: Scene) -> None:
    with (
        scene.daemon("array-1.0", CAMERA + "\nbind = true") as daemon,
        zmq.Context() as context,
        context.socket(zmq.SUB) as sleeper,
        context.socket(zmq.DEALER) as asker,
    ):
        daemon.start()
        for socket in (sleeper, asker):
            socket.linger = 0
            socket.rcvhwm = 1
        sleeper.subscribe(b"")
        sleeper.connect(f"ipc://{scene.folder}/results.socket")
        asker.connect(f"ipc://{scene.folder}/replay.socket")
        with (
            Listener(daemon, Atoms, Overlay) as listener,
            scene.good_camera() as good,
            scene.bad_camera() as bad,
        ):
            before = None
            for number in range(scene.number):
                good.send_one()
                bad.send_one()
                asker.send(b'{"topic": "atoms/good"}')
                if number == scene.number // 10:
                    before = daemon.usage().memory_bytes
            for source in ("good", "bad"):
                scene.check_all_of(source, daemon, listener, scene.number)
            assert before
            grown = daemon.usage().memory_bytes - before
            scene.check("memory is bounded", grown < _MOST_MEMORY_BYTES, f"{grown / 1e6:+.0f} MB")
        scene.check("the daemon stops when asked to", daemon.stop() == 0)


def _a_console_that_hangs(scene: Scene) -> None:
    """The terminal that the daemon logs to takes nothing from the first line on."""
    with scene.daemon("array-1.0", CAMERA + "\nbind = true") as daemon, hung_terminal() as terminal:
        daemon.spawn(terminal)
        with (
            Listener(daemon, Atoms) as listener,
            scene.good_camera() as good,
            scene.bad_camera() as bad,
        ):
            for _ in range(scene.number):
                good.send_one()
                bad.send_one()
            for source in ("good", "bad"):
                scene.check_all_of(source, daemon, listener, scene.number)
        scene.check("the daemon stops when asked to", daemon.stop() == 0)


def _a_camera_that_dies_and_returns(scene: Scene) -> None:
    with scene.daemon("array-1.0", CAMERA) as daemon, scene.bad_camera(bind=True) as bad:
        daemon.start()
        with Listener(daemon, Atoms, Event) as listener, scene.good_camera() as good:
            first = round(_SHARE_BEFORE * scene.number)
            bad.send(first)
            daemon.wait_until(lambda: len(listener.of(Atoms, "bad")) == first)
            bad.die()
            scene.check(
                "its loss is an event",
                daemon.wait_until(lambda: _events(listener, "bad", "is gone")),
                _sentences(listener, "bad"),
            )
            scene.check("its gauge says so", daemon.wait_until(lambda: _is_connected(listener) is False))
            good.send(scene.number)
            scene.check_all_of("good", daemon, listener, scene.number)
            bad.come_back()
            scene.check("its gauge says that it is back", daemon.wait_until(lambda: _is_connected(listener)))
            bad.send(scene.number - first)
            scene.check_all_of("bad", daemon, listener, scene.number)
        scene.check("the daemon stops when asked to", daemon.stop() == 0)


def _a_folder_that_goes_and_returns(scene: Scene) -> None:
    incoming, away = scene.folder / "incoming", scene.folder / "away"
    incoming.mkdir()
    pictures = Pictures()
    with scene.daemon("directory", FOLDER) as daemon:
        daemon.start()
        with Listener(daemon, Atoms, Event) as listener, scene.good_camera() as good:
            first = round(_SHARE_BEFORE * scene.number)
            for number in range(first):
                np.save(incoming / f"frame{number}.npy", pictures[number])
            daemon.wait_until(lambda: len(listener.of(Atoms, "bad")) == first)
            incoming.rename(away)
            scene.check(
                "its loss is told",
                daemon.wait_until(lambda: "incoming" in daemon.said().split("ready;")[1].partition("WARNING")[2], 60.0)
                or _events(listener, "bad", "incoming"),
                _sentences(listener, "bad"),
            )
            good.send(scene.number)
            scene.check_all_of("good", daemon, listener, scene.number)
            away.rename(incoming)
            for number in range(first, scene.number):
                np.save(incoming / f"frame{number}.npy", pictures[number])
            scene.check_all_of("bad", daemon, listener, scene.number)
        scene.check("the daemon stops when asked to", daemon.stop() == 0)


@contextmanager
def _results_wait(scene: Scene, daemon: DaemonProcess, good: Camera, bad: Camera) -> Iterator[None]:
    """Have both cameras send all that is left, nothing of which can be written; go on once the log says so."""

    def play(_: threading.Event) -> None:
        good.send(scene.number - 1)
        bad.send(scene.number)

    with in_thread(play):
        scene.check(
            "the log says that results wait",
            daemon.wait_until(lambda: "results wait until they can be written" in daemon.said()),
        )
        yield


def _a_full_results_disk(scene: Scene) -> None:
    """All that is published waits, and nothing else; the ledger is on another disk, as it should be."""
    results = scene.folder / "results"
    mount(results, 64 * _FULL_BYTES)
    try:
        with scene.daemon("array-1.0", SPOOLED) as daemon:
            daemon.start()
            with (
                Listener(daemon, Atoms) as listener,
                scene.good_camera() as good,
                scene.bad_camera() as bad,
            ):
                good.send(1)
                scene.check_all_of("good", daemon, listener, 1)
                ballast = results / "other-program.tmp"
                _fill(ballast)

                with _results_wait(scene, daemon, good, bad):
                    beats = listener.status.get("sequence", 0)
                    scene.check(
                        "heartbeats go on",
                        daemon.wait_until(lambda: listener.status.get("sequence", 0) >= beats + 3, 15.0),
                    )
                    memory = daemon.usage().memory_bytes
                    ballast.unlink()
                    for source in ("good", "bad"):
                        scene.check_all_of(source, daemon, listener, scene.number)
                    grown = daemon.usage().memory_bytes - memory
                    scene.check("memory is bounded", grown < _MOST_MEMORY_BYTES, f"{grown / 1e6:+.0f} MB")
            scene.check("the daemon stops when asked to", daemon.stop() == 0)
            _check_that_nothing_failed(scene, daemon)
    finally:
        unmount(results)


def _a_full_spool_disk(scene: Scene) -> None:
    """Only the camera whose spool is full waits."""
    small = scene.folder / "small"
    mount(small, _FULL_BYTES)
    try:
        with scene.daemon("array-1.0", SPOOLED) as daemon:
            ballast = small / "other-program.tmp"
            daemon.start()
            _fill(ballast)
            with (
                Listener(daemon, Atoms, Event) as listener,
                scene.good_camera() as good,
                scene.bad_camera() as bad,
            ):
                with in_thread(lambda _: bad.send(scene.number)):
                    scene.check(
                        "it is an event",
                        daemon.wait_until(lambda: _events(listener, "bad", "No space left")),
                        _sentences(listener, "bad"),
                    )
                    good.send(scene.number)
                    scene.check_all_of("good", daemon, listener, scene.number)
                    ballast.unlink()
                scene.check_all_of("bad", daemon, listener, scene.number)
            scene.check("the daemon stops when asked to", daemon.stop() == 0)
    finally:
        unmount(small)


def _a_read_only_results_folder(scene: Scene) -> None:
    results = scene.folder / "results"
    mount(results, 256 * _FULL_BYTES)
    try:
        with scene.daemon("array-1.0", SPOOLED) as daemon:
            daemon.start()
            with (
                Listener(daemon, Atoms) as listener,
                scene.good_camera() as good,
                scene.bad_camera() as bad,
            ):
                good.send(1)
                scene.check_all_of("good", daemon, listener, 1)
                daemon.wait_until(lambda: any(results.rglob("*.overlay.png")))
                remount(results, read_only=True)

                with _results_wait(scene, daemon, good, bad):
                    remount(results, read_only=False)
                    for source in ("good", "bad"):
                        scene.check_all_of(source, daemon, listener, scene.number)
            scene.check("the daemon stops when asked to", daemon.stop() == 0)
            _check_that_nothing_failed(scene, daemon)
    finally:
        unmount(results)


def _scenes() -> "dict[str, Callable[[Scene], None]]":
    return {
        "a subscriber that stops reading": _a_subscriber_that_stops_reading,
        "a console that hangs": _a_console_that_hangs,
        "a camera that dies and returns": _a_camera_that_dies_and_returns,
        "a folder that goes and returns": _a_folder_that_goes_and_returns,
        "a full results disk": _a_full_results_disk,
        "a full spool disk": _a_full_spool_disk,
        "a results folder that becomes read-only": _a_read_only_results_folder,
    }


def _check_that_nothing_failed(scene: Scene, daemon: DaemonProcess) -> None:
    failed = read_history(daemon.folder / "ledger.sqlite", state="failed")
    scene.check("no frame is given up", not failed, [entry.error for entry in failed[:2]])


def _fill(file: Path) -> None:
    """Take all the room there is."""
    with file.open("wb", buffering=0) as ballast:
        try:
            for piece in (2**16, 2**12, 1):
                try:
                    while True:
                        ballast.write(bytes(piece))
                except OSError:
                    continue
        finally:
            ballast.flush()


def _is_connected(listener: Listener) -> bool | None:
    return listener.status["sources"]["bad"].get("connected") if listener.status else None


def _events(listener: Listener, source: str, words: str) -> bool:
    return any(words in sentence for sentence in _sentences(listener, source))


def _sentences(listener: Listener, source: str) -> list[str]:
    return [header.get("error", "") for header in listener.of(Event, source)]
