"""A watched folder: whatever way files come, each is read once, whole, and never too early."""

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from watchdog.observers.api import BaseObserver, EventEmitter

from daemon.publish.files import OVERLAY_SUFFIX
from daemon.readers import may_hold_frames
from daemon.sources import directory, file_taking, folder_watch
from daemon.sources.candidates import Candidate, Candidates, Signature
from daemon.sources.directory_simulator import rename_in, write_in_pieces
from daemon.sources.folder_watch import Announcement, FolderWatch
from daemon.sources.source import Arrival, Failure
from tests.daemon.watching import Watching

WriteFrame = Callable[..., Path]


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


def test_pictures_for_the_screen_are_passed_over_and_told_of_once(
    watching: Watching, write_frame: WriteFrame, caplog: pytest.LogCaptureFixture
) -> None:
    (watching.folder / "before.webp").write_bytes(b"a picture that was there")
    watching.start()
    write_frame(watching.folder / "first.npy")
    watching.next()  # from here on the folder is watched
    for name in ("a.jpg", "b.JPG", "c.bmp"):
        (watching.folder / name).write_bytes(b"a picture")
    write_frame(watching.folder / "last.npy", seed=1)

    assert watching.names(1) == ["last"]
    told = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert [message.split(" is passed over, as are all ")[1].split()[0] for message in told] == [
        ".webp",
        ".jpg",
        ".bmp",
    ]


def test_a_sidecar_written_first_does_not_delay_a_frame_renamed_in(
    watching: Watching, tmp_path: Path, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching.start()
    write_frame(watching.folder / "first.npy", seed=1)
    watching.next()  # from here on the folder is watched
    monkeypatch.setattr(directory, "SETTLE_SECONDS", 1000.0)
    hidden = write_frame(tmp_path / "frame.npy").rename(watching.folder / ".frame.npy.part")
    # So close together that both are announced at once.
    (watching.folder / "frame.json").write_text('{"pixel_size_angstrom": 0.1}')
    hidden.rename(watching.folder / "frame.npy")

    arrival = watching.next()

    assert isinstance(arrival, Arrival)
    assert arrival.subject.calibration is not None
    assert arrival.subject.calibration.pixel_size_angstrom == 0.1


def test_a_file_written_slowly_is_read_whole(watching: Watching, tmp_path: Path, write_frame: WriteFrame) -> None:
    watching.start()
    file = write_frame(tmp_path / "slow.npy")
    # Longer pauses than a file needs to count as settled, so that it is tried, and found cut short, on the way.
    write_in_pieces(file, watching.folder, pieces=3, pause_seconds=directory.SETTLE_SECONDS + 0.3)
    arrival = watching.next()
    assert isinstance(arrival, Arrival)
    np.testing.assert_array_equal(arrival.subject.pixels, np.load(file))
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
    assert first.subject.name == "good", "a torn file holds nobody up"
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
    assert first.subject.frame_id != second.subject.frame_id


@pytest.mark.parametrize("copied", [False, True], ids=["new", "copied with its old time"])
def test_a_file_renamed_over_another_is_read_once_and_in_its_place(
    watching: Watching, tmp_path: Path, write_frame: WriteFrame, copied: bool
) -> None:
    watching.start()
    for seed, number in enumerate((3, 4, 5)):
        frame = write_frame(tmp_path / "live.npy", blobs=number, seed=seed)
        pixels = np.load(frame)
        if copied:
            os.utime(frame, (1000 - seed, 1000 - seed))
        rename_in(frame, watching.folder)
        (arrival,) = watching.arrivals(1)
        np.testing.assert_array_equal(arrival.subject.pixels, pixels)  # type: ignore[union-attr]
    assert watching.names(0) == []


def test_a_file_replaced_while_it_is_waited_for_is_read_as_it_is_then(
    watching: Watching, tmp_path: Path, write_frame: WriteFrame
) -> None:
    watching.start()
    whole = write_frame(tmp_path / "frame.npy", seed=1).read_bytes()
    (watching.folder / "frame.npy").write_bytes(whole[: len(whole) // 2])  # and it goes on being written
    other = write_frame(tmp_path / "frame.npy", seed=2)
    pixels = np.load(other)
    rename_in(other, watching.folder)
    (arrival,) = watching.arrivals(1)
    np.testing.assert_array_equal(arrival.subject.pixels, pixels)  # type: ignore[union-attr]
    assert watching.names(0) == []


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


# --- folders and files in trouble ------------------------------------------------------------------------------------


def test_an_entry_that_cannot_be_looked_at_stops_nothing(watching: Watching, write_frame: WriteFrame) -> None:
    (watching.folder / "loop.png").symlink_to("loop.png")
    watching.start()
    write_frame(watching.folder / "first.npy")
    assert watching.names(1) == ["first"]
    (watching.folder / "later.png").symlink_to("later.png")
    (watching.folder / "described.json").symlink_to("described.json")
    write_frame(watching.folder / "second.npy")
    assert watching.names(1) == ["second"]


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EHOSTDOWN])
def test_a_share_that_goes_away_comes_back(
    watching: Watching, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(directory, "RESCAN_SECONDS", 0.1)
    out_of_reach = threading.Event()
    stat = Path.stat

    def stat_of_share(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if out_of_reach.is_set() and path == watching.folder:
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat_of_share)
    watching.start()
    out_of_reach.set()
    failure = watching.next()
    assert isinstance(failure, Failure)
    assert "is gone" in str(failure.error)
    out_of_reach.clear()
    write_frame(watching.folder / "back.npy")
    assert watching.names(1) == ["back"]


def test_a_folder_in_the_place_of_another_is_watched_anew(
    watching: Watching, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "RESCAN_SECONDS", 0.1)
    watching.start()
    write_frame(watching.folder / "first.npy")
    assert watching.names(1) == ["first"]
    watching.folder.rename(watching.folder.with_name("yesterday"))
    write_frame(watching.folder / "second.npy")
    while not isinstance(arrival := watching.next(), Arrival):
        assert "is gone" in str(arrival.error)  # it may have been looked for in between
    assert arrival.subject.name == "second"
    for pause in ("RESCAN_SECONDS", "UNANNOUNCED_RESCAN_SECONDS"):  # from now on only announcements tell
        monkeypatch.setattr(directory, pause, 1e6)
    write_frame(watching.folder / "third.npy")
    assert watching.names(1) == ["third"]


def test_files_taken_away_are_forgotten(watching: Watching, write_frame: WriteFrame) -> None:
    source = watching.new_source()
    kept, deleted = (write_frame(watching.folder / f"{index}.npy", seed=index) for index in range(2))
    source._done = source._list()
    deleted.unlink()
    source._list()
    assert set(source._done) == {kept}


def test_a_folder_that_the_kernel_refuses_to_watch_is_listed_instead(
    watching: Watching, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refused(BaseObserver):
        def start(self) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(folder_watch, "_new_observer", lambda: Refused(EventEmitter))
    monkeypatch.setattr(directory, "RESCAN_SECONDS", 1e6)
    watching.start()
    write_frame(watching.folder / "frame.npy")
    assert watching.names(1) == ["frame"]
    assert "cannot be watched" in caplog.text
    assert "inotify watch limit reached" in caplog.text


def test_announcements_that_nobody_takes_become_one_of_the_folder(
    tmp_path: Path, write_frame: WriteFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_watch, "_MOST_WAITING", 2)
    with FolderWatch(tmp_path) as watch:
        for index in range(4):
            write_frame(tmp_path / f"{index}.npy", seed=index)
        sleep(0.5)
        assert watch._announcements.qsize() == 2
        assert watch.next(0.0) == Announcement(tmp_path, renamed_in=False, is_folder=True)


# --- files that belong together --------------------------------------------------------------------------------------


def test_a_sidecar_that_comes_later_is_heeded(watching: Watching, write_frame: WriteFrame) -> None:
    watching.start()
    write_frame(watching.folder / "frame.npy")
    first = watching.next()
    (watching.folder / "frame.json").write_text('{"voltage_kv": 80}')
    second = watching.next()
    assert isinstance(first, Arrival)
    assert isinstance(second, Arrival)
    assert first.subject.acquisition.voltage_kv is None
    assert second.subject.acquisition.voltage_kv == 80
    (watching.folder / "other.json").write_text("{}")
    assert watching.names(0) == []


def test_results_older_than_the_sidecar_are_not_the_last_word(watching: Watching, write_frame: WriteFrame) -> None:
    file = write_frame(watching.folder / "frame.npy")
    sidecar = file.with_suffix(".json")
    sidecar.write_text("{}")
    os.utime(sidecar, (4e9, 4e9))
    watching.start()
    arrival = watching.next()
    assert isinstance(arrival, Arrival)
    assert arrival.resumed
    assert arrival.described_at == 4e9
    assert watching.changed_at == {"frame.npy": 4e9}


@pytest.mark.parametrize("order", [("tia.emi", "tia_1.ser"), ("tia_1.ser", "tia.emi")])
def test_a_pair_of_tia_is_one_frame_whichever_half_comes_first(
    watching: Watching, tmp_path: Path, order: tuple[str, str]
) -> None:
    write_tia_pair(tmp_path)
    watching.start()
    for name in order:
        rename_in(tmp_path / name, watching.folder)
        sleep(2 * directory.SETTLE_SECONDS)
    assert watching.names(1) == ["tia"]


def test_the_other_half_of_a_pair_may_come_very_late_or_never(
    watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "HALF_PAIR_SECONDS", 0.1)
    monkeypatch.setattr(file_taking, "RETRY_SECONDS", (0.1,))
    write_tia_pair(tmp_path)
    watching.start()
    rename_in(tmp_path / "tia.emi", watching.folder)
    failure = watching.next()
    assert isinstance(failure, Failure)
    assert "tia_1.ser, which is not beside it" in str(failure.error)
    rename_in(tmp_path / "tia_1.ser", watching.folder)
    assert watching.names(1) == ["tia"]
    (tmp_path / "tia_1.ser").rename(watching.folder / "alone_1.ser")
    assert watching.names(1) == ["alone_1"]


def test_an_emi_that_comes_when_its_ser_was_read_gives_the_frame_once_more(
    watching: Watching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "HALF_PAIR_SECONDS", 0.1)
    write_tia_pair(tmp_path)
    watching.start()
    rename_in(tmp_path / "tia_1.ser", watching.folder)
    (alone,) = watching.arrivals(1)
    rename_in(tmp_path / "tia.emi", watching.folder)
    (pair,) = watching.arrivals(1)
    assert (alone.subject.name, pair.subject.name) == ("tia_1", "tia")
    np.testing.assert_array_equal(alone.subject.pixels, pair.subject.pixels)  # type: ignore[union-attr]
    assert watching.names(0) == []


def write_tia_pair(folder: Path) -> None:
    """As TIA does, with the least that can be read."""
    n, side, metres_per_pixel = 1, 40, 2e-11
    pixels = np.arange(side * side, dtype="<u2")
    dimension = struct.pack("<IddII6sI", n, 0, 1, 0, 6, b"Number", 0)
    element = struct.pack("<ddIddIHII", 0, metres_per_pixel, 0, 0, metres_per_pixel, 0, 2, side, side)
    element += pixels.tobytes() + struct.pack("<HHI", 16722, 0, 1_700_000_000)
    table = 30 + len(dimension)
    start = table + 8 * n
    offsets = struct.pack("<2I", start, start + len(element) - 8)
    header = struct.pack("<HHHIIIIII", 0x4949, 407, 528, 16674, 16722, n, n, table, 1)
    (folder / "tia_1.ser").write_bytes(header + dimension + offsets + element)
    (folder / "tia.emi").write_bytes(
        b"\0\1binary<ObjectInfo><ExperimentalDescription><Root></Root></ExperimentalDescription>"
        b"<AcquireDate>Sun Feb 21 17:50:18 2016</AcquireDate><AcquireInfo><DwellTimePath>0.5</DwellTimePath>"
        b"<CameraNamePath>Ceta</CameraNamePath></AcquireInfo></ObjectInfo>\0\2"
    )


def test_one_bad_image_costs_a_stack_no_other(
    watching: Watching, write_frame: WriteFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_taking, "RETRY_SECONDS", (0.1, 0.1))
    images = np.stack([np.load(write_frame(tmp_path / "image.npy", seed=seed)) for seed in range(4)])
    images[1, 3, 3] = np.nan
    watching.start()
    np.save(watching.folder / "movie.npy", images)
    arrivals = [watching.next() for _ in range(4)]
    names = [arrival.subject.name for arrival in arrivals if isinstance(arrival, Arrival)]
    assert names == ["movie-0000", "movie-0002", "movie-0003"]
    assert isinstance(arrivals[3], Failure), "reported last, for it was tried again"
    assert str(arrivals[3].error).startswith("movie-0001: 1 pixels are NaN")
    assert watching.names(0) == []


def test_stopping_does_not_wait_for_the_rest_of_a_stack(
    watching: Watching, write_frame: WriteFrame, tmp_path: Path
) -> None:
    images = [np.load(write_frame(tmp_path / "image.npy", seed=seed)) for seed in range(9)]
    np.save(watching.folder / "movie.npy", np.stack(images))
    stop, arrived = threading.Event(), []
    for arrival in filter(None, watching.new_source().arrivals(stop)):
        arrived.append(arrival)
        stop.set()
    assert len(arrived) == 1


# --- many files ------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_once_however_many_files_it_holds(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(50):
        (watching.folder / f"{index}.emi").touch()
        (watching.folder / f"{index}_1.ser").touch()
    listed, scandir = [], os.scandir

    def count(folder: Path) -> object:
        listed.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", count)
    assert {path.suffix for path in watching.new_source()._list()} == {".emi"}
    assert len(listed) == 1


def test_the_next_of_very_many_files_is_found_at_once() -> None:
    candidates, signature = Candidates(), Signature((1, 1), ())
    for index in range(20_000):  # looking through all of them for each would take minutes
        candidates.put(Path(f"old{index}"), Candidate(signature, due=index, resumed=True))
    candidates.put(Path("new"), Candidate(signature, due=5))
    candidates.put(Path("old0"), Candidate(signature, due=30_000, resumed=True))
    order = []
    while found := candidates.due(now=25_000):
        assert candidates.next_due() <= found[1].due
        order.append(found[0].name)
        candidates.drop(found[0])
    assert order == ["new", *(f"old{index}" for index in range(1, 20_000))]
    assert candidates.next_due() == 30_000


def test_run_and_process_agree_on_what_a_frame_is() -> None:
    assert may_hold_frames("pt.atoms.0001.dm4")
    assert not may_hold_frames("pt" + OVERLAY_SUFFIX)
