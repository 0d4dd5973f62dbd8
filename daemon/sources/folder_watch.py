"""The kernel's announcements of what happens in a folder."""

import logging
import sys
from pathlib import Path
from queue import Empty, Full, Queue
from typing import NamedTuple, Self

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from daemon.filesystems import FileSystem, file_systems_within

_MOST_WAITING = 10_000

log = logging.getLogger(__name__)

_EVENTS = [DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent]


class Announcement(NamedTuple):
    """Something happened to a file, or a folder came. A file that was renamed into the folder is complete."""

    path: Path
    renamed_in: bool
    is_folder: bool


class FolderWatch(FileSystemEventHandler):
    """Collects announcements while it is open. Where the kernel refuses to watch, there are none.

    Those that nobody takes in time are forgotten; the whole folder is announced in their place.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._announcements: Queue[Announcement] = Queue(_MOST_WAITING)
        self._has_forgotten = False

    def __enter__(self) -> Self:
        observer = _new_observer()
        observer.schedule(self, str(self._folder), recursive=True, event_filter=_EVENTS)
        self._file_systems = file_systems_within(self._folder)
        shares = [system for system in self._file_systems if system.needs_polling]
        try:
            observer.start()
        except OSError as error:
            log.warning("%s cannot be watched (%s); it is listed every second instead", self._folder, error)
        else:
            _say_how(self._folder, shares)
        self._observer = observer
        self._is_local = not shares
        return self

    def __exit__(self, *_: object) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def restart(self) -> None:
        """Watch anew, after the folder was away or something was mounted below it."""
        self.__exit__()
        self.__enter__()

    @property
    def mounts_changed(self) -> bool:
        """Whether something was mounted in the folder or taken away; the kernel does not announce that either."""
        return file_systems_within(self._folder) != self._file_systems

    @property
    def hears_everything(self) -> bool:
        """Whether nothing comes into the folder unannounced."""
        return self._is_local and self._observer.is_alive() and not self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether the kernel has stopped watching, as it does when the folder is deleted."""
        return self._observer.is_alive() and not all(emitter.is_alive() for emitter in self._observer.emitters)

    def next(self, timeout_seconds: float) -> Announcement | None:
        """Return the next announcement, or None if none comes in time."""
        if self._has_forgotten:
            self._has_forgotten = False
            return Announcement(self._folder, renamed_in=False, is_folder=True)
        try:
            return self._announcements.get(timeout=max(timeout_seconds, 0.001))
        except Empty:
            return None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        moved = event.event_type == "moved"
        path = str(event.dest_path if moved else event.src_path)
        if path:  # a file moved out has no destination
            try:
                self._announcements.put_nowait(Announcement(Path(path), moved, event.is_directory))
            except Full:
                self._has_forgotten = True


def _say_how(folder: Path, shares: list[FileSystem]) -> None:
    if not shares:
        log.info("%s is watched: the kernel announces new files", folder)
    for share in shares:
        log.info(
            "%s is listed every second: %s is on %s (%s), where files of other computers are not announced",
            folder, share.mount_point, share.kind, share.type,
        )  # fmt: skip


def _new_observer() -> BaseObserver:
    if sys.platform != "linux":
        return Observer()
    from watchdog.observers.inotify import InotifyObserver

    # Plain events do not tell a file that was moved in from elsewhere from one being created.
    return InotifyObserver(generate_full_events=True)
