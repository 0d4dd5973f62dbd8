"""Frames from a folder, and all folders below it, into which somebody else writes.

What lies in the folder is the truth: it is listed now and then, and the kernel's announcements only say where to look
sooner. So frames are found on network shares too, where nothing is announced, and when announcements are lost.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Event
from time import monotonic

from daemon.errors import FrameError, HrtemdError
from daemon.filesystems import file_system_of
from daemon.inbox import Policy
from daemon.sources.folder_watch import FolderWatch
from daemon.sources.image_file import arrivals_from, may_hold_frames
from daemon.sources.source import Arrival, Failure

SETTLE_SECONDS = 0.3
"""A file is complete when its size and time of change have stood still for this long, and it can be read."""

RETRY_SECONDS = (0.5, 1.0, 2.0)
"""Pauses before a file that stands still but cannot be read is tried again: its writer may only be slow."""

RESCAN_SECONDS = 10.0
NETWORK_RESCAN_SECONDS = 1.0

_LONGEST_WAIT_SECONDS = 0.2  # a request to stop is seen after this time

log = logging.getLogger(__name__)

Signature = tuple[int, int]
"""A file's size in bytes and time of change in ns."""


@dataclass
class _Candidate:
    """A file that may hold frames, once its writer is done.

    Attributes:
        signature: As last seen.
        due: When to look at it again, on the monotonic clock.
        resumed: It was there at start.
        attempts: How often it could not be read as it stands now.
        delivered: Ids of the frames it has yielded so far.
    """

    signature: Signature
    due: float
    resumed: bool = False
    attempts: int = 0
    delivered: set[str] = field(default_factory=set)


class DirectorySource:
    """Watches a folder for image files.

    Args:
        name: Name of the source.
        folder: Where files appear.
        policy: With `latest`, only the newest of the files that are there at start is read.
        pixel_size_angstrom: Å per pixel; beats what files and sidecars say.
        has_newer_results: Tells of a file that was there at start, and its folder below `folder`, whether it is done.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        policy: Policy,
        pixel_size_angstrom: float | None,
        has_newer_results: Callable[[Path, PurePosixPath], bool],
    ) -> None:
        self.name = name
        self._folder = folder
        self._policy = policy
        self._pixel_size_angstrom = pixel_size_angstrom
        self._has_newer_results = has_newer_results
        self._candidates: dict[Path, _Candidate] = {}
        self._done: dict[Path, Signature] = {}
        self._unlisted: set[str] = set()
        self._is_lost = False

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure]:
        """Yield each file's frames once it is complete, new files before those that were there at start."""
        needs_polling = file_system_of(self._folder).needs_polling
        rescan_seconds = NETWORK_RESCAN_SECONDS if needs_polling else RESCAN_SECONDS
        with FolderWatch(self._folder) as watch:
            self._note_files_at_start()
            rescan_at = monotonic() + rescan_seconds
            while not stop.is_set():
                if self._follow(watch) or monotonic() >= rescan_at:
                    yield from self._rescan(watch)
                    rescan_at = monotonic() + rescan_seconds
                if path := self._next_due():
                    yield from self._read(path)

    def _note_files_at_start(self) -> None:
        found = {path: signature for path in self._image_files() if (signature := _signature(path))}
        if self._policy == "latest" and found:
            newest = max(found, key=lambda path: found[path][1])
            self._done = {path: signature for path, signature in found.items() if path != newest}
            found = {newest: found[newest]}
            log.info("%s: %d files were there before the newest one and are left out", self.name, len(self._done))
        due = monotonic() + SETTLE_SECONDS
        for path, signature in sorted(found.items(), key=lambda item: item[1][1]):
            self._candidates[path] = _Candidate(signature, due, resumed=True)

    def _follow(self, watch: FolderWatch) -> bool:
        """Take in announcements until a file is due; return whether the whole folder must be listed anew."""
        folder_came = False
        next_due = min((candidate.due for candidate in self._candidates.values()), default=float("inf"))
        # Not for longer: a file written in many small pieces announces each of them.
        until = monotonic() + _LONGEST_WAIT_SECONDS
        wait_seconds = min(next_due, until) - monotonic()
        while monotonic() < until and (announcement := watch.next(wait_seconds)):
            wait_seconds = 0.0
            if announcement.is_folder:
                folder_came = True  # with files in it, perhaps, that came before it could be watched
            elif may_hold_frames(announcement.path):
                self._note(announcement.path, settle_seconds=0.0 if announcement.renamed_in else SETTLE_SECONDS)
        return folder_came

    def _note(self, path: Path, settle_seconds: float) -> None:
        """Remember to read a file that is new or has changed."""
        signature = _signature(path)
        if signature is None or self._done.get(path) == signature:
            return
        candidate = self._candidates.setdefault(path, _Candidate(signature, due=0.0))
        candidate.signature = signature
        candidate.due = monotonic() + settle_seconds
        candidate.attempts = 0
        candidate.resumed = False

    def _rescan(self, watch: FolderWatch) -> Iterator[Failure]:
        """List the folder, for files that were not announced."""
        if not self._folder.is_dir():
            if not self._is_lost:
                self._is_lost = True
                gone = FrameError(f"The folder {self._folder} is gone; frames are read again once it is back.")
                yield Failure(self.name, str(self._folder), gone)
            return
        if self._is_lost:
            self._is_lost = False
            log.info("%s: the folder %s is back", self.name, self._folder)
            watch.restart()
        for path in self._image_files():
            if path not in self._candidates:
                self._note(path, SETTLE_SECONDS)

    def _image_files(self) -> Iterator[Path]:
        for folder, subfolders, names in os.walk(self._folder, onerror=self._warn_once):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            yield from filter(may_hold_frames, (Path(folder) / name for name in names))

    def _warn_once(self, error: OSError) -> None:
        if error.filename not in self._unlisted:
            self._unlisted.add(error.filename)
            log.warning("%s: the folder %s cannot be listed (%s)", self.name, error.filename, error.strerror)

    def _next_due(self) -> Path | None:
        now = monotonic()
        due = (path for path, candidate in self._candidates.items() if candidate.due <= now)
        # The operator waits for what is new; what was there at start can wait.
        return min(due, key=lambda path: self._candidates[path].resumed, default=None)

    def _read(self, path: Path) -> Iterator[Arrival | Failure]:
        """Yield a file's frames, or see to it that it is tried again."""
        candidate = self._candidates[path]
        signature = _signature(path)
        if signature is None:  # taken away again
            del self._candidates[path]
            return
        if signature != candidate.signature:  # still growing
            self._note(path, SETTLE_SECONDS)
            return
        folder = PurePosixPath(path.parent.relative_to(self._folder).as_posix())
        try:
            if not (candidate.resumed and self._has_newer_results(path, folder)):
                for arrival in arrivals_from(
                    path,
                    source=self.name,
                    pixel_size_angstrom=self._pixel_size_angstrom,
                    folder=folder,
                    resumed=candidate.resumed,
                ):
                    if arrival.frame.frame_id not in candidate.delivered:
                        candidate.delivered.add(arrival.frame.frame_id)
                        yield arrival
        except Exception as error:
            if candidate.attempts < len(RETRY_SECONDS):
                candidate.due = monotonic() + RETRY_SECONDS[candidate.attempts]
                candidate.attempts += 1
                return
            if not isinstance(error, HrtemdError | OSError):
                log.exception("%s: reading %s failed unexpectedly", self.name, path)
            yield Failure(self.name, str(path), error)
        del self._candidates[path]
        self._done[path] = signature
        # A file that changed while it was read is read again when it has settled.
        self._note(path, SETTLE_SECONDS)


def _signature(path: Path) -> Signature | None:
    """Return a file's signature, None where there is no such file any more."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
