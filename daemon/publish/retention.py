"""Keeping the results folder small: the oldest results go first, all files of a frame together.

Only what hrtemd wrote is deleted: an atom table, which its header tells, and the overlay and CSV of the same stem. What
is not yet published stays, and what is so young that its overlay may still be drawn.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, time
from typing import Any, NamedTuple

import pyarrow.parquet

from daemon.atoms import header_of

YOUNG_SECONDS = 300.0
"""No result is deleted sooner after it was written."""

EVENTS_BYTES = 16 * 2**20
"""An `events.jsonl` that is larger becomes `events.older.jsonl`, in place of the one before."""

_TABLE = ".atoms.parquet"
# The table goes last: until then it tells, also after a crash, that the others are ours.
_SUFFIXES = (".overlay.png", ".atoms.csv", _TABLE)

# To look through a hundred thousand results takes seconds, which must not be missed elsewhere.
_SHORTEST_PAUSE_SECONDS = 5.0
_LARGEST_SHARE_OF_TIME = 0.02

_RESULTS_AT_A_TIME = 5000
"""To delete. What a hundred thousand would take, Python would keep for good."""

_SECONDS_A_DAY = 86400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetentionLimits:
    """When results are deleted; None is never.

    Attributes:
        bytes: When all of them together are larger.
        age_days: When they are older.
        free_bytes: When their file system has less room than this.
    """

    bytes: int | None = None
    age_days: float | None = None
    free_bytes: int | None = None


class Retention:
    """Deletes old results: in a thread of its own, and when told to.

    Args:
        directory: Nothing outside of it is touched, and links in it are not followed.
        limits: What is too much.
        is_unpublished: Whether the result of a source and frame_id must stay.
    """

    def __init__(
        self, directory: Path, limits: RetentionLimits, is_unpublished: Callable[[str, str], bool] = lambda *_: False
    ) -> None:
        self.deleted_results = 0
        self.deleted_bytes = 0
        self._directory = directory
        self._limits = limits
        self._is_unpublished = is_unpublished
        self._deleting = Lock()
        self._troubles: set[str] = set()
        self._stopping = Event()
        self._thread = Thread(target=self._keep_on, name="retention", daemon=True)

    def start(self) -> None:
        """Begin to look after the folder."""
        self._thread.start()

    def stop(self) -> None:
        """End, once the result that is being deleted is gone."""
        self._stopping.set()
        self._thread.join()

    def delete_excess(self) -> int:
        """Delete what is too much now; return how many results went. Any thread may call it.

        What hinders it is told in the log, and tried again the next time.
        """
        with self._deleting:
            deleted_before = self.deleted_results
            troubles: set[str] = set()
            try:
                _put_events_aside(self._directory / "events.jsonl")
                self._delete_oldest(troubles)
            except OSError as error:
                troubles.add(_trouble(error))
            for trouble in troubles - self._troubles:  # what is new: it would be told every few seconds
                log.warning("results: old ones should be deleted: %s", trouble)
            self._troubles = troubles
            return self.deleted_results - deleted_before

    def _keep_on(self) -> None:
        pause_seconds = 0.0
        while not self._stopping.wait(pause_seconds):
            started = monotonic()
            try:
                self.delete_excess()
            except Exception:
                log.exception("results: old ones could not be deleted, by a fault in hrtemd; trying on")
            pause_seconds = max(_SHORTEST_PAUSE_SECONDS, (monotonic() - started) / _LARGEST_SHARE_OF_TIME)

    def _delete_oldest(self, troubles: set[str]) -> None:
        """Delete the oldest results, some at a time: of the others nothing is remembered but their size."""
        last = _Result(-inf, "", 0)
        while True:
            survey = _Survey(str(self._directory), lambda error: troubles.add(_trouble(error)))
            newer = (result for result in survey if result > last)
            oldest = nsmallest(_RESULTS_AT_A_TIME, newer)
            for result in oldest:
                reason = self._reason_to_delete(result, survey.bytes)
                if reason is None or self._stopping.is_set():
                    return
                if result.written_at > time() - YOUNG_SECONDS:  # and the others are younger
                    troubles.add(f"{reason}, but what is left is too young")
                    return
                try:
                    if self._may_be_deleted(result):
                        self._delete(result)
                        log.info("%s: its results are deleted, since %s", result.stem, reason)
                        survey.bytes -= result.bytes
                    else:
                        troubles.add(f"{reason}, but what is left is not yet published, or not of hrtemd")
                except OSError as error:  # the others may still go
                    troubles.add(_trouble(error))
            if len(oldest) < _RESULTS_AT_A_TIME:
                return
            last = oldest[-1]

    def _reason_to_delete(self, oldest: "_Result", bytes_left: int) -> str | None:
        """Say which limit is passed as long as this is the oldest result, and all of them take so much room."""
        limits = self._limits
        if limits.age_days is not None and oldest.written_at < time() - _SECONDS_A_DAY * limits.age_days:
            return f"it is older than {limits.age_days:g} days"
        if limits.bytes is not None and bytes_left > limits.bytes:
            return f"the results take more than {limits.bytes / 1e9:g} GB"
        if limits.free_bytes is not None and shutil.disk_usage(self._directory).free < limits.free_bytes:
            return f"the disk has less than {limits.free_bytes / 1e9:g} GB of room"
        return None

    def _may_be_deleted(self, result: "_Result") -> bool:
        if result.table.stat().st_mtime != result.written_at:
            return False
        header = _header(result.table)
        is_ours = str(header.get("schema")).startswith("hrtemd.atoms.")
        return is_ours and not self._is_unpublished(str(header.get("source")), str(header.get("frame_id")))

    def _delete(self, result: "_Result") -> None:
        for suffix in _SUFFIXES:
            Path(result.stem + suffix).unlink(missing_ok=True)
        self.deleted_results += 1
        self.deleted_bytes += result.bytes
        with suppress(OSError):  # where a folder is not empty, as most are not; to list it first would cost more
            for folder in result.table.relative_to(self._directory).parents[:-1]:
                (self._directory / folder).rmdir()


class _Result(NamedTuple):
    """An atom table and the files beside it that share its stem; the older of two is the smaller."""

    written_at: float
    stem: str
    bytes: int

    @property
    def table(self) -> Path:
        return Path(self.stem + _TABLE)


@dataclass
class _Survey:
    """Every result in a folder, one after the other; and `bytes`, the size of those seen so far."""

    folder: str
    on_error: Callable[[OSError], None]
    bytes: int = 0

    def __iter__(self) -> Iterator[_Result]:
        for result in _results_in(self.folder, self.on_error):
            self.bytes += result.bytes
            yield result


def _results_in(folder: str, on_error: Callable[[OSError], None]) -> Iterator[_Result]:
    """Find every atom table in a folder and below; there may be a hundred thousand, so nothing else is remembered."""
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.endswith(_TABLE) and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # it is being written anew
                        yield _result(entry.path.removesuffix(_TABLE))
    except OSError as error:
        on_error(error)
    for below in folders:
        yield from _results_in(below, on_error)


def _result(stem: str) -> _Result:
    # No Path: Python keeps the parts of each in a table that grows with a hundred thousand of them.
    table = os.lstat(stem + _TABLE)
    size = table.st_size
    for suffix in _SUFFIXES[:-1]:
        with suppress(FileNotFoundError):
            size += os.lstat(stem + suffix).st_size
    return _Result(table.st_mtime, stem, size)


def _trouble(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}; check that it is there and may be changed by this user"


def _header(table: Path) -> dict[str, Any]:
    """Read what an atom table says of itself; nothing where it is not one."""
    try:
        header = header_of(pyarrow.parquet.read_schema(table).empty_table())
    except (ValueError, OSError):
        return {}
    return header if isinstance(header, dict) else {}


def _put_events_aside(events: Path) -> None:
    """Bound the list of events. Renamed, it takes what another thread may be appending just now."""
    if events.is_file() and events.stat().st_size > EVENTS_BYTES:
        events.replace(events.with_name("events.older.jsonl"))
