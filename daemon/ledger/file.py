"""The ledger's file as the daemon's threads use it: transactions, the way to the disk, damage.

The file is in WAL mode: readers, also of other processes, see whole transactions and never hold up the writer. With
`synchronous = NORMAL` a commit does not wait for the disk, which would cost every frame some ten milliseconds. What is
committed survives the death of the process at any moment. A power failure may take what was not yet brought to the
disk, though never the file's integrity.
"""

import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import TypeVar

from daemon.ledger.errors import as_system_errors, is_damage
from daemon.ledger.schema import in_transaction, may_use_wal, open_for_reading, open_for_writing

# Beyond this the writers wait until all of it is in the file, which lets the WAL be written from its top again.
_LARGEST_WAL_PAGES = 4096

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class LedgerFile:
    """A ledger's SQLite file, open for all threads of the daemon.

    A damaged file is set aside under another name, whenever the damage shows, and a new one is begun.

    Args:
        path: Made where it does not exist, with its folder.

    Raises:
        ConfigurationError: The file is another program's, or of a newer hrtemd.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Three of them: neither a client that asks for a thousand results nor the disk holds up the next result.
        self._writer = _Connection(path, open_for_writing)
        self._reader = _Connection(path, open_for_reading)
        self._syncer = _Connection(path, open_for_writing)
        self._files_lost = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if not may_use_wal(path):
            log.warning(
                "The ledger %s lies on a network share: each frame waits for it, and its locks may fail. Set path in "
                "[ledger] to a file on a local disk.",
                path,
            )
        self.write(lambda _: None)

    def write(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do all of something in one transaction, or nothing of it.

        Raises:
            OSError: The file cannot be written, as when the disk is full; it may be tried again.
        """
        return self._do(self._writer, lambda connection: in_transaction(connection, work))

    def read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Look something up, beside a transaction that may be going on.

        Raises:
            OSError: The file cannot be read.
        """
        return self._do(self._reader, work)

    def bring_to_disk(self) -> None:
        """Copy what was committed since the last time into the file, and wait for the disk; nobody waits with us.

        Raises:
            OSError: The disk is full, or fails.
        """
        if self._do(self._syncer, _copy_wal) > _LARGEST_WAL_PAGES:
            self._do(self._writer, _copy_wal)

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        for connection in (self._syncer, self._reader, self._writer):
            connection.close()

    def _do(self, connection: "_Connection", work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        files_lost = self._files_lost
        with as_system_errors(self.path):
            try:
                return connection.use(work)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._begin_anew(files_lost, error)
            return connection.use(work)

    def _begin_anew(self, files_lost: int, damage: sqlite3.DatabaseError) -> None:
        """Set the damaged file aside, unless another thread did since, and begin another."""
        with self._writer.lock, self._reader.lock, self._syncer.lock:
            if files_lost != self._files_lost:
                return
            self.close()
            aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
            for suffix in ("", "-wal", "-shm"):
                beside = self.path.with_name(self.path.name + suffix)
                if beside.exists():
                    beside.replace(aside.with_name(aside.name + suffix))
            self._files_lost += 1
            log.critical(
                "The ledger %s is damaged (%s). It is set aside as %s and another is begun: results are numbered from "
                "1 again, and frames that are read again are published again.",
                self.path, damage, aside.name,
            )  # fmt: skip
            self._writer.use(lambda _: None)  # makes the file, for the others too


class _Connection:
    """For one thread at a time; opened when it is needed."""

    def __init__(self, path: Path, open_: Callable[[Path], sqlite3.Connection]) -> None:
        self.lock = RLock()
        self._path = path
        self._open = open_
        self._opened: sqlite3.Connection | None = None

    def use(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        with self.lock:
            if self._opened is None:
                self._opened = self._open(self._path)
            return work(self._opened)

    def close(self) -> None:
        with self.lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _copy_wal(connection: sqlite3.Connection) -> int:
    """Copy the WAL into the file as far as readers allow, wait for the disk; return the pages in the WAL."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)
