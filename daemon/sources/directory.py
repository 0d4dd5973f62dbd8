"""Frames from a folder, and all folders below it, into which somebody else writes.

What lies in the folder is the truth: it is listed now and then, and the kernel's announcements only say where to look
sooner. So frames are found on network shares too, where nothing is announced, and when announcements are lost.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from threading import Event
from time import monotonic
from typing import Any

from daemon.drops import Drops
from daemon.errors import FrameError
from daemon.inbox import Policy
from daemon.readers import (
    SUFFIXES,
    ReadLimits,
    frames_read_from,
    frames_within,
    is_screen_picture,
    may_grow,
    may_hold_frames,
    parts_of,
)
from daemon.sources.candidates import (
    SETTLE_SECONDS,
    Candidate,
    Candidates,
    Signature,
    is_half_of_a_pair,
    signature_of,
)
from daemon.sources.file_taking import FileTaking
from daemon.sources.folder_watch import FolderWatch
from daemon.sources.selection import Selection
from daemon.sources.source import Arrival, Failure

HALF_PAIR_SECONDS = 5.0
"""As long is waited for the other half of TIA's pair of an `.emi` and its `.ser` files."""

RESCAN_SECONDS = 10.0
UNANNOUNCED_RESCAN_SECONDS = 1.0
"""Between listings of a folder where files may come unannounced, as on a network share."""

_LONGEST_WAIT_SECONDS = 0.2  # a request to stop is seen after this time

log = logging.getLogger(__name__)


class DirectorySource:
    """Watches a folder for image files.

    Args:
        name: Name of the source.
        folder: Where files appear.
        policy: With `latest`, only the newest of the files that are there at start is read.
        pixel_size_angstrom: Å per pixel; beats what files and sidecars say.
        has_newer_results: Tells of a file that was there at start whether it is done, given its folder below `folder`
            and the time, in seconds since 1970, when it or its sidecar last changed.
        limits: Beyond them a file is refused.
        drops: Counts the files left out.
        include: Patterns of the files to take, all where there are none; see `Selection`.
        exclude: Patterns of the files to leave out, which are never opened.
        in_series: Its frames are to make focal series. A stack then has to say how many images it will hold before any
            of them is taken, or else to stand still.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        policy: Policy,
        pixel_size_angstrom: float | None,
        has_newer_results: Callable[[Path, PurePosixPath, float], bool],
        limits: ReadLimits,
        drops: Drops,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        in_series: bool = False,
    ) -> None:
        self.name = name
        self._folder = folder
        self._policy = policy
        self._drops = drops
        self._selection = Selection(include, exclude)
        self._taking = FileTaking(name, folder, pixel_size_angstrom, has_newer_results, limits, in_series=in_series)
        self._candidates = Candidates()
        self._done: dict[Path, Signature] = {}
        self._warned_of: set[str] = set()
        self._identity: tuple[int, int] | None = None
        self._is_lost = False

    def gauge(self) -> dict[str, Any]:
        """Return how it is.

        `connected`: whether the folder can be reached, as of the last listing; `waiting_files`: those that are to be
        read, or looked at again; `folder`.
        """
        is_reached = self._identity is not None and not self._is_lost
        return {"connected": is_reached, "waiting_files": len(self._candidates), "folder": str(self._folder)}

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        """Yield each file's frames once it is complete, new files before those that were there at start."""
        self._identity = _identity(self._folder)
        with FolderWatch(self._folder) as watch:
            self._note_backlog()
            listed_at = monotonic()
            while not stop.is_set():
                rescan_seconds = RESCAN_SECONDS if watch.hears_everything else UNANNOUNCED_RESCAN_SECONDS
                if self._follow(watch) or monotonic() >= listed_at + rescan_seconds:
                    yield from self._rescan(watch)
                    listed_at = monotonic()
                if due := self._candidates.due(monotonic()):
                    for outcome in self._read(*due, in_order=watch.hears_everything):
                        yield outcome
                        if stop.is_set():
                            return
                else:
                    yield None

    def _note_backlog(self) -> None:
        """Remember to read what came while nobody watched, unless its results are there."""
        found = {
            path: signature
            for path, signature in self._list().items()
            if path not in self._candidates and self._done.get(path) != signature
        }
        if self._policy == "latest" and found:
            newest = max(found, key=lambda path: found[path].image[1])
            left_out = {path: signature for path, signature in found.items() if path != newest}
            self._done |= left_out
            found = {newest: found[newest]}
            if left_out:
                self._drops.add(self.name, "files there before the newest one", len(left_out))
        now = monotonic()
        for path, signature in sorted(found.items(), key=lambda item: item[1].image[1]):
            settle_seconds = HALF_PAIR_SECONDS if is_half_of_a_pair(path, signature) else SETTLE_SECONDS
            settled_at = now + settle_seconds
            self._candidates.put(path, Candidate(signature, due=settled_at, settled_at=settled_at, resumed=True))

    def _follow(self, watch: FolderWatch) -> bool:
        """Take in announcements until a file is due; return whether the whole folder must be listed anew."""
        folder_came = False
        parts: set[Path] = set()
        # Not for longer: a file written in many small pieces announces each of them.
        until = monotonic() + _LONGEST_WAIT_SECONDS
        wait_seconds = min(self._candidates.next_due(), until) - monotonic()
        while monotonic() < until and (announcement := watch.next(wait_seconds)):
            wait_seconds = 0.0
            path = announcement.path
            if announcement.is_folder:
                folder_came = True  # with files in it, perhaps, that came before it could be watched
            elif path.suffix.lower() in (".json", ".ser"):
                parts.add(path)
            elif may_hold_frames(path.name) and self._takes(path):
                self._note(path, self._signature(path), 0.0 if announcement.renamed_in else SETTLE_SECONDS)
            elif is_screen_picture(path.name):
                self._warn_of_picture(path)
        self._note_frames_read_from(parts)
        return folder_came

    def _note_frames_read_from(self, parts: set[Path]) -> None:
        """Find the frames that a sidecar or `.ser` file belongs to."""
        for folder in {part.parent for part in parts}:
            try:
                frames = frames_read_from(parts, folder)
            except OSError as error:
                self._warn_once(error)
                continue
            for path in filter(self._takes, frames):
                self._note(path, self._signature(path), SETTLE_SECONDS)

    def _takes(self, path: Path) -> bool:
        below = path.relative_to(self._folder)
        return self._selection.takes(below) and not any(name.startswith(".") for name in below.parts)

    def _note(self, path: Path, signature: Signature | None, settle_seconds: float) -> None:
        """Remember to read a file that is new or has changed."""
        if signature is None or self._done.get(path) == signature:
            return
        if is_half_of_a_pair(path, signature):
            settle_seconds = HALF_PAIR_SECONDS
        due = settled_at = monotonic() + settle_seconds
        earlier = self._candidates.get(path)
        if earlier and earlier.signature == signature:  # its sidecar, announced with it, is no news
            settled_at = min(settled_at, earlier.settled_at)
            due = min(due, earlier.due)
        if earlier and may_grow(path):  # a stack that is added to all the time must be looked at all the same
            due = min(due, earlier.due)
        candidate = Candidate(signature, due, settled_at, resumed=earlier is not None and earlier.resumed)
        before = earlier.signature if earlier else self._done.get(path)
        if before and before.others != signature.others:  # a sidecar would change every frame
            self._taking.forget(path)
        elif earlier:
            candidate.delivered.update(earlier.delivered)
        self._candidates.put(path, candidate)
        for part in parts_of(path)[1:]:  # a `.ser` file that seemed to be on its own
            self._candidates.drop(part)

    def _rescan(self, watch: FolderWatch) -> Iterator[Failure]:
        """List the folder, for files that were not announced."""
        identity = _identity(self._folder)
        if identity is None:
            if not self._is_lost:
                self._is_lost = True
                gone = FrameError(f"The folder {self._folder} is gone; frames are read again once it is back.")
                yield Failure(self.name, str(self._folder), gone)
        elif self._is_lost or identity != self._identity or watch.has_ended:
            log.info("%s: the folder %s is back, or another has taken its place", self.name, self._folder)
            self._is_lost = False
            self._identity = identity
            watch.restart()
            self._note_backlog()
        else:
            if watch.mounts_changed:
                watch.restart()
            for path, signature in self._list().items():
                waiting = self._candidates.get(path)
                if waiting is None or waiting.signature != signature:
                    self._note(path, signature, SETTLE_SECONDS)

    def _list(self) -> dict[Path, Signature]:
        """Return all image files as they stand now, and forget those that were taken away."""
        errors: list[OSError] = []
        paths = set(filter(self._takes, frames_within(self._folder, errors.append, self._warn_of_picture)))
        for error in errors:
            self._warn_once(error)
        if not errors:
            self._done = {path: signature for path, signature in self._done.items() if path in paths}
            self._taking.forget_all_but(paths)
        return {path: signature for path in paths if (signature := self._signature(path))}

    def _signature(self, path: Path) -> Signature | None:
        """Return a file's signature, None where there is no such file, or none that can be looked at."""
        try:
            return signature_of(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_once(error)
            return None

    def _warn_of_picture(self, path: Path) -> None:
        """Tell once of each ending, or an operator whose program saves such files waits for atoms in vain."""
        ending = path.suffix.lower()
        if ending not in self._warned_of and self._takes(path):
            self._warned_of.add(ending)
            log.warning(
                "%s: %s is passed over, as are all %s files: they do not hold the counts. Have frames saved in one of "
                "the formats that are read: %s",
                self.name,
                path.name,
                ending,
                " ".join(sorted(SUFFIXES)),
            )

    def _warn_once(self, error: OSError) -> None:
        if error.filename not in self._warned_of:
            self._warned_of.add(error.filename)
            log.warning("%s: %s is left out (%s)", self.name, error.filename, error.strerror)

    def _read(self, path: Path, candidate: Candidate, *, in_order: bool) -> Iterator[Arrival | Failure]:
        """Yield what a file gives now, and see to it that it is looked at again if there may be more."""
        signature = self._signature(path)
        if signature is None:  # taken away again
            self._candidates.drop(path)
            return
        if signature.others != candidate.signature.others or (signature != candidate.signature and not may_grow(path)):
            self._note(path, signature, SETTLE_SECONDS)
            return
        if signature != candidate.signature:
            settled_at = monotonic() + SETTLE_SECONDS
            candidate = replace(candidate, signature=signature, settled_at=settled_at, attempts=0)
        stands_still = monotonic() >= candidate.settled_at
        waiting = yield from self._taking.take(path, candidate, stands_still=stands_still, in_order=in_order)
        if waiting:
            self._candidates.put(path, waiting)
            return
        self._candidates.drop(path)
        self._done[path] = signature
        # A file that changed while it was read is read again when it has settled.
        self._note(path, self._signature(path), SETTLE_SECONDS)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another of the same name; None where it is gone or its share is out of reach."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if S_ISDIR(status.st_mode) else None
