"""Keeping the ledger small."""

import sqlite3
from dataclasses import dataclass
from time import time

_SECONDS_A_DAY = 86400.0

# Between two steps, whoever wants to write has a turn.
_MOST_IN_A_STEP = 200
_BYTES_IN_A_STEP = 2**20

# A frame's row takes some 300 bytes: frames take a tenth of the ledger at most, and results the rest.
_LEDGER_BYTES_A_FRAME = 4096


@dataclass(frozen=True)
class LedgerLimits:
    """How much is kept: beyond either, the oldest goes."""

    bytes: int
    age_days: float


def prune_step(connection: sqlite3.Connection, limits: LedgerLimits) -> int:
    """Forget some of what is beyond the limits, and return how much that was; 0 once nothing is."""
    oldest_kept = time() - _SECONDS_A_DAY * limits.age_days
    return _prune_messages(connection, limits.bytes, oldest_kept) + _prune_frames(connection, limits.bytes, oldest_kept)


def shrink_step(connection: sqlite3.Connection, limit_bytes: int) -> int:
    """Give pages that nothing is in back to the file system, as after the limit was lowered; return how many."""
    pages, free_pages, page_bytes = _pages(connection)
    given_back = max(0, min(pages - limit_bytes // page_bytes, free_pages, _MOST_IN_A_STEP))
    for _ in range(given_back):
        connection.execute("PRAGMA incremental_vacuum(1)")  # Python's module stops after one of a larger number
    return given_back


def _prune_messages(connection: sqlite3.Connection, limit_bytes: int, oldest_kept: float) -> int:
    """Forget the oldest, whatever their topic, so that all topics reach back to one time and none has a hole."""
    pages, free_pages, page_bytes = _pages(connection)
    excess_bytes = (pages - free_pages) * page_bytes - limit_bytes
    doomed_bytes = 0
    last = None
    rows = connection.execute(
        "SELECT number, posted_at, length(header) + length(payload) FROM messages ORDER BY number LIMIT ?",
        (_MOST_IN_A_STEP,),
    )
    for number, posted_at, message_bytes in rows:
        is_too_much = doomed_bytes < excess_bytes or posted_at < oldest_kept
        if not is_too_much or doomed_bytes > _BYTES_IN_A_STEP:
            break
        doomed_bytes += message_bytes
        last = number
    rows.close()
    return connection.execute("DELETE FROM messages WHERE number <= ?", (last,)).rowcount if last is not None else 0


def _prune_frames(connection: sqlite3.Connection, limit_bytes: int, oldest_kept: float) -> int:
    """Forget the oldest that are done; one that is only received is still to be analysed."""
    (newest,) = connection.execute("SELECT max(number) FROM frames").fetchone()
    rows = connection.execute(
        "SELECT number, done_at FROM frames WHERE state != 'received' ORDER BY number LIMIT ?", (_MOST_IN_A_STEP,)
    )
    doomed = [
        (number,)
        for number, done_at in rows.fetchall()
        if done_at < oldest_kept or number <= newest - limit_bytes // _LEDGER_BYTES_A_FRAME
    ]
    return connection.executemany("DELETE FROM frames WHERE number = ?", doomed).rowcount if doomed else 0


def _pages(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return how many pages the file has, how many of them are free, and the bytes of one."""
    pages, free_pages, page_bytes = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return pages, free_pages, page_bytes
