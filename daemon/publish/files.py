"""Results as files: atom tables, overlays and events below one directory."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path, PurePosixPath
from secrets import token_hex
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from daemon.atoms import header_of, read_parquet, write_csv, write_parquet
from daemon.errors import ConfigurationError
from daemon.publish.overlay import draw_overlay
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival

OVERLAY_SUFFIX = ".overlay.png"
"""No file of this name is ever read as a frame."""

_TABLES = (".atoms.csv", ".atoms.parquet")

_LONGEST_NAME_BYTES = 200

_UNFINISHED = f".hrtemd-{token_hex(4)}.part"
"""Ends the names of files that this process is writing."""
_ANYONES_UNFINISHED = re.compile(r"\..*\.hrtemd-[0-9a-f]{8}\.part")

_Owner = tuple[Any, Any]
"""Source and origin of the frame or series that a table came from; (None, None) where the table is not ours."""

# Names of files that are not Unicode are written as JSON escapes.
_TEXT: Any = {"encoding": "utf-8", "errors": "backslashreplace"}


class FilePublisher:
    """Writes `STEM.atoms.csv`, `STEM.atoms.parquet`, `STEM.overlay.png` and `events.jsonl`.

    Every file appears complete or not at all. Frames of one name from different files get stems of their own: the
    later one ends in -2, -3 and so on. Analysing a file anew replaces its earlier results.

    Args:
        directory: Nothing is written outside of it; it is made where it does not exist.
        overlays: Whether a frame has an overlay.

    Raises:
        ConfigurationError: The directory cannot be made.
    """

    def __init__(self, directory: Path, *, overlays: bool) -> None:
        self.directory = directory
        self.overlays = overlays
        self._namesakes: dict[Path, dict[_Owner, Path]] = {}
        self._finding_stem = Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"Results cannot be written to {directory}: {error.strerror}; name another folder."
            ) from error

    def delete_unfinished(self) -> None:
        """Delete what earlier processes left half written. No other may be writing here; this one may.

        Raises:
            OSError: One of the files cannot be deleted.
        """
        for folder, _, names in os.walk(self.directory):
            for name in names:
                if _ANYONES_UNFINISHED.fullmatch(name) and not name.endswith(_UNFINISHED):
                    Path(folder, name).unlink(missing_ok=True)

    def write_tables(self, arrival: Arrival, table: pa.Table) -> Path:
        """Write an atom table, with its header, as CSV and Parquet; return the stem that its files share."""
        stem = self.stem_of(arrival)
        self._write(stem, table)
        return stem

    def restore_tables(self, table: pa.Table, folder: str) -> None:
        """Write a table that an earlier process published, as `write_tables` does, to the `folder_of` its frame."""
        header = header_of(table)
        self._write(self._free_stem(header["name"], PurePosixPath(folder), header["source"], header["origin"]), table)

    def _write(self, stem: Path, table: pa.Table) -> None:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with replacing(_named(stem, ".atoms.csv")) as temporary:
            write_csv(table, temporary)
        # An overlay of earlier atoms must never stand beside these.
        _named(stem, OVERLAY_SUFFIX).unlink(missing_ok=True)
        # Last, since a Parquet file's header is what tells whether a frame has its tables.
        with replacing(_named(stem, ".atoms.parquet")) as temporary:
            write_parquet(table, temporary)

    def write_overlay(self, stem: Path, recognition: Recognition) -> None:
        """Draw the frame with its atoms beside the tables of the same stem."""
        with replacing(_named(stem, OVERLAY_SUFFIX)) as temporary:
            # Twice the file for a fifth of the time: the operator is waiting.
            draw_overlay(recognition).save(temporary, format="PNG", compress_level=1)

    def header_of(self, stem: Path) -> dict[str, Any]:
        """What the table of a stem says of itself; empty where there is none."""
        return _header(stem) or {}

    def write_event(self, source: str, origin: str, error: str) -> None:
        """Append an error to `events.jsonl`: what stands there has no atom table."""
        event = {"time": datetime.now(UTC).isoformat(), "source": source, "origin": origin, "error": error}
        with (self.directory / "events.jsonl").open("a", **_TEXT) as events:
            events.write(json.dumps(event, ensure_ascii=False) + "\n")

    def has_results(self, arrival: Arrival) -> bool:
        """Whether this very frame, by its content and since its sidecar changed, has all its files."""
        return self.has_tables(arrival) and self._is_complete(self.stem_of(arrival))

    def has_tables(self, arrival: Arrival) -> bool:
        """Whether it has all but perhaps its overlay."""
        stem = self.stem_of(arrival)
        return (
            self._has_files(stem, _TABLES)
            and (_header(stem) or {}).get("frame_id") == arrival.subject.frame_id
            and _tabled_at(stem) >= arrival.described_at
        )

    def read_table(self, arrival: Arrival) -> pa.Table:
        """Return the table that was written for a frame or series."""
        return read_parquet(_named(self.stem_of(arrival), ".atoms.parquet"))

    def newer_result(self, source: str, file: Path, folder: PurePosixPath, changed_at: float) -> str | None:
        """Return the id of the frame in a file of one, without reading it; None where not all its results are there.

        Args:
            source: Name of the source.
            file: The frame's file.
            folder: Folder of its results, below the results directory.
            changed_at: When the file or its sidecar last changed, in seconds since 1970.
        """
        try:
            stem = self._free_stem(file.stem, folder, source, str(file.resolve()))
            if not self._is_complete(stem) or _tabled_at(stem) < changed_at:
                return None
            return (_header(stem) or {}).get("frame_id")
        except OSError:  # the results are out of reach, so the frame must not count as done
            return None

    def stem_of(self, arrival: Arrival) -> Path:
        """Return the path and name that the files of a frame or series share."""
        return self._free_stem(arrival.subject.name, arrival.folder, arrival.source, arrival.origin)

    def folder_of(self, arrival: Arrival) -> str:
        """Return the folder of its files, below the directory."""
        return _safe_folder(arrival.folder).as_posix()

    def _free_stem(self, name: str, folder: PurePosixPath, source: str, origin: str) -> Path:
        """Return the first stem that is unused, or used by this origin."""
        first = self.directory.joinpath(_safe_folder(folder), safe_name(name))
        owner = (source, origin)
        if _owner_of(first) in (None, owner):
            return first
        with self._finding_stem:
            # Each namesake's table is opened once: a session may have thousands of `frame.tif` in as many folders.
            stems = self._namesakes.setdefault(first, {})
            if owner in stems and _owner_of(stems[owner]) in (None, owner):
                return stems[owner]
            for number in count(2 + len(stems)):
                stem = first.with_name(f"{first.name}-{number}")
                found = _owner_of(stem)
                stems[found or owner] = stem
                if found in (None, owner):
                    return stem
        raise AssertionError("count() does not end")

    def _is_complete(self, stem: Path) -> bool:
        return self._has_files(stem, _TABLES + (OVERLAY_SUFFIX,) * self.overlays)

    def _has_files(self, stem: Path, suffixes: tuple[str, ...]) -> bool:
        return all(_named(stem, suffix).exists() for suffix in suffixes)


def safe_name(name: str) -> str:
    """Turn a frame's name into one that can stand for a file on any system, and for nothing but a file."""
    name = name.encode(errors="replace").decode()  # a file's name need not be Unicode
    name = re.sub(r'[\x00-\x1f\x7f/\\<>:"|?*]', "_", name).lstrip(".").rstrip(". ")
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        # Names differ at their ends, as the images of a stack do, so what is cut off stays in a hash.
        tail = "-" + hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        name = name.encode()[: _LONGEST_NAME_BYTES - len(tail)].decode(errors="ignore") + tail
    return name or "frame"


def _safe_folder(folder: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(*(safe_name(part) for part in folder.parts))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there takes the place of `path` once it is safely on disk."""
    temporary = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        # Arrow names no file, the system the temporary one.
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Write a document for people and programs, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", **_TEXT)


def _named(stem: Path, suffix: str) -> Path:
    # Not with_suffix(): a stem may hold dots of its own.
    return stem.with_name(stem.name + suffix)


def _tabled_at(stem: Path) -> float:
    return _named(stem, ".atoms.parquet").stat().st_mtime


def _owner_of(stem: Path) -> _Owner | None:
    header = _header(stem)
    return None if header is None else (header.get("source"), header.get("origin"))


def _header(stem: Path) -> dict[str, Any] | None:
    """Read what the table of this stem says of itself; None where there is none, empty where it is not ours.

    Raises:
        OSError: The disk or share fails.
    """
    table = _named(stem, ".atoms.parquet")
    if not table.exists():
        return None
    try:
        return header_of(pyarrow.parquet.read_schema(table).empty_table())
    except (ValueError, PermissionError):
        return {}
    except OSError as error:
        if error.errno is None:  # Arrow's way to say that a file is damaged
            return {}
        raise
