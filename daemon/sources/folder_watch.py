"""The kernel's announcements of what happens in a folder."""

import logging
import sys
from pathlib import Path
from queue import Empty, SimpleQueue
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

log = logging.getLogger(__name__)

_EVENTS = [DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileCreatedEvent, FileModifiedEvent, FileMovedEvent]


class Announcement(NamedTuple):
    """Something happened to a file, or a folder came. A file that was renamed into the folder is complete."""

    path: Path
    renamed_in: bool
    is_folder: bool


class FolderWatch(FileSystemEventHandler):
    """Collects announcements while it is open. Where the kernel refuses to watch, there are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._announcements: SimpleQueue[Announcement] = SimpleQueue()

    def __enter__(self) -> Self:
        observer = _new_observer()
        observer.schedule(self, str(self._folder), recursive=True, event_filter=_EVENTS)
        try:
            observer.start()
        except OSError as error:
            log.warning("%s cannot be watched (%s); it is listed every few seconds instead", self._folder, error)
        self._observer = observer
        return self

    def __exit__(self, *_: object) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def restart(self) -> None:
        """Watch anew, after the folder was away."""
        self.__exit__()
        self.__enter__()

    def next(self, timeout_seconds: float) -> Announcement | None:
        """Return the next announcement, or None if none comes in time."""
        try:
            return self._announcements.get(timeout=max(timeout_seconds, 0.001))
        except Empty:
            return None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in its own thread."""
        moved = event.event_type == "moved"
        path = str(event.dest_path if moved else event.src_path)
        if path:  # a file moved out has no destination
            self._announcements.put(Announcement(Path(path), moved, event.is_directory))


def _new_observer() -> BaseObserver:
    if sys.platform != "linux":
        return Observer()
    from watchdog.observers.inotify import InotifyObserver

    # Plain events do not tell a file that was moved in from elsewhere from one being created.
    return InotifyObserver(generate_full_events=True)
