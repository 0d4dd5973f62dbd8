"""The daemon's own side of the ledger.

A result gets its number and is stored in one transaction, and only then sent: a client that missed it can ask for it,
and a restart gives no number twice. A frame that is done stays done, so that none is published twice.
"""

import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from time import time
from typing import Any, Literal

from daemon.ledger.file import LedgerFile
from daemon.ledger.pruning import LedgerLimits, prune_step, shrink_step

State = Literal["received", "published", "failed"]

REPLAY_BYTES = 32 * 2**20
"""`Ledger.after` returns no more at once, unless a single message is larger."""

_SECONDS_BETWEEN_TIDYINGS = 1.0

# Where tidying does not keep up, posting waits for it: the limit is passed by this share at most.
_LARGEST_EXCESS = 1 / 8
_BYTES_OF_A_HEADER = 2**10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """A result as it is sent.

    Attributes:
        topic: Such as `atoms/camera`.
        sequence: From 1, without gaps in a topic.
        header: What was posted, with `sequence` and with `ledger`, the identity of the file that counts: where it
            changes, the old file was lost and numbers begin at 1 again.
        payload: The rest of it.
    """

    topic: str
    sequence: int
    header: dict[str, Any]
    payload: bytes


class Ledger:
    """What became of every frame, and every result as it was sent.

    Any thread may call anything, and none waits for the disk: a thread of the ledger's own brings what was noted to it
    each second. So far back may a power failure reach; the death of the process takes nothing. A damaged file is set
    aside under another name, whenever the damage shows, and a new one is begun.

    Args:
        path: Of the SQLite file; made where it does not exist, with its folder.
        limits: How much is kept.

    Raises:
        ConfigurationError: The file is another program's, or of a newer hrtemd.
        OSError: It cannot be read or written; all methods raise it too. What raised it has changed nothing and may be
            tried again.
    """

    def __init__(self, path: Path, limits: LedgerLimits) -> None:
        self._file = LedgerFile(path)
        self._limits = limits
        self._bytes_since_pruned = 0
        self._closing = Event()
        self._tidying = Thread(target=self._tidy_each_second, name="ledger", daemon=True)
        self._tidying.start()

    @property
    def identity(self) -> str:
        """The file's own; another where it was lost and begun anew."""
        return self._file.read(_identity)

    def receive(self, source: str, frame_id: str, origin: str, received_at: datetime) -> State:
        """Note a frame; return `received` where it is new or unfinished, else what it is: it needs no more work."""

        def work(connection: sqlite3.Connection) -> State:
            new = connection.execute(
                "INSERT INTO frames (source, frame_id, origin, state, received_at) VALUES (?, ?, ?, 'received', ?) "
                "ON CONFLICT (source, frame_id) DO NOTHING",
                (source, storable(frame_id), storable(origin), received_at.timestamp()),
            )
            return "received" if new.rowcount else _frame(connection, "state", source, frame_id)

        return self._file.write(work)

    def state(self, source: str, frame_id: str) -> State | None:
        """Return what a frame is; None where it was never received, or is forgotten."""
        return self._file.read(lambda connection: _frame(connection, "state", source, frame_id))

    def begin(self, source: str, frame_id: str) -> int:
        """Note that the analysis of a received frame begins; return how often it began and never ended, 1 at first.

        A larger number means that the process died of this frame, or with it.
        """

        def work(connection: sqlite3.Connection) -> int:
            _set_attempts(connection, "attempts + 1", source, frame_id)
            return _frame(connection, "attempts", source, frame_id) or 0

        return self._file.write(work)

    def end(self, source: str, frame_id: str) -> None:
        """Note that an analysis ended without a result, to be tried again; `post` with a state notes an end itself."""
        self._file.write(lambda connection: _set_attempts(connection, "0", source, frame_id))

    def interrupted(self, most_attempts: int) -> set[tuple[str, str]]:
        """Return source and id, as `storable` writes it, of frames whose analysis began and never ended.

        To be asked once a run, before anything is begun. Where they are several it is not known which of them the
        process died of, so that this death counts against none; frames with `most_attempts` are known already.
        """

        def work(connection: sqlite3.Connection) -> set[tuple[str, str]]:
            rows = connection.execute("SELECT source, frame_id, attempts FROM frames WHERE attempts > 0").fetchall()
            if sum(attempts < most_attempts for _, _, attempts in rows) > 1:
                connection.execute(
                    "UPDATE frames SET attempts = attempts - 1 WHERE attempts > 0 AND attempts < ?", (most_attempts,)
                )
            return {(source, frame_id) for source, frame_id, _ in rows}

        return self._file.write(work)

    def forget(self, source: str, frame_id: str) -> None:
        """Note that a frame was given up for a newer one: if it has no result, it is as if it had never come."""

        def work(connection: sqlite3.Connection) -> None:
            _set_attempts(connection, "0", source, frame_id)
            connection.execute(
                "DELETE FROM frames WHERE source = ? AND frame_id = ? AND state = 'received'",
                (source, storable(frame_id)),
            )

        self._file.write(work)

    def attempts(self, source: str, frame_id: str) -> int:
        """Return how often the analysis of a frame began and never ended."""
        return self._file.read(lambda connection: _frame(connection, "attempts", source, frame_id)) or 0

    def post(
        self,
        topic: str,
        header: Mapping[str, Any],
        payload: bytes,
        *,
        frame: tuple[str, str] | None = None,
        state: State | None = None,
        folder: str | None = None,
    ) -> Message:
        """Number and store a result, and note what became of its frame: both or neither.

        Args:
            topic: What its number counts.
            header: Of JSON types. Of a failed frame, `error` is the sentence that the history tells.
            payload: The rest of it.
            frame: Source and frame_id of the frame it is about.
            state: What that frame now is; as before where left out.
            folder: Of the result's files, below the results folder, where they are still to be written: the result is
                among `not_filed` until `filed` is called.
        """
        if self._bytes_since_pruned > _LARGEST_EXCESS * self._limits.bytes:
            self.prune()

        def work(connection: sqlite3.Connection) -> Message:
            message = _post(connection, topic, header, payload, frame, state)
            if folder is not None:
                row = (topic, message.sequence, folder)
                connection.execute("INSERT INTO not_filed (topic, sequence, folder) VALUES (?, ?, ?)", row)
            return message

        message = self._file.write(work)
        self._bytes_since_pruned += len(payload) + _BYTES_OF_A_HEADER
        return message

    def filed(self, topic: str, sequence: int) -> None:
        """Note that a result's files are written, or never will be."""
        query = "DELETE FROM not_filed WHERE topic = ? AND sequence = ?"
        self._file.write(lambda connection: connection.execute(query, (topic, sequence)))

    def not_filed(self) -> list[tuple[Message, str]]:
        """Return the results whose files are still to be written, oldest first, each with its folder.

        Those that were forgotten since, because the ledger is small, are not among them.
        """
        query = (
            "SELECT topic, sequence, header, payload, folder FROM not_filed JOIN messages USING (topic, sequence) "
            "ORDER BY messages.number"
        )
        return [
            (Message(topic, sequence, json.loads(header), payload), folder)
            for topic, sequence, header, payload, folder in self._file.read(lambda c: c.execute(query).fetchall())
        ]

    def after(self, topic: str, sequence: int, limit: int = 1000, limit_bytes: int = REPLAY_BYTES) -> list[Message]:
        """Return messages of a topic with larger numbers, oldest first.

        It is one at least where there is one, but not all of them where they are many or large: ask again with the
        last number, until there are none.
        """

        def work(connection: sqlite3.Connection) -> list[Message]:
            messages: list[Message] = []
            bytes_left = limit_bytes
            rows = connection.execute(
                "SELECT sequence, header, payload FROM messages WHERE topic = ? AND sequence > ? "
                "ORDER BY sequence LIMIT ?",
                (topic, sequence, limit),
            )
            for number, header, payload in rows:
                bytes_left -= len(header) + len(payload)
                if messages and bytes_left < 0:
                    break
                messages.append(Message(topic, number, json.loads(header), payload))
            rows.close()  # else this connection would go on to read the file as it is now
            return messages

        return self._file.read(work)

    def oldest(self, topic: str) -> int | None:
        """Return the smallest number of a topic that is kept; None where none is."""
        query = "SELECT min(sequence) FROM messages WHERE topic = ?"
        return self._file.read(lambda connection: _number(connection, query, topic))

    def newest(self, topic: str) -> int:
        """Return the number last given in a topic; 0 where nothing was posted."""
        return self._file.read(lambda connection: _newest(connection, topic))

    def topics(self) -> list[str]:
        """Return every topic that something was ever posted to."""
        query = "SELECT topic FROM topics ORDER BY topic"
        return self._file.read(lambda connection: [topic for (topic,) in connection.execute(query).fetchall()])

    def prune(self) -> int:
        """Forget the oldest messages, and frames that are done, beyond the limits; return how many.

        The ledger does so by itself each second. A frame that is only received is never forgotten.
        """
        self._bytes_since_pruned = 0
        forgotten = 0
        while step := self._file.write(lambda connection: prune_step(connection, self._limits)):
            forgotten += step
        while self._file.write(lambda connection: shrink_step(connection, self._limits.bytes)):
            pass
        return forgotten

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        self._closing.set()
        self._tidying.join()
        self._file.close()

    def _tidy_each_second(self) -> None:
        in_trouble = False
        while not self._closing.wait(_SECONDS_BETWEEN_TIDYINGS):
            try:
                self.prune()
                self._file.bring_to_disk()
                in_trouble = False
            except Exception as error:
                if not in_trouble:
                    log.error(
                        "The ledger is not tidied up: %s; trying on", error, exc_info=not isinstance(error, OSError)
                    )
                in_trouble = True


def _post(
    connection: sqlite3.Connection,
    topic: str,
    header: Mapping[str, Any],
    payload: bytes,
    frame: tuple[str, str] | None,
    state: State | None,
) -> Message:
    now = time()
    sequence = _newest(connection, topic) + 1
    numbered = {**header, "sequence": sequence, "ledger": _identity(connection)}
    connection.execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (topic, sequence))
    connection.execute(
        "INSERT INTO messages (topic, sequence, posted_at, header, payload) VALUES (?, ?, ?, ?, ?)",
        (topic, sequence, now, json.dumps(numbered), payload),
    )
    if frame is not None and state is not None:
        source, frame_id = frame
        done_at = None if state == "received" else now
        error = storable(str(header.get("error"))) if state == "failed" else None
        # A frame that is not there was received by a file that was since lost.
        connection.execute(
            "INSERT INTO frames (source, frame_id, origin, state, received_at, done_at, error) "
            "VALUES (:source, :frame_id, :origin, :state, :now, :done_at, :error) "
            "ON CONFLICT (source, frame_id) "
            "DO UPDATE SET state = :state, attempts = 0, done_at = :done_at, error = :error",
            {
                "source": source,
                "frame_id": storable(frame_id),
                "origin": storable(str(header.get("origin", ""))),
                "state": state,
                "now": now,
                "done_at": done_at,
                "error": error,
            },
        )
    return Message(topic, sequence, numbered, payload)


def _set_attempts(connection: sqlite3.Connection, expression: str, source: str, frame_id: str) -> None:
    query = f"UPDATE frames SET attempts = {expression} WHERE source = ? AND frame_id = ?"
    connection.execute(query, (source, storable(frame_id)))


def _frame(connection: sqlite3.Connection, column: str, source: str, frame_id: str) -> Any:
    query = f"SELECT {column} FROM frames WHERE source = ? AND frame_id = ?"
    return _value(connection, query, source, storable(frame_id))


def _newest(connection: sqlite3.Connection, topic: str) -> int:
    return _number(connection, "SELECT newest FROM topics WHERE topic = ?", topic) or 0


def _identity(connection: sqlite3.Connection) -> str:
    return str(_value(connection, "SELECT identity FROM ledger"))


def _number(connection: sqlite3.Connection, query: str, topic: str) -> int | None:
    number: int | None = _value(connection, query, topic)
    return number


def _value(connection: sqlite3.Connection, query: str, *arguments: str) -> Any:
    """Return the one value a query gives; None where it gives none."""
    row = connection.execute(query, arguments).fetchone()
    return row[0] if row else None


def storable(text: str) -> str:
    """Write what is not Unicode, as in some names of files, as an escape: SQLite takes none of it."""
    return text.encode(errors="backslashreplace").decode()
