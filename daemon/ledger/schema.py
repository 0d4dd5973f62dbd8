"""The tables of the ledger, and how its SQLite file is opened."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from daemon.errors import ConfigurationError
from daemon.filesystems import file_system_of

VERSION = 2
"""Of the tables below; kept as the file's `user_version`."""

APPLICATION_ID = 0x68727465  # "hrte"
"""Tells a ledger from other programs' SQLite files."""

_NOT_FILED = """CREATE TABLE not_filed (  -- results that are numbered and whose files are not yet written
        topic TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        folder TEXT NOT NULL,  -- of their files, below the results folder
        PRIMARY KEY (topic, sequence)
    )"""

TABLES = (
    "CREATE TABLE ledger (identity TEXT NOT NULL)",
    """CREATE TABLE frames (
        number INTEGER PRIMARY KEY,  -- in order of coming
        source TEXT NOT NULL,
        frame_id TEXT NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        received_at REAL NOT NULL,  -- times are seconds since 1970
        done_at REAL,
        error TEXT,
        UNIQUE (source, frame_id)
    )""",
    "CREATE TABLE topics (topic TEXT PRIMARY KEY, newest INTEGER NOT NULL)",
    """CREATE TABLE messages (
        number INTEGER PRIMARY KEY,  -- in order of posting, all topics together
        topic TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        posted_at REAL NOT NULL,
        header TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (topic, sequence)
    )""",
    _NOT_FILED,
)

_SECONDS_FOR_OTHER_WRITERS = 5.0
_LARGEST_IDLE_WAL_BYTES = 16 * 2**20

# Long before, the daemon's own thread copies them (see `daemon.ledger.file`), so that no commit waits for it.
_PAGES_BEFORE_A_COMMIT_COPIES_THEM = 65536

_Result = TypeVar("_Result")


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a ledger, and begin one where there is none.

    Raises:
        ConfigurationError: The file is another program's, or of a newer hrtemd.
        sqlite3.DatabaseError: It cannot be opened, or is damaged.
    """
    connection = sqlite3.connect(
        path, timeout=_SECONDS_FOR_OTHER_WRITERS, isolation_level=None, check_same_thread=False
    )
    try:
        is_new = not _tables_in(connection)
        if is_new:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded only before the first table
        else:
            _check_kind(connection, path)
        connection.execute(f"PRAGMA journal_mode = {'WAL' if may_use_wal(path) else 'TRUNCATE'}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BEFORE_A_COMMIT_COPIES_THEM}")
        connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_WAL_BYTES}")
        if is_new:
            in_transaction(connection, _make_tables)
        elif _version(connection) < VERSION:
            in_transaction(connection, _bring_up_to_date)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path, *, at_rest: bool = False) -> sqlite3.Connection:
    """Open a ledger beside those who write to it.

    Args:
        path: Of the ledger.
        at_rest: Nobody has it open. Then no file beside it is needed, which others might not be allowed to make, or
            which the daemon might afterwards not be allowed to write.

    Raises:
        ConfigurationError: The file is another program's, or of a newer hrtemd.
        sqlite3.DatabaseError: There is none, it cannot be opened, or is damaged.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}",
        uri=True, timeout=_SECONDS_FOR_OTHER_WRITERS, isolation_level=None, check_same_thread=False,
    )  # fmt: skip
    try:
        _check_kind(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def may_use_wal(path: Path) -> bool:
    """Whether a ledger may be in WAL mode, which needs memory that all who have it open share: not on the network."""
    return not file_system_of(path.parent).needs_polling


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
    """Do all of something or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself ends it after some errors, as of a full disk
            connection.execute("ROLLBACK")
        raise
    return result


def _tables_in(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(number)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise ConfigurationError(f"{path}: is a SQLite file, but not a ledger of hrtemd; name another file.")
    if (version := _version(connection)) > VERSION:
        raise ConfigurationError(
            f"{path}: is a ledger of version {version}, of a newer hrtemd; this one reads up to version {VERSION}. "
            "Install the newer hrtemd again, or move the file away: then results are numbered from 1 again."
        )


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Add to the ledger of an older hrtemd what has come since."""
    if _version(connection) < VERSION:  # else another process was faster
        connection.execute(_NOT_FILED)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _make_tables(connection: sqlite3.Connection) -> None:
    if _tables_in(connection):  # another process was faster
        return
    for statement in TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO ledger VALUES (?)", (uuid4().hex,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
