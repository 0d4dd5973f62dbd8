"""Where results and events go: numbered into the ledger, from there to whoever listens, and then into files.

The order makes a crash harmless, and lets nobody who listens wait for a disk. A result counts as published once the
ledger has numbered it; whoever misses it when it is sent asks for its number. The ledger also knows of which results
the files are still to be written: the next start writes them. Files are written whole or not at all, and writing them
again changes nothing.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from daemon.atoms import from_stream, header_of, to_stream
from daemon.errors import FrameError
from daemon.ledger import Ledger, Message, storable
from daemon.protocol import ATOMS, EVENT, OVERLAY, topic_of
from daemon.publish.files import OVERLAY_SUFFIX, FilePublisher
from daemon.publish.header import event_header, result_table
from daemon.publish.overlay_replay import overlay_header
from daemon.publish.zeromq import ZeroMQPublisher
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival, Failure

MOST_ATTEMPTS = 2
"""A frame whose analysis never ended so often, because the process died each time, is set aside."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A result that is published, and is still to be filed.

    Attributes:
        table: With its header.
        topic: Under which it was sent.
        sequence: Its number there.
    """

    table: pa.Table
    topic: str
    sequence: int


class Outlet:
    """Publishes results and events.

    Args:
        files: Where they go as files.
        ledger: Numbers and keeps them.
        broadcast: Sends them to programs that listen; None where none may.
        finish: By source, what forgets a frame of which nothing is left to do; for sources that keep frames until then.
    """

    def __init__(
        self,
        files: FilePublisher,
        ledger: Ledger,
        broadcast: ZeroMQPublisher | None = None,
        finish: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        self.files = files
        self._ledger = ledger
        self._broadcast = broadcast
        self._finish = finish or {}
        self._begun: set[tuple[str, str]] = set()
        self._suspects = ledger.interrupted(MOST_ATTEMPTS)

    @property
    def begun(self) -> set[tuple[str, str]]:
        """Source and id of frames of which the analysis began and did not end."""
        return self._begun.copy()

    def is_suspect(self, arrival: Arrival) -> bool:
        """Whether an earlier process may have died of this frame, so that it should go its way alone."""
        return (arrival.source, storable(arrival.subject.frame_id)) in self._suspects

    def is_published(self, arrival: Arrival) -> bool:
        """Note a frame or series; return whether it was published in an earlier run, and was only sent once more."""
        subject = arrival.subject
        received_at = subject.reference.received_at
        state = self._ledger.receive(arrival.source, subject.frame_id, arrival.origin, received_at)
        return state == "published"

    def is_out(self, arrival: Arrival) -> bool:
        """Whether an earlier run published the tables of this very frame or series: only its overlay may be missing."""
        return (
            arrival.resumed
            and self._ledger.state(arrival.source, arrival.subject.frame_id) == "published"
            and self.files.has_tables(arrival)
        )

    def begin(self, arrival: Arrival) -> None:
        """Note that an analysis begins; one that is tried again in the same process began already.

        Raises:
            FrameError: It began in earlier processes and never ended, so this frame brings the daemon down.
        """
        frame = (arrival.source, arrival.subject.frame_id)
        if frame in self._begun:
            return
        if self.is_suspect(arrival) and (deaths := self._ledger.attempts(*frame)) >= MOST_ATTEMPTS:
            raise FrameError(
                f"{arrival.subject.name} is set aside: hrtemd ended {deaths} times while it worked on it. "
                "Please report it, with the file."
            )
        self._ledger.begin(*frame)
        self._begun.add(frame)

    def close(self) -> None:
        """Note that what was begun and not ended did not bring the daemon down."""
        for frame in self._begun:
            with suppress(OSError):  # at worst it counts as begun once more
                self._ledger.end(*frame)

    def has_results(self, arrival: Arrival) -> bool:
        """Whether the result files of this very frame or series are there.

        Those that the ledger has not numbered, because it is another one or power failed, are published now.
        """
        if not self.files.has_results(arrival):
            return False
        if self._ledger.state(arrival.source, arrival.subject.frame_id) == "received":
            self._number(arrival, self.files.read_table(arrival))
        return True

    def publish(self, arrival: Arrival, recognition: Recognition) -> Published:
        """Number an atom table, and send it where programs listen.

        Raises:
            OSError: The ledger cannot be written.
        """
        table = result_table(arrival, recognition)
        message = self._number(arrival, table, folder=self.files.folder_of(arrival))
        return Published(table, message.topic, message.sequence)

    def file(self, arrival: Arrival, published: Published) -> Path:
        """Write the files of a published result; return the stem that they share.

        Raises:
            OSError: They cannot be written.
        """
        stem = self.files.write_tables(arrival, published.table)
        self.end_filing(arrival, published)
        return stem

    def end_filing(self, arrival: Arrival, published: Published) -> None:
        """Note that the files of a published result are written, or never will be; its overlay is another matter."""
        self._ledger.filed(published.topic, published.sequence)
        if not self.files.overlays:
            self.finish(arrival)

    def file_what_was_left(self) -> int:
        """Write the files of results that an earlier process published before it ended; return how many.

        Raises:
            OSError: They cannot be written.
        """
        left = self._ledger.not_filed()
        for message, folder in left:
            self.files.restore_tables(from_stream(message.payload), folder)
            self._ledger.filed(message.topic, message.sequence)
        return len(left)

    def write_overlay(self, stem: Path, recognition: Recognition) -> None:
        """Draw an overlay, and send it where programs listen."""
        self.files.write_overlay(stem, recognition)
        if self._broadcast is None:
            return
        file = stem.with_name(stem.name + OVERLAY_SUFFIX)
        png = file.read_bytes()
        header = overlay_header(self.files.header_of(stem), file, png, self.files.directory)
        self._broadcast.send(self._ledger.post(topic_of(OVERLAY, header["source"]), header, b""), png)

    def write_failure(self, failure: Failure, sentence: str, arrival: Arrival | None = None) -> None:
        """Publish what went wrong as an event; of a frame that was taken up, it is the end.

        Raises:
            OSError: It cannot be written.
        """
        self.files.write_event(failure.source, failure.origin, sentence)
        header = event_header(failure.source, {"origin": failure.origin, "error": sentence})
        topic = topic_of(EVENT, failure.source)
        if arrival is None:
            noted = None if failure.frame_id is None else (failure.source, failure.frame_id)
            self._settle(self._ledger.post(topic, header, b"", frame=noted, state="failed"))
            return
        frame_id = arrival.subject.frame_id
        named = header | {"frame_id": frame_id}
        message = self._ledger.post(topic, named, b"", frame=(failure.source, frame_id), state="failed")
        self._settle(message, arrival)

    def write_alert(self, source: str, what: Mapping[str, Any]) -> None:
        """Publish an event that an acquisition script may act on."""
        self._settle(self._ledger.post(topic_of(EVENT, source), event_header(source, what), b""))

    def leave(self, arrival: Arrival) -> None:
        """Note that nothing more comes of a frame in this run, though nothing was published of it."""
        frame = (arrival.source, arrival.subject.frame_id)
        self._begun.discard(frame)
        with suppress(OSError):  # at worst it counts as begun once more
            self._ledger.end(*frame)

    def drop(self, arrival: Arrival) -> None:
        """Forget a frame that was begun, and given up for a newer one."""
        self._forget(arrival)
        self.finish(arrival)
        self._ledger.forget(arrival.source, arrival.subject.frame_id)

    def finish(self, arrival: Arrival) -> None:
        """Note that nothing is left to be done with a frame, and have a source that keeps its frames forget it."""
        if (arrival.source, arrival.subject.frame_id) in self._begun:
            self.leave(arrival)
        if finish := self._finish.get(arrival.source):
            for frame_id in arrival.frame_ids:
                finish(frame_id)

    def _number(self, arrival: Arrival, table: pa.Table, folder: str | None = None) -> Message:
        topic, frame = topic_of(ATOMS, arrival.source), (arrival.source, arrival.subject.frame_id)
        message = self._ledger.post(
            topic, header_of(table), to_stream(table), frame=frame, state="published", folder=folder
        )
        self._settle(message, arrival)
        return message

    def _settle(self, message: Message, arrival: Arrival | None = None) -> None:
        """Send what the ledger has numbered; whatever fails here, it stays published and is not published again."""
        try:
            if self._broadcast is not None:
                self._broadcast.send(message)
            if arrival is not None:
                self._forget(arrival)
                if message.header.get("error"):
                    self.finish(arrival)
        except Exception:
            log.exception("%s: result %d is published, and what follows failed", message.topic, message.sequence)

    def _forget(self, arrival: Arrival) -> None:
        self._begun.discard((arrival.source, arrival.subject.frame_id))
