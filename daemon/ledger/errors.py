"""What SQLite says went wrong, as the rest of hrtemd says it."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of the file and its disk; anything else is a fault in hrtemd.
_SYSTEM_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_PROTOCOL: errno.EIO,  # locks do not work, as on some shares
}


@contextmanager
def as_system_errors(path: Path) -> Iterator[None]:
    """Raise what SQLite says of a file and its disk as OSError, such as ENOSPC, which others know how to wait out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = _SYSTEM_ERRORS.get(_code(error))
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file is not a whole database, rather than that it cannot be used now."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: sqlite3.DatabaseError) -> int:
    # Some errors, as of the wrong use of a cursor, are Python's own and carry none. The upper bytes tell details.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
