"""A watched folder: whatever way files come, each is read once, whole, and never too early."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue

import numpy as np
import pytest

from daemon.filesystems import file_system_of
from daemon.inbox import Policy
from daemon.sources import directory
from daemon.sources.directory import DirectorySource
from daemon.sources.directory_simulator import rename_in, write_in_pieces
from daemon.sources.source import Arrival, Failure

WriteFrame = Callable[..., Path]
PATIENCE_SECONDS = 60.0  # the machine may be busy
QUIET_SECONDS = 1.0


class Watching:
    """A running source and what it has yielded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: set[str] = set()
        self._arrived: SimpleQueue[Arrival | Failure] = SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, policy: Policy = "lossless") -> None:
        source = DirectorySource("camera", self.folder, policy, 0.1, self._has_newer_results)
        self._thread = threading.Thread(target=self._run, args=[source])
        self._thread.start()

    def _has_newer_results(self, path: Path, folder: PurePosixPath, changed_at: float) -> bool:
        return path.name in self.finished

    def _run(self, source: DirectorySource) -> None:
        for arrival in source.arrivals(self._stop):
            self._arrived.put(arrival)

    def next(self) -> Arrival | Failure:
        return self._arrived.get(timeout=PATIENCE_SECONDS)

    def names(self, number: int) -> list[str]:
        """The next frames' names, and nothing after them."""
        arrivals = [self.next() for _ in range(number)]
        with pytest.raises(Empty):
            print("unexpected:", self._arrived.get(timeout=QUIET_SECONDS))  # noqa: T201
        return [arrival.frame.name for arrival in arrivals if isinstance(arrival, Arrival)]

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(PATIENCE_SECONDS)
            assert not self._thread.is_alive()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    (tmp_path / "incoming").mkdir()
    watching = Watching(tmp_path / "incoming")
    yield watching
    watching.stop()


def test_new_files_arrive_once_however_they_come(watching: Watching, tmp_path: Path, write_frame: WriteFrame) -> None:
    watching.start()
    folder = watching.folder
    write_frame(folder / "written.npy")
    rename_in(write_frame(tmp_path / "renamed.npy", seed=1), folder)
    write_frame(tmp_path / "moved.npy", seed=2).rename(folder / "moved.npy")
    write_frame(folder / "session 1" / "a" / "deep.npy", seed=3)
    write_frame(tmp_path / "whole folder" / "within.npy", seed=4)
    (tmp_path / "whole folder").rename(folder / "whole folder")
    (folder / "notes.txt").write_text("not a frame")
    (folder / "frame.overlay.png").write_bytes(b"our own result")
    (folder / ".hidden.npy").write_bytes(b"half")
    assert sorted(watching.names(5)) == ["deep", "moved", "renamed", "within", "written"]


def test_a_file_written_slowly_is_read_whole(watching: Watching, tmp_path: Path, write_frame: WriteFrame) -> None:
    watching.start()
    file = write_frame(tmp_path / "slow.npy")
    # Longer pauses than a file needs to count as settled, so that it is tried, and found cut short, on the way.
    write_in_pieces(file, watching.folder, pieces=3, pause_seconds=directory.SETTLE_SECONDS + 0.3)
    arrival = watching.next()
    assert isinstance(arrival, Arrival)
    np.testing.assert_array_equal(arrival.frame.pixels, np.load(file))
    assert watching.names(0) == []


def test_a_file_that_stays_torn_fails_once_and_heals(
    watching: Watching, tmp_path: Path, write_frame: WriteFrame
) -> None:
    watching.start()
    whole = write_frame(tmp_path / "torn.npy").read_bytes()
    torn = watching.folder / "torn.npy"
    torn.write_bytes(whole[:1000])
    write_frame(watching.folder / "good.npy")
    first, second = watching.next(), watching.next()
    assert isinstance(first, Arrival)
    assert first.frame.name == "good", "a torn file holds nobody up"
    assert isinstance(second, Failure)
    assert second.origin == str(torn)
    assert "cut short" in str(second.error)
    torn.write_bytes(whole)
    assert watching.names(1) == ["torn"]


def test_a_changed_file_is_read_again(watching: Watching, write_frame: WriteFrame) -> None:
    watching.start()
    write_frame(watching.folder / "live.npy", blobs=3)
    first = watching.next()
    write_frame(watching.folder / "live.npy", blobs=4)
    second = watching.next()
    assert isinstance(first, Arrival)
    assert isinstance(second, Arrival)
    assert first.frame.frame_id != second.frame.frame_id


def test_files_there_at_start_are_read_unless_finished(watching: Watching, write_frame: WriteFrame) -> None:
    for index in range(3):
        write_frame(watching.folder / f"old{index}.npy", seed=index)
    watching.finished = {"old1.npy"}
    watching.start()
    arrivals = [watching.next() for _ in range(2)]
    assert all(isinstance(arrival, Arrival) and arrival.resumed for arrival in arrivals)
    assert watching.names(0) == []


def test_live_view_starts_with_the_newest_file(watching: Watching, write_frame: WriteFrame) -> None:
    for index in range(3):
        os.utime(write_frame(watching.folder / f"old{index}.npy", seed=index), (1000 + index, 1000 + index))
    watching.start("latest")
    assert watching.names(1) == ["old2"]
    write_frame(watching.folder / "new.npy")
    assert watching.names(1) == ["new"]


def test_a_stack_arrives_image_by_image(watching: Watching, tmp_path: Path, write_frame: WriteFrame) -> None:
    watching.start()
    images = [np.load(write_frame(tmp_path / "image.npy", seed=seed)) for seed in range(3)]
    np.save(watching.folder / "movie.npy", np.stack(images))
    assert watching.names(3) == ["movie-0000", "movie-0001", "movie-0002"]


def test_files_are_found_without_announcements_and_after_the_folder_was_gone(
    watching: Watching, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network share, where the kernel says nothing and the server may restart."""
    monkeypatch.setattr(directory, "RESCAN_SECONDS", 0.1)
    monkeypatch.setattr(directory.FolderWatch, "next", lambda _self, _timeout: threading.Event().wait(0.05) or None)
    watching.start()
    write_frame(watching.folder / "first.npy")
    assert watching.names(1) == ["first"]
    away = watching.folder.rename(watching.folder.with_name("away"))
    failure = watching.next()
    assert isinstance(failure, Failure)
    assert "is gone" in str(failure.error)
    away.rename(watching.folder)
    write_frame(watching.folder / "second.npy")
    assert watching.names(1) == ["second"]


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    share = tmp_path / "camera share"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\n//server/data {str(share).replace(' ', chr(92) + '040')} cifs rw 0 0\n"
        f"server:/data {tmp_path}/nfs nfs4 rw 0 0\nsshfs {tmp_path}/ssh fuse.sshfs rw 0 0\n"
    )
    kinds = {
        name: file_system_of(tmp_path / name, mounts) for name in ("here", "camera share/day 1", "nfs", "ssh/deep")
    }
    assert [system.kind for system in kinds.values()] == ["local", "SMB", "NFS", "FUSE"]
    assert [system.needs_polling for system in kinds.values()] == [False, True, True, True]
    assert kinds["camera share/day 1"].mount_point == share
