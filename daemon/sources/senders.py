"""Who is connected to a socket: what ZeroMQ's monitor tells, followed in a thread of its own.

So it is known also while its source waits for room and receives nothing. And somebody must always listen: ZeroMQ's own
thread stands still, and with it all connections, once a thousand of its announcements wait.
"""

from threading import Thread
from time import monotonic
from typing import NamedTuple

import zmq
from zmq.utils.monitor import recv_monitor_message

_RECONNECT_SECONDS = 1.0
"""After a loss, ZeroMQ announces within less that it tries again, or it never does."""

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_HAPPENINGS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | _FAILED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_MONITOR_STOPPED
)


class Tally(NamedTuple):
    """What happened since a socket was opened; a sender that is lost and back at once counts in `came` and in `left`.

    Attributes:
        came: How many connected.
        left: How many of them are no longer connected.
        refused: How often somebody connected and did not agree with us on keys, or does not speak ZeroMQ.
    """

    came: int = 0
    left: int = 0
    refused: int = 0

    @property
    def connected(self) -> int:
        """How many are connected now."""
        return self.came - self.left

    def since(self, before: "Tally") -> "Tally":
        """Return what happened since another."""
        return Tally(*(now - then for now, then in zip(self, before, strict=True)))


class Senders:
    """Counts those that are connected to a socket, from before it binds or connects until `close`.

    Attributes:
        tally: What happened so far.
    """

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.tally = Tally()
        self._failing = 0  # connections that failed and are about to be closed
        self._lost_at: float | None = None
        self._socket = socket
        self._monitor = socket.get_monitor_socket(_HAPPENINGS)
        self._thread = Thread(target=self._follow, name="senders", daemon=True)
        self._thread.start()

    @property
    def is_given_up(self) -> bool:
        """Whether a connection was lost and ZeroMQ does not make it anew; only a socket that connects can tell."""
        lost_at = self._lost_at
        return lost_at is not None and monotonic() > lost_at + _RECONNECT_SECONDS

    def expect(self) -> None:
        """Note that a connection is being made."""
        self._lost_at = None

    def close(self) -> None:
        """Follow no longer."""
        self._socket.disable_monitor()
        self._thread.join()

    def _follow(self) -> None:
        with self._monitor as monitor:
            while (event := recv_monitor_message(monitor)["event"]) != zmq.EVENT_MONITOR_STOPPED:
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self.tally = self.tally._replace(came=self.tally.came + 1)
                    self._lost_at = None
                elif event == zmq.EVENT_CONNECT_RETRIED:
                    self._lost_at = None
                elif event & _FAILED:
                    self.tally = self.tally._replace(refused=self.tally.refused + 1)
                    self._failing += 1
                else:  # disconnected, which each that failed is too
                    if self._failing:
                        self._failing -= 1
                    else:
                        self.tally = self.tally._replace(left=self.tally.left + 1)
                    self._lost_at = monotonic()
