"""A ZeroMQ socket on which messages arrive, and who is connected to it.

ZeroMQ itself reconnects, with a pause that grows; here is seen that it does.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import zmq

from daemon.errors import HrtemdError
from daemon.keys import Keys, apply_keys, doorkeeper
from daemon.sources.fields import Buffer
from daemon.sources.senders import Senders, Tally

WAITING_MESSAGES = 16
"""As many may wait in the socket; then a PUSH sender waits too, and a PUB sender drops."""

_SHORTEST_PAUSE_MS = 100
_LONGEST_PAUSE_MS = 5000

# A camera that lost its power says no goodbye: after some 25 s without an answer its connection counts as gone.
_KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 10, zmq.TCP_KEEPALIVE_INTVL: 5, zmq.TCP_KEEPALIVE_CNT: 3}


class Message(NamedTuple):
    """A message as it came, and when all of it was there."""

    parts: list[Buffer]
    received_at: datetime


@dataclass(frozen=True)
class Place:
    """Where messages come from.

    Attributes:
        endpoint: Such as tcp://127.0.0.1:9999.
        socket: `pull` shares messages out among receivers; `sub` gives all of them to each.
        bind: Senders connect here, instead of the other way round.
        keys: Without them anybody may send, and listen on the way.
    """

    endpoint: str
    socket: Literal["pull", "sub"] = "pull"
    bind: bool = False
    keys: Keys | None = None


class Connection:
    """An open socket.

    Attributes:
        endpoint: Where it is bound, with the port that the system chose, or what it connects to.
    """

    def __init__(self, socket: zmq.Socket[bytes], senders: Senders, place: Place) -> None:
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT) if place.bind else place.endpoint
        self._socket = socket
        self._senders = senders
        self._connects = not place.bind
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)

    @property
    def tally(self) -> Tally:
        """Who came, left and was refused so far."""
        return self._senders.tally

    def receive(self, wait_seconds: float) -> Message | None:
        """Return the next message; None where none came in time."""
        if self._connects and self._senders.is_given_up:
            self._reconnect()
        if not self._poller.poll(max(0, round(1e3 * wait_seconds))):
            return None
        # Without copying: the pixels of an unpacked frame stay where ZeroMQ put them.
        parts: list[Buffer] = [part.buffer for part in self._socket.recv_multipart(copy=False)]
        return Message(parts, datetime.now(UTC))

    def _reconnect(self) -> None:
        """Connect anew where ZeroMQ does not: it gives up who broke its rules, or did not agree with it on keys."""
        self._senders.expect()
        with suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
            self._socket.disconnect(self.endpoint)
        self._socket.connect(self.endpoint)


@contextmanager
def connected(place: Place, largest_part_bytes: int) -> Iterator[Connection]:
    """Open a socket and close it in the end.

    Args:
        place: Where messages come from.
        largest_part_bytes: A sender of a larger one is cut off before any of it is kept.

    Raises:
        HrtemdError: The endpoint or a key cannot be used.
    """
    with (
        zmq.Context() as context,
        doorkeeper(context, place.keys),
        context.socket(zmq.PULL if place.socket == "pull" else zmq.SUB) as socket,
    ):
        # Options count for connections made after them.
        socket.linger = 0
        socket.rcvhwm = WAITING_MESSAGES
        socket.maxmsgsize = largest_part_bytes
        socket.reconnect_ivl = _SHORTEST_PAUSE_MS
        socket.reconnect_ivl_max = _LONGEST_PAUSE_MS
        socket.ipv6 = "[" in place.endpoint
        for option, value in _KEEPALIVE.items():
            socket.setsockopt(option, value)
        if place.socket == "sub":
            socket.subscribe(b"")
        apply_keys(socket, place.keys)
        senders = Senders(socket)
        try:
            _open(socket, place)
            yield Connection(socket, senders, place)
        finally:
            senders.close()


def _open(socket: "zmq.Socket[bytes]", place: Place) -> None:
    try:
        (socket.bind if place.bind else socket.connect)(place.endpoint)
    except zmq.ZMQError as error:
        reason = zmq.strerror(error.errno or 0)
        raise HrtemdError(
            f"{place.endpoint}: {reason}; stop the program that uses this endpoint, or name another."
        ) from error
