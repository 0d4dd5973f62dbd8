"""The scripts that push frames from the programs at the camera, run with stand-ins for these programs.

Each stand-in has only what the script may use, so a call of anything else fails.
"""
# ruff: noqa: N802 - the names are DigitalMicrograph's

import ast
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq

from daemon.keys import ServerKeys, apply_keys, doorkeeper, make_keys
from daemon.readers.limits import DEFAULT_LIMITS
from daemon.sources.array_1_0 import Array10Decoder

SENDERS = Path(__file__).parents[2] / "deploy" / "senders"
SCRIPTS = ["push_from_gms.py", "push_from_serialem.py", "push_from_nionswift.py"]
WAIT_MS = 5_000


@pytest.fixture
def receiver() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context.instance().socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind("tcp://127.0.0.1:0")
        yield socket


def endpoint_of(receiver: zmq.Socket[bytes]) -> str:
    return receiver.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")


def run(script: str, endpoint: str, **settings: object) -> dict[str, Any]:
    """Run a script whose settings somebody edited."""
    text = (SENDERS / script).read_text(encoding="utf-8")
    for name, value in {"ENDPOINT": endpoint, **settings}.items():
        text, edited = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", text, count=1, flags=re.MULTILINE)
        assert edited
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, script, "exec"), names)
    return names


def received(receiver: zmq.Socket[bytes]) -> tuple[dict[str, Any], np.ndarray]:
    """The next message, as hrtemd's own decoder understands it too."""
    assert receiver.poll(WAIT_MS), "nothing was sent"
    parts = receiver.recv_multipart()
    header = json.loads(parts[0])
    (image,) = Array10Decoder().accept(list(parts))
    frame = image.frame("camera", datetime.now(UTC), DEFAULT_LIMITS, None)
    size = header["hrtem"].get("pixel_size_angstrom")
    assert (frame.calibration.pixel_size_angstrom if frame.calibration else None) == size
    assert frame.acquisition.voltage_kv == header["hrtem"].get("voltage_kv")
    return header, frame.pixels


def image(number: int, dtype: str = "uint16") -> np.ndarray:
    return (np.arange(48 * 64).reshape(48, 64) + number).astype(dtype)


class DMImage:
    """An image of DigitalMicrograph, whose memory changes under it."""

    def __init__(self, unit: str = "nm") -> None:
        self.pixels = np.zeros((48, 64), np.int32)
        self.unit = unit

    def GetNumArray(self) -> np.ndarray:
        return self.pixels

    def GetName(self) -> str:
        return "Live"

    def GetDimensionCalibration(self, dimension: int, style: int) -> tuple[float, float, str]:
        return 0.0, 0.012, self.unit

    def GetTagGroup(self) -> Any:
        def get(path: str) -> tuple[bool, float]:
            return (True, 80_000.0) if path == "Microscope Info:Voltage" else (False, 0.0)

        return SimpleNamespace(GetTagAsFloat=get)


@pytest.fixture
def live_view(monkeypatch: pytest.MonkeyPatch) -> DMImage:
    live = DMImage()
    events: list[str] = []

    class ScriptObject:
        def ImageHandleDataChangedEvent(self, image: DMImage, plugin: str) -> int:
            events.append("data")
            return 1

        def WindowHandleWindowClosedEvent(self, window: str, plugin: str) -> int:
            events.append(window)
            return 2

        def UnregisterAllListeners(self) -> None:
            events.clear()

    module = ModuleType("DigitalMicrograph")
    module.Py_ScriptObject = ScriptObject  # type: ignore[attr-defined]
    module.GetFrontImage = lambda: live  # type: ignore[attr-defined]
    document = SimpleNamespace(GetWindow=lambda: "its window")
    module.ImageGetOrCreateImageDocument = lambda image: document  # type: ignore[attr-defined]
    live.events = events  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "DigitalMicrograph", module)
    return live


def wait_for_connection(send: Callable[[], bool]) -> None:
    """A connection takes a moment, in which frames are dropped."""
    deadline = datetime.now(UTC).timestamp() + WAIT_MS / 1e3
    while not send():
        assert datetime.now(UTC).timestamp() < deadline


def test_gms_sends_each_new_image_once(
    live_view: DMImage, receiver: zmq.Socket[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    names = run("push_from_gms.py", endpoint_of(receiver), KEYS={"dose_per_square_angstrom": 20.0})
    listener = names["listener"]
    assert live_view.events == ["its window", "data"]
    wait_for_connection(lambda: listener.sender.send(live_view.pixels))
    first, _ = received(receiver)

    for number in (1, 2, 3):
        live_view.pixels[:] = image(number, "int32")
        listener.HandleDataChangedEvent(0, live_view)
        listener.HandleDataChangedEvent(0, live_view)
        live_view.pixels[:] = 0  # what was sent must not change with it
        header, pixels = received(receiver)
        np.testing.assert_array_equal(pixels, image(number, "int32"))
        assert header["frame"] == first["frame"] + number
        assert header["hrtem"] == {
            "dose_per_square_angstrom": 20.0,
            "pixel_size_angstrom": pytest.approx(0.12),
            "voltage_kv": 80.0,
        }
    listener.HandleWindowClosedEvent(0, "its window")
    assert live_view.events == []
    assert "4 frames sent" in capsys.readouterr().out


def test_gms_without_calibration_says_nothing_wrong(live_view: DMImage, receiver: zmq.Socket[bytes]) -> None:
    live_view.unit = ""
    names = run("push_from_gms.py", endpoint_of(receiver))
    assert names["keys_of"](live_view) == {"voltage_kv": 80.0}
    names["listener"].sender.close()


def test_gms_never_lets_an_error_reach_the_live_view(
    live_view: DMImage, receiver: zmq.Socket[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    listener = run("push_from_gms.py", endpoint_of(receiver))["listener"]
    live_view.GetNumArray = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    listener.HandleDataChangedEvent(0, live_view)
    assert "ZeroDivisionError" in capsys.readouterr().out
    listener.sender.close()


def test_serialem_takes_images_and_sends_them(
    monkeypatch: pytest.MonkeyPatch, receiver: zmq.Socket[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    taken: list[np.ndarray] = []
    module = ModuleType("serialem")

    def record() -> None:
        # What SerialEM needs for an image is more than a connection does.
        receiver.poll(20)
        taken.append(image(len(taken), "int16"))

    module.Record = record  # type: ignore[attr-defined]
    module.bufferImage = lambda buffer: memoryview(taken[-1])  # type: ignore[attr-defined]
    module.ImageProperties = lambda buffer: (64.0, 48.0, 1.0, 0.5, 0.0125, 0.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "serialem", module)

    names = run("push_from_serialem.py", endpoint_of(receiver), IMAGES=6)

    sender = names["sender"]
    assert sender.sent + sender.dropped == len(taken) == 6
    assert f"{sender.sent} frames sent, {sender.dropped} dropped" in capsys.readouterr().out
    for _ in range(sender.sent):
        header, pixels = received(receiver)
        np.testing.assert_array_equal(pixels, taken[header["frame"]])
        assert header["hrtem"] == {"pixel_size_angstrom": pytest.approx(0.125)}
    assert sender.sent


def test_nion_swift_sends_while_the_camera_plays(receiver: zmq.Socket[bytes]) -> None:
    frames = [image(number, "float32") for number in range(5)]
    interactive = SimpleNamespace(cancelled=False)

    class Camera:
        asked = 0
        looked = 0

        @property
        def is_playing(self) -> bool:
            self.looked += 1
            return self.looked > 2  # somebody starts it after a while

        def grab_next_to_finish(self) -> list[Any]:
            assert self.looked > 2, "to ask for a frame starts the camera"
            receiver.poll(20)  # an exposure
            self.asked += 1
            interactive.cancelled = self.asked == len(frames)
            calibration = SimpleNamespace(units="nm", scale=0.02)
            return [
                SimpleNamespace(
                    data=frames[self.asked - 1],
                    dimensional_calibrations=[calibration, calibration],
                    metadata={"instrument": {"high_tension": 60_000, "defocus": -8e-9}},
                )
            ]

    camera = Camera()
    api = SimpleNamespace(get_hardware_source_by_id=lambda id_, version: {"my camera": camera}[id_])
    broker = SimpleNamespace(get_api=lambda version: api, get_interactive=lambda version: interactive)
    script_main = run("push_from_nionswift.py", endpoint_of(receiver), CAMERA="my camera")["script_main"]

    script_main(broker)

    messages = []
    while receiver.poll(200):
        messages.append(received(receiver))
    assert messages
    for header, pixels in messages:
        np.testing.assert_array_equal(pixels, frames[header["frame"]])
        assert header["hrtem"] == {
            "pixel_size_angstrom": pytest.approx(0.2),
            "voltage_kv": 60.0,
            "defocus_angstrom": pytest.approx(80.0),
        }


@pytest.fixture
def sender_class(live_view: DMImage, receiver: zmq.Socket[bytes]) -> Any:
    names = run("push_from_gms.py", endpoint_of(receiver))
    names["listener"].sender.close()
    return names["Sender"]


def test_without_a_daemon_every_frame_is_dropped_at_once(sender_class: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:  # who has a port and does not listen refuses everyone
        nobody.bind(("127.0.0.1", 0))
        sender = sender_class(f"tcp://127.0.0.1:{nobody.getsockname()[1]}")
        assert not any(sender.send(image(number)) for number in range(50))
        assert (sender.sent, sender.dropped) == (0, 50)
        sender.close()
    out = capsys.readouterr().out
    assert out.count("is not running, slower") == 1
    assert "0 frames sent, 50 dropped" in out


def test_a_daemon_that_hangs_takes_no_more_than_buffers_hold(sender_class: Any, receiver: zmq.Socket[bytes]) -> None:
    sender = sender_class(endpoint_of(receiver))
    large = np.zeros((2048, 2048), np.uint16)
    wait_for_connection(lambda: sender.send(large))
    # Nobody receives: the queues of both sides fill, and each further frame is dropped at once.
    while sender.dropped < 500:
        sender.send(large)
    assert sender.sent < 200
    sender.close()


@pytest.mark.parametrize("name", ["friend", "stranger"])
def test_with_keys_it_sends_to_who_knows_it(live_view: DMImage, tmp_path: Path, name: str) -> None:
    for owner in ("daemon", name):
        make_keys(tmp_path, owner)
    (tmp_path / "allowed").mkdir()
    if name == "friend":
        (tmp_path / "friend.key").rename(tmp_path / "allowed" / "friend.key")
    keys = ServerKeys(tmp_path / "daemon.key_secret", tmp_path / "allowed")
    with zmq.Context() as context, doorkeeper(context, keys), context.socket(zmq.PULL) as receiver:
        apply_keys(receiver, keys)
        receiver.bind("tcp://127.0.0.1:0")
        files = {"SECRET_KEY": str(tmp_path / f"{name}.key_secret"), "SERVER_KEY": str(tmp_path / "daemon.key")}
        sender = run("push_from_gms.py", endpoint_of(receiver), **files)["listener"].sender
        if name == "friend":
            wait_for_connection(lambda: sender.send(image(1)))
            np.testing.assert_array_equal(received(receiver)[1], image(1))
        else:
            assert not receiver.poll(500)
            assert not sender.send(image(1))
        sender.close()


def test_what_is_no_plain_image_is_not_sent(
    sender_class: Any, receiver: zmq.Socket[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    sender = sender_class(endpoint_of(receiver))
    for odd in (np.zeros(8), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), complex), np.zeros((4, 4), bool)):
        assert not sender.send(odd)
    assert capsys.readouterr().out.count("is not sent") == 4
    assert (sender.sent, sender.dropped) == (0, 0)
    sender.close()


@pytest.mark.parametrize("dtype", [">u2", "<u2", "u1", ">i4", "<f4", ">f8"])
def test_any_type_and_any_layout_arrives_as_it_is(sender_class: Any, receiver: zmq.Socket[bytes], dtype: str) -> None:
    sender = sender_class(endpoint_of(receiver))
    pixels = image(0).astype(dtype).T[::-1]
    wait_for_connection(lambda: sender.send(pixels))
    _, arrived = received(receiver)
    np.testing.assert_array_equal(arrived, pixels)
    sender.close()


def test_all_scripts_send_in_the_same_way() -> None:
    """Each is one file that can be pasted; what they have in common must stay the same."""
    texts = [(SENDERS / script).read_text(encoding="utf-8") for script in SCRIPTS]
    senders = {re.search(r"^class Sender:\n(?:(?:    .*)?\n)+", text, re.MULTILINE)[0] for text in texts}  # type: ignore[index]
    assert len(senders) == 1
    imports = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    modules = {name.name for node in imports for name in node.names}
    assert not any(isinstance(node, ast.ImportFrom) for text in texts for node in ast.walk(ast.parse(text)))
    assert modules == {"DigitalMicrograph", "serialem", "json", "numpy", "time", "zlib", "zmq", "zmq.auth"}
