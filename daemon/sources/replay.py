"""Plays recorded frames through a ZeroMQ socket as a camera would."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Literal

import zmq

from daemon.errors import FrameError, HrtemdError
from daemon.keys import Keys, apply_keys, doorkeeper
from daemon.readers import read_frames
from daemon.sources.simulator import Faults, Shot, Simulator, shot_of, with_faults

_POLL_MS = 200
_SILENCE_SECONDS = 3.0
"""After so long without a receiver it is said that there is none."""

_WAITING_MESSAGES = 16
_LINGER_MS = 5000
_LINGER_WHEN_STOPPED_MS = 1000


@dataclass(frozen=True)
class Pace:
    """When images are sent.

    Attributes:
        rate_hz: Images in a second.
        jitter: Share of the pause between two images by which it is longer or shorter, at random.
    """

    rate_hz: float
    jitter: float = 0.0


class Camera:
    """An open socket that images are sent through.

    Args:
        socket: PUSH waits for a receiver; XPUB, once there was one, does not.
        say: Called with what whoever waits should know.
    """

    def __init__(self, socket: zmq.Socket[bytes], say: Callable[[str], None]) -> None:
        self._socket = socket
        self._say = say

    def send(self, parts: list[bytes]) -> None:
        """Send a message as soon as somebody takes it."""
        self._wait_for(
            zmq.POLLOUT, "nobody takes frames; where the daemon connects, this side must --bind, and keys must fit"
        )
        self._socket.send_multipart(parts)

    def wait_for_subscriber(self) -> None:
        """Return once somebody listens, since what is published before is lost."""
        self._wait_for(
            zmq.POLLIN, 'nobody listens; the source needs socket = "sub", one side must bind, and keys must fit'
        )

    def _wait_for(self, event: int, complaint: str) -> None:
        complain_at = monotonic() + _SILENCE_SECONDS
        while not self._socket.poll(_POLL_MS, event):
            if monotonic() > complain_at:
                self._say(complaint)
                complain_at = float("inf")


@contextmanager
def camera(
    endpoint: str, socket: Literal["push", "pub"], *, bind: bool, keys: Keys | None = None, say: Callable[[str], None]
) -> Iterator[Camera]:
    """Open a socket to send through; at the end, what was sent has some seconds to be fetched.

    Raises:
        HrtemdError: The endpoint or a key cannot be used.
    """
    with zmq.Context() as context, doorkeeper(context, keys):
        sender = context.socket(zmq.PUSH if socket == "push" else zmq.XPUB)
        sender.sndhwm = _WAITING_MESSAGES  # before a connection is made: later it would not count
        sender.immediate = True  # what is sent to nobody would count as sent
        linger_ms = _LINGER_WHEN_STOPPED_MS
        try:
            apply_keys(sender, keys)
            try:
                (sender.bind if bind else sender.connect)(endpoint)
            except zmq.ZMQError as error:
                raise HrtemdError(f"{endpoint}: {zmq.strerror(error.errno or 0)}; name another endpoint.") from error
            opened = Camera(sender, say)
            if socket == "pub":
                opened.wait_for_subscriber()
            yield opened
            linger_ms = _LINGER_MS
        finally:
            sender.close(linger_ms)


def shots_from(files: Iterable[Path], say: Callable[[str], None]) -> Iterator[Shot]:
    """Read recorded frames one after the other; what cannot be read is said and left out."""
    for file in files:
        try:
            for frame in read_frames(file):
                if isinstance(frame, FrameError):
                    say(str(frame))
                else:
                    yield shot_of(frame)
        except FrameError as error:
            say(str(error))


def taken_again(shots: Iterable[Shot], times: int) -> Iterator[Shot]:
    """Give each series that the frames name a name of its own: a camera that takes it again takes another one."""
    for pixels, keys in shots:
        named = {"series_id": f"{keys['series_id']} ({times + 1})"} if "series_id" in keys else {}
        yield Shot(pixels, keys | named)


def play(
    camera: Camera,
    simulator: Simulator,
    passes: Iterable[Iterable[Shot]],
    pace: Pace,
    faults: Faults,
    chance: Random,
) -> Iterator[None]:
    """Send one series after the other at one pace, yielding after each image."""
    due = monotonic()
    for shots in passes:
        for message in with_faults(simulator.series(shots), faults, chance):
            if message.kind == "image":
                sleep(max(0.0, due - monotonic()))
                due = max(due, monotonic() - 1.0 / pace.rate_hz)  # what a slow receiver held up is not caught up with
                due += (1.0 + pace.jitter * chance.uniform(-1.0, 1.0)) / pace.rate_hz
            if message.parts:
                camera.send(message.parts)
                if message.kind == "image":
                    yield
