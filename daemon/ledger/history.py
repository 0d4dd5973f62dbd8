"""What a ledger tells of frames, for people."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from daemon.errors import HrtemdError
from daemon.ledger.errors import as_system_errors, is_damage
from daemon.ledger.schema import may_use_wal, open_for_reading


@dataclass(frozen=True)
class Entry:
    """A frame or focal series and what became of it.

    Attributes:
        source: Name of the source in config.toml.
        frame_id: See `daemon.frames`.
        origin: What it was read from.
        state: `received`, `published` or `failed`.
        attempts: How often its analysis began and never ended.
        received_at: When hrtemd first had it.
        done_at: When it was published or failed; None where it is unfinished.
        error: Why it failed.
    """

    source: str
    frame_id: str
    origin: str
    state: str
    attempts: int
    received_at: datetime
    done_at: datetime | None
    error: str | None


def read_history(
    path: Path,
    *,
    source: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[Entry]:
    """Read what became of the newest frames, oldest first, from the ledger of a running or stopped daemon.

    Args:
        path: Of the ledger.
        source: Only frames of this one.
        state: Only frames that are so.
        since: Only frames that came or were done at this time or later.
        limit: How many at most.

    Raises:
        HrtemdError: There is no ledger, or it is damaged.
        ConfigurationError: It is another program's file, or of a newer hrtemd.
        OSError: It cannot be read.
    """
    conditions = {
        "source = ?": source,
        "state = ?": state,
        "coalesce(done_at, received_at) >= ?": since and since.timestamp(),
    }
    chosen = {condition: value for condition, value in conditions.items() if value is not None}
    query = (
        "SELECT source, frame_id, origin, state, attempts, received_at, done_at, error FROM frames "
        f"WHERE {' AND '.join(chosen) or 'TRUE'} ORDER BY number DESC LIMIT ?"
    )
    if not path.exists():
        raise HrtemdError(f"{path}: there is no ledger; it is begun when the daemon first runs.")
    # Whoever has it open in WAL mode keeps the WAL beside it, and takes it away at the end.
    at_rest = may_use_wal(path) and not path.with_name(f"{path.name}-wal").exists()
    try:
        with as_system_errors(path), closing(open_for_reading(path, at_rest=at_rest)) as connection:
            # At once, since a reader that takes its time would keep the daemon from tidying up.
            rows = connection.execute(query, (*chosen.values(), -1 if limit is None else limit)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise HrtemdError(
            f"{path}: is damaged ({error}); the daemon sets it aside and begins another when it next uses it."
        ) from error
    return [
        Entry(source, frame_id, origin, state, attempts, _time(received_at), done_at and _time(done_at), error)
        for source, frame_id, origin, state, attempts, received_at, done_at, error in reversed(rows)
    ]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
