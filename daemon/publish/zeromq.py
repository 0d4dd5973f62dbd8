"""Results over ZeroMQ: broadcast to whoever listens, and replayed for who missed some.

Two threads, each with sockets of its own, since a socket belongs to one thread: one broadcasts results and heartbeats,
one answers requests (see `daemon.publish.replay`). No client can slow recognition: whoever reads too slowly loses
results, which the broadcasting socket drops beyond its high-water mark, and asks for them when it has time.
"""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from typing import Any

import zmq

from daemon.errors import ConfigurationError
from daemon.keys import Keys, apply_keys, doorkeeper
from daemon.ledger import Ledger, Message
from daemon.protocol import STATUS, STATUS_SECONDS, encode_header, schema_of
from daemon.publish.replay import Replay

RESULTS_WAITING = 32
"""Results that wait for one subscriber that does not read; with large overlays among them, some hundred MiB."""

ANSWERS_WAITING = 4
"""Answers that wait for one client that asks and does not read, of `ANSWER_BYTES` each."""

# Clients send subscriptions and requests; whoever sends more is disconnected.
_LARGEST_INCOMING_BYTES = 64 * 2**10

# After closing, the last results may still be on their way for so long.
_LINGER_MS = 1000

# Results handed over and not yet taken by the broadcasting thread, which waits for nothing but `status`.
_HANDED_OVER = 64

log = logging.getLogger(__name__)


class ZeroMQPublisher:
    """Sends results to clients. Endpoints are bound at once, what comes is served from `start` to `close`.

    Heartbeats go out every second, and at once to who subscribes to them. They carry what `status` returns, and
    `newest`, the number of the newest result of each topic, so that a client knows of a loss though nothing follows.

    Args:
        endpoint: Where results are broadcast, such as tcp://127.0.0.1:5600; with port 0, at any free one.
        replay_endpoint: Where clients ask for what they missed.
        ledger: Numbers and keeps the results.
        results: The results folder, where overlays are.
        status: Says how the daemon is, in JSON types; called about every second, from a thread of the publisher's.
        keys: Without them anybody may listen and ask.

    Raises:
        ConfigurationError: An endpoint or a key cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        replay_endpoint: str,
        ledger: Ledger,
        results: Path,
        status: Callable[[], Mapping[str, Any]],
        keys: Keys | None = None,
    ) -> None:
        self._status = status
        self._replay = Replay(ledger, results)
        self._newest = {topic: ledger.newest(topic) for topic in ledger.topics()}
        self._counted_by = ledger.identity
        self._heartbeats = 0
        self._context = zmq.Context()
        # XPUB is a PUB that tells of its subscribers, so that they can be greeted with a heartbeat.
        self._broadcast = self._context.socket(zmq.XPUB)
        self._requests = self._context.socket(zmq.ROUTER)
        self._hand_over, self._handed_over = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._handing_over = Lock()
        self._broadcasting = Thread(target=self._run_broadcast, name="broadcast", daemon=True)
        self._answering = Thread(target=self._run_replay, name="replay", daemon=True)
        # All of it before binding: what connects later has the settings of that moment.
        self._broadcast.setsockopt(zmq.XPUB_VERBOSE, 1)
        for socket, waiting in ((self._broadcast, RESULTS_WAITING), (self._requests, ANSWERS_WAITING)):
            socket.setsockopt(zmq.SNDHWM, waiting)
            socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_INCOMING_BYTES)
            socket.setsockopt(zmq.LINGER, _LINGER_MS)
        for socket in (self._hand_over, self._handed_over):
            socket.set_hwm(_HANDED_OVER)
        self._handed_over.bind("inproc://handed-over")
        self._hand_over.connect("inproc://handed-over")
        self._door = ExitStack()
        try:
            self._door.enter_context(doorkeeper(self._context, keys))
            for socket in (self._broadcast, self._requests):
                apply_keys(socket, keys)
            self.endpoint = _bind(self._broadcast, endpoint)
            """Where results are broadcast, with the port that was found."""
            self.replay_endpoint = _bind(self._requests, replay_endpoint)
            """Where clients ask, with the port that was found."""
        except ConfigurationError:
            self._end()
            raise

    def start(self) -> None:
        """Begin to broadcast and to answer."""
        self._broadcasting.start()
        self._answering.start()

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Send a result that the ledger has; never waits. Any thread may call it.

        Args:
            message: As the ledger returned it.
            payload: What the ledger does not keep, of an overlay.
        """
        content = message.payload if payload is None else payload
        parts = [message.topic.encode(), encode_header(message.header), content]
        with self._handing_over:
            if self._hand_over.closed:  # from a thread that did not stop in time; the ledger has it
                return
            if message.header["ledger"] != self._counted_by:  # the file was lost, and all numbers began again
                self._counted_by = message.header["ledger"]
                self._newest = {}
            # Two threads may hand over two results of one topic in the wrong order.
            self._newest[message.topic] = max(message.sequence, self._newest.get(message.topic, 0))
            try:
                self._hand_over.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:
                log.warning("%s: result %d was not broadcast; clients will ask for it", message.topic, message.sequence)

    def close(self) -> None:
        """Send what was handed over, and end."""
        if self._broadcasting.ident is None:  # never started
            self._end()
            return
        with self._handing_over:
            self._hand_over.send(b"")
            self._hand_over.close()
        self._broadcasting.join()
        self._door.close()
        self._context.term()  # which ends the wait for requests
        self._answering.join()

    def _end(self) -> None:
        """Give up what was opened and never served."""
        self._door.close()
        self._context.destroy(linger=0)

    def _run_broadcast(self) -> None:
        poller = zmq.Poller()
        for socket in (self._broadcast, self._handed_over):
            poller.register(socket, zmq.POLLIN)
        heartbeat_at = monotonic()
        with self._broadcast, self._handed_over:
            while True:
                if monotonic() >= heartbeat_at:
                    self._broadcast.send_multipart([STATUS.encode(), encode_header(self._heartbeat()), b""])
                    heartbeat_at = monotonic() + STATUS_SECONDS
                ready = dict(poller.poll(max(0, math.ceil(1e3 * (heartbeat_at - monotonic())))))
                if self._broadcast in ready and _subscribes_to_status(self._broadcast.recv()):
                    heartbeat_at = monotonic()
                if self._handed_over in ready:
                    parts = self._handed_over.recv_multipart(copy=False)
                    if len(parts) == 1:
                        return
                    self._broadcast.send_multipart(parts, copy=False)

    def _heartbeat(self) -> dict[str, Any]:
        self._heartbeats += 1
        try:
            status = dict(self._status())
            encode_header(status)
        except Exception as error:  # a heartbeat must go out whatever happens: without it, the daemon looks dead
            log.exception("status: unexpected error")
            status = {"warnings": [f"The status could not be told: unexpected {type(error).__name__}: {error}."]}
        with self._handing_over:
            newest, ledger = dict(self._newest), self._counted_by
        return {
            **status,
            "schema": schema_of(STATUS),
            "sequence": self._heartbeats,
            "published_at": datetime.now(UTC).isoformat(),
            "newest": newest,
            "ledger": ledger,
        }

    def _run_replay(self) -> None:
        with self._requests:
            try:
                while True:
                    peer, *request = self._requests.recv_multipart()
                    # A REQ socket puts an empty part before its request and expects it back; a DEALER does not.
                    delimiter = request[:1] if len(request) > 1 and not request[0] else []
                    answer = self._replay.answer(request[len(delimiter) :])
                    self._requests.send_multipart([peer, *delimiter, *answer])
            except zmq.ContextTerminated:
                return


def _bind(socket: "zmq.Socket[bytes]", endpoint: str) -> str:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise ConfigurationError(
            f"Results cannot be published at {endpoint}: {error.strerror}; is another hrtemd running, and is this an "
            "address of this computer? Choose others in [publish.zeromq]."
        ) from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _subscribes_to_status(notice: bytes) -> bool:
    """Whether what a subscriber sent is a subscription, rather than the end of one, to a prefix of `status`."""
    return notice[:1] == b"\x01" and STATUS.encode().startswith(notice[1:])
