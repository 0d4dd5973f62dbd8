"""Frames from a ZeroMQ socket, whatever their format."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Event
from time import monotonic, perf_counter
from typing import Any

from daemon.drops import Drops
from daemon.errors import FrameError
from daemon.inbox import NEWER, Policy
from daemon.readers import ReadLimits
from daemon.sources.connection import Connection, Message, Place, connected
from daemon.sources.numbering import MissingFramesError, SuperfluousFrameError
from daemon.sources.senders import Tally
from daemon.sources.source import Arrival, Failure
from daemon.sources.spool import Spool, Ticket
from daemon.sources.wire_image import Decoder, WireImage

_LONGEST_WAIT_SECONDS = 0.2  # a request to stop is seen after this time

# However fast frames come, the newest of those that came in this time is passed on.
_LONGEST_DRAIN_SECONDS = 0.05

_MESSAGES_AT_ONCE = 16
"""So many are written to the spool together, since a disk takes as long to make sure of one as of all."""

_SECONDS_BETWEEN_SPOOL_ATTEMPTS = 1.0

_STRANGER = (
    "a program connected that does not speak ZeroMQ, or does not agree with this source on keys, and was refused; "
    "`hrtemd tail` counts them, docs/keys.md tells of keys"
)

_NO_AGREEMENT = (
    "there is something, but no sender that agrees with this source on keys. Either both have keys and know each "
    "other's, or neither has any: see docs/keys.md. It is tried again."
)

log = logging.getLogger(__name__)


@dataclass
class _Noticed:
    """What has been told of a connection's senders."""

    tally: Tally = field(default_factory=Tally)
    is_refusal_told: bool = False


class ZeroMQSource:
    """Receives frames through ZeroMQ.

    Args:
        name: Name of the source.
        place: Where messages come from.
        decoder: Of their format, and of this source alone.
        policy: With `latest`, of the frames that wait only the newest is unpacked.
        pixel_size_angstrom: Å per pixel; beats what comes with frames.
        limits: Beyond them a frame is refused before it is unpacked.
        message_bytes: Beyond it a message is refused; a sender of one twice as large is cut off.
        drops: Counts the frames left out.
        spool: Keeps messages until they are analysed.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        decoder: Decoder,
        policy: Policy,
        pixel_size_angstrom: float | None,
        limits: ReadLimits,
        message_bytes: int,
        drops: Drops,
        spool: Spool | None = None,
    ) -> None:
        self.name = name
        self._place = place
        self._decoder = decoder
        self._policy = policy
        self._pixel_size_angstrom = pixel_size_angstrom
        self._limits = limits
        self._message_bytes = message_bytes
        self._drops = drops
        self._spool = spool
        self._is_resumed = False
        self._connection: Connection | None = None

    @property
    def senders(self) -> int:
        """How many senders are connected now."""
        return self._connection.tally.connected if self._connection else 0

    @property
    def endpoint(self) -> str:
        """Where the socket is, with the port that the system chose; as configured while it is not open."""
        return self._connection.endpoint if self._connection else self._place.endpoint

    def gauge(self) -> dict[str, Any]:
        """Return how it is.

        `connected`: whether a sender is; `senders`: how many are; `refused`: how often, since the socket was opened,
        somebody connected without the right keys, or spoke no ZeroMQ; `endpoint`; and `spool_bytes`, where it has one.
        """
        connection = self._connection
        gauge: dict[str, Any] = {
            "connected": self.senders > 0,
            "senders": self.senders,
            "refused": connection.tally.refused if connection else 0,
            "endpoint": self.endpoint,
        }
        return gauge | ({"spool_bytes": self._spool.bytes} if self._spool else {})

    def finished(self, frame_id: str) -> None:
        """Forget a frame that is published, or given up with an event; without a spool there is nothing to forget."""
        if self._spool:
            self._spool.finished(frame_id)

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """Yield frames, what is wrong with messages, and None when none came for a moment.

        Raises:
            HrtemdError: The endpoint cannot be used, or the spool not be read.
        """
        if self._spool and not self._is_resumed:
            yield from self._resume(self._spool, stop)
        with connected(self._place, 2 * self._message_bytes) as connection:
            self._connection = connection
            log.info("%s: %s %s", self.name, "bound to" if self._place.bind else "connects to", connection.endpoint)
            noticed = _Noticed()
            try:
                while not stop.is_set():
                    yield from self._receive(connection, stop)
                    yield from self._notice(noticed, connection)
            finally:
                self._connection = None

    def _receive(self, connection: Connection, stop: Event) -> Iterator[Arrival | Failure | None]:
        if self._spool:
            yield from self._receive_through_spool(connection, self._spool, stop)
        elif message := connection.receive(_LONGEST_WAIT_SECONDS):
            yield from self._newest(message, connection) if self._policy == "latest" else self._all(message)
        else:
            yield None

    def _notice(self, noticed: "_Noticed", connection: Connection) -> Iterator[Failure]:
        """Tell of senders that come and go. Programs that connect to us may; a camera that we connect to must not."""
        now = connection.tally
        # Not just how many are connected: one that is lost and back between two looks was lost.
        came, left, refusals = now.since(noticed.tally)
        noticed.tally = now
        if left and self._place.bind:
            log.info(
                "%s: a sender left, or was cut off for a message too large; %d are connected", self.name, now.connected
            )
        elif left:
            gone = FrameError(
                f"The sender at {self.endpoint} is gone; frames are taken again once it is back. If it is still "
                "running, it may have been cut off for a message too large: see `limits.message_bytes` in config.toml."
            )
            yield self._failure(gone)
        if came:
            noticed.is_refusal_told = False
            log.info("%s: %d senders are connected to %s", self.name, now.connected, self.endpoint)
        if refusals and not noticed.is_refusal_told:
            noticed.is_refusal_told = True
            if self._place.bind:
                log.warning("%s: %s", self.name, _STRANGER)
            else:
                yield self._failure(FrameError(f"{self.endpoint}: {_NO_AGREEMENT}"))

    def _all(self, message: Message) -> Iterator[Arrival | Failure]:
        """Yield everything that a message holds."""
        for item in self._accept(message):
            yield self._unpack(item, message) if isinstance(item, WireImage) else item

    def _newest(self, message: Message, connection: Connection) -> Iterator[Arrival | Failure]:
        """Yield the images of the newest of the messages that wait; the others are not even unpacked."""
        newest: tuple[list[WireImage], Message] = [], message
        until = monotonic() + _LONGEST_DRAIN_SECONDS
        waiting: Message | None = message
        while waiting:
            images = []
            for item in self._accept(waiting):
                if isinstance(item, WireImage):
                    images.append(item)
                else:
                    yield item
            if images:
                if newest[0]:
                    self._drops.add(self.name, NEWER, len(newest[0]))
                newest = images, waiting
            waiting = connection.receive(0.0) if monotonic() < until else None
        for image in newest[0]:
            yield self._unpack(image, newest[1])

    def _accept(self, message: Message) -> Iterator[WireImage | Failure]:
        """Yield the images of a message and what is wrong with it, though not what only needs counting."""
        try:
            size = sum(len(part) for part in message.parts)
            if size > self._message_bytes:
                raise FrameError(
                    f"A message of {size:,} bytes is larger than the {self._message_bytes:,} that one may have; "
                    "if it holds a frame all the same, raise `limits.message_bytes` in config.toml."
                )
            items = self._decoder.accept(message.parts)
        except SuperfluousFrameError as error:
            self._drops.add(self.name, str(error))
            return
        except Exception as error:  # whatever anybody sends, the source goes on
            yield self._failure(error)
            return
        for item in items:
            if isinstance(item, WireImage):
                yield item
            elif isinstance(item, MissingFramesError) and self._policy == "latest":
                self._drops.add(self.name, "lost before they came", item.number)
            else:
                yield self._failure(item)

    def _unpack(self, image: WireImage, message: Message, *, resumed: bool = False) -> Arrival | Failure:
        started = perf_counter()
        try:
            frame = image.frame(self.name, message.received_at, self._limits, self._pixel_size_angstrom)
        except Exception as error:
            return self._failure(error)
        return Arrival(
            source=self.name,
            origin=f"{self._place.endpoint}/{frame.name}",
            subject=frame,
            read_ms=1e3 * (perf_counter() - started),
            folder=PurePosixPath(self.name, f"{message.received_at:%Y-%m-%d}"),
            resumed=resumed,
        )

    def _failure(self, error: Exception) -> Failure:
        return Failure(self.name, self.endpoint, error)

    def _receive_through_spool(
        self, connection: Connection, spool: Spool, stop: Event
    ) -> Iterator[Arrival | Failure | None]:
        """Yield what came only once it is safe on disk."""
        if spool.is_full:
            stop.wait(_LONGEST_WAIT_SECONDS)
            yield None
            return
        messages: list[Message] = []
        wait_seconds = _LONGEST_WAIT_SECONDS
        while len(messages) < _MESSAGES_AT_ONCE and (message := connection.receive(wait_seconds)):
            messages.append(message)
            wait_seconds = 0.0
        if not messages:
            yield None
            return
        at_once, warned = len(messages), False
        while messages:
            opening = self._decoder.opening
            try:
                tickets = spool.append(messages[:at_once], opening.message if opening else None)
            except OSError as error:
                if not warned:
                    yield self._failure(error)
                at_once, warned = 1, True  # a disk that is nearly full may have room for one
                if stop.wait(_SECONDS_BETWEEN_SPOOL_ATTEMPTS):
                    return
                continue
            for ticket, message in zip(tickets, messages, strict=False):
                yield from self._spooled(spool, ticket, message)
            del messages[: len(tickets)]

    def _resume(self, spool: Spool, stop: Event) -> Iterator[Arrival | Failure]:
        """Yield what the last run received and did not finish; what it finished only tells which numbers came."""
        is_first = True
        for stored in spool.stored():
            if stop.is_set():
                return
            parts = stored.message.parts
            if not stored.is_opening and not stored.is_finished:
                yield from self._spooled(spool, stored.ticket, stored.message, resumed=True)
            elif is_first or not stored.is_opening:
                with suppress(FrameError):  # it was said in the last run
                    self._decoder.reopen(parts) if stored.is_opening else self._decoder.accept(parts)
            is_first = False
        self._is_resumed = True

    def _spooled(
        self, spool: Spool, ticket: Ticket, message: Message, *, resumed: bool = False
    ) -> Iterator[Arrival | Failure]:
        """Yield everything that a message holds, which is kept until its frames are finished."""
        found = [
            self._unpack(item, message, resumed=resumed) if isinstance(item, WireImage) else item
            for item in self._accept(message)
        ]
        spool.expect(ticket, (item.subject.frame_id for item in found if isinstance(item, Arrival)))
        yield from found
