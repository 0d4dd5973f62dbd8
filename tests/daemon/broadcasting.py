"""A daemon's ledger and publisher without the rest of it, and a network that loses messages; for tests."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from daemon.atoms import atom_table, counts_by_species, found_in_words, to_stream
from daemon.keys import Keys
from daemon.ledger import Ledger, LedgerLimits, Message
from daemon.publish.header import event_header
from daemon.publish.overlay_replay import overlay_header
from daemon.publish.zeromq import ZeroMQPublisher

PATIENCE_MS = 60_000  # the machine may be busy
ANY_PORT = "tcp://127.0.0.1:0"


def some_atoms(count: int) -> Any:
    """A table with so many atoms of carbon, and a vacancy."""
    positions = np.arange(2.0 * count + 2).reshape(-1, 2)
    ones = np.ones(count + 1)
    kinds = ["atom"] * count + ["vacancy"]
    return atom_table(positions, 0.1, kinds, ones, ones, species=["C"] * count + [None])


class Station:
    """A ledger and a publisher that can be stopped and started again."""

    def __init__(self, folder: Path, keys: Keys | None = None) -> None:
        self.folder = folder
        self.keys = keys
        self.path = folder / "ledger.sqlite"
        self.status: Callable[[], Mapping[str, Any]] = lambda: {"version": "0.1"}
        self.endpoint = self.replay_endpoint = ANY_PORT
        self.ledger = Ledger(self.path, LedgerLimits(2**30, 30))
        self.publisher: ZeroMQPublisher | None = None
        self.start()

    def start(self) -> None:
        self.publisher = ZeroMQPublisher(
            self.endpoint, self.replay_endpoint, self.ledger, self.folder, self._tell_status, self.keys
        )
        self.endpoint, self.replay_endpoint = self.publisher.endpoint, self.publisher.replay_endpoint
        self.publisher.start()

    def _tell_status(self) -> Mapping[str, Any]:
        return self.status()

    def stop(self) -> None:
        if self.publisher:
            self.publisher.close()
        self.publisher = None

    def close(self) -> None:
        self.stop()
        self.ledger.close()

    def post_atoms(self, source: str = "camera", name: str = "frame", count: int = 2, **header: Any) -> Message:
        table = some_atoms(count)
        now = datetime.now(UTC).isoformat()
        described = {
            "schema": "hrtemd.atoms.v1",
            "frame_id": f"{source}/-/0/abc",
            "name": name,
            "acquired_at": None,
            "received_at": now,
            "published_at": now,
            "latency_ms": {"read": 1.0, "infer": 40.0},
            "counts": counts_by_species(table),
            "found": found_in_words(table),
            "warnings": [],
        }
        return self.post(f"atoms/{source}", {**described, **header}, to_stream(table))

    def post_overlay(self, png: bytes, source: str = "camera", name: str = "frame.overlay.png") -> Message:
        (self.folder / name).write_bytes(png)
        header = overlay_header({"name": name}, self.folder / name, png, self.folder)
        return self.post(f"overlay/{source}", header, b"", sent=png)

    def post_event(self, sentence: str, source: str = "camera") -> Message:
        return self.post(f"event/{source}", event_header(source, {"error": sentence}), b"")

    def post(self, topic: str, header: dict[str, Any], payload: bytes, sent: bytes | None = None) -> Message:
        """Store a result, and send it where the publisher runs."""
        message = self.ledger.post(topic, header, payload)
        if self.publisher:
            self.publisher.send(message, sent)
        return message

    def forget_all(self) -> None:
        """Prune everything that is in the ledger."""
        with_other_limits = Ledger(self.path, LedgerLimits(2**30, age_days=0))
        with_other_limits.prune()
        with_other_limits.close()

    def lose_ledger(self) -> None:
        """As when an operator deletes the file while the daemon does not run."""
        self.close()
        for file in self.folder.glob("ledger.sqlite*"):
            file.unlink()
        self.ledger = Ledger(self.path, LedgerLimits(2**30, 30))

    def subscribe(self, topic: str = "") -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        socket.connect(self.endpoint)
        return socket

    def ask(self, kind: int = zmq.DEALER) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        socket.connect(self.replay_endpoint)
        return socket


@contextmanager
def lossy_network(endpoint: str, is_lost: Callable[[str, int], bool]) -> Iterator[str]:
    """Yield an endpoint behind which the broadcast is, without what is lost of it.

    Args:
        endpoint: Of the broadcast.
        is_lost: Says so of a result, by its topic and the count of results so far, heartbeats left out.
    """
    context = zmq.Context()
    outer, inner = context.socket(zmq.XPUB), context.socket(zmq.XSUB)
    for socket in (outer, inner):
        socket.setsockopt(zmq.LINGER, 0)
    port = outer.bind_to_random_port("tcp://127.0.0.1")
    inner.connect(endpoint)

    def forward() -> None:
        count = 0
        poller = zmq.Poller()
        poller.register(outer, zmq.POLLIN)
        poller.register(inner, zmq.POLLIN)
        with outer, inner:
            try:
                while True:
                    ready = dict(poller.poll())
                    if outer in ready:
                        inner.send(outer.recv())
                    if inner in ready:
                        parts = inner.recv_multipart()
                        topic = parts[0].decode()
                        count += topic != "status"
                        if topic == "status" or not is_lost(topic, count):
                            outer.send_multipart(parts)
            except zmq.ContextTerminated:
                return

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        context.term()
        thread.join()
