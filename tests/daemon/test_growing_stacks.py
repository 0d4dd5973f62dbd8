"""Stacks that grow while the camera writes: each image once, as soon as it is whole, and never a torn one."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.errors import FrameError
from daemon.frames import Frame
from daemon.readers import DEFAULT_LIMITS, extent_of, growing, read_frames
from daemon.sources import file_taking
from daemon.sources.directory_simulator import MrcWriter, tiff_writer
from daemon.sources.folder_watch import FolderWatch
from daemon.sources.growing_stack import SETTLE_SECONDS, GrowingStack
from daemon.sources.source import Arrival, Failure
from tests.daemon.watching import PATIENCE_SECONDS, Watching

Image = NDArray[np.uint16]
Add = Callable[[Image], None]
SHAPE = (40, 48)


def image(number: int) -> Image:
    return np.random.default_rng(number).integers(0, 4000, SHAPE, dtype=np.uint16)


class Mrc(AbstractContextManager[Add]):
    """An MRC file whose header gives a number from the start, or counts, or is filled in at the end."""

    def __init__(self, path: Path, announced: int = 0, counts: bool = False, extended_header_bytes: int = 0) -> None:
        self._writer = MrcWriter(
            path, SHAPE, announced=announced, counts=counts, extended_header_bytes=extended_header_bytes
        )
        self._number = 0

    def __enter__(self) -> Add:
        return self._add

    def _add(self, pixels: Image) -> None:
        self._writer.add(pixels)
        self._number += 1

    def __exit__(self, *_: object) -> None:
        self._writer.announce(self._number)
        self._writer.__exit__()


def write_slowly(opened: AbstractContextManager[Add], until: threading.Event, total: list[int]) -> None:
    """Write images in quick succession, so that the file never stands still, until one has been taken and some more."""
    with opened as add:
        number = 0
        while number < 3 or not (until.is_set() or number == 2000):
            add(image(number))
            number += 1
            if number > 1:
                sleep(SETTLE_SECONDS / 10)
        for last in range(number, number + 3):
            add(image(last))
    total.append(number + 3)


WRITERS: dict[str, Callable[[Path], AbstractContextManager[Add]]] = {
    "late.mrc": Mrc,
    "counting.mrc": partial(Mrc, counts=True),
    "extended.mrc": partial(Mrc, extended_header_bytes=4096),
    "raw.mrcs": partial(Mrc, announced=1),
    "pages.tif": tiff_writer,
}


@pytest.mark.parametrize("in_order", [True, False], ids=["local", "share"])
@pytest.mark.parametrize("name", WRITERS)
def test_images_arrive_once_each_while_the_camera_writes(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, name: str, in_order: bool
) -> None:
    if not in_order:
        monkeypatch.setattr(FolderWatch, "hears_everything", property(lambda _watch: False))
    watching.start()
    path, taken, total = watching.folder / name, threading.Event(), list[int]()
    writing = threading.Thread(target=write_slowly, args=[WRITERS[name](path), taken, total])
    writing.start()
    (first,) = watching.arrivals(1)
    assert writing.is_alive(), "the first image did not wait for the last"
    taken.set()
    writing.join(PATIENCE_SECONDS)
    arrivals = [first, *watching.arrivals(total[0] - 1)]

    assert [arrival.subject.name for arrival in arrivals] == [f"{path.stem}-{index:04d}" for index in range(total[0])]
    whole = [frame for frame in read_frames(path, source="camera", pixel_size_angstrom=0.1) if isinstance(frame, Frame)]
    assert [arrival.subject.frame_id for arrival in arrivals] == [frame.frame_id for frame in whole]
    for index, arrival in enumerate(arrivals):
        assert isinstance(arrival.subject, Frame)
        np.testing.assert_array_equal(arrival.subject.pixels, image(index))
        assert arrival.subject.calibration == whole[index].calibration
    assert watching.names(0) == []


def test_an_image_that_is_being_written_is_waited_for(watching: Watching) -> None:
    watching.start()
    with MrcWriter(watching.folder / "movie.mrc", SHAPE) as writer:
        writer.add(image(0))
        writer.add_part(image(1), 0.0, 0.6)
        assert watching.names(1) == ["movie-0000"]
        writer.add_part(image(1), 0.6, 1.0)
        (second,) = watching.arrivals(1)
        assert isinstance(second.subject, Frame)
        np.testing.assert_array_equal(second.subject.pixels, image(1))
        writer.add_part(image(2), 0.0, 0.1)
        assert watching.names(0) == []


def test_a_writer_that_stalls_is_reported_once_and_may_go_on(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_taking, "STALL_SECONDS", 0.5)
    watching.start()
    with MrcWriter(watching.folder / "movie.mrc", SHAPE) as writer:
        writer.add(image(0))
        writer.add_part(image(1), 0.0, 0.6)
        assert watching.arrivals(1)[0].subject.name == "movie-0000"
        failure = watching.next()
        assert isinstance(failure, Failure)
        assert "1 images are whole, image 1 (counted from 0) is cut short" in str(failure.error)
        assert watching.names(0) == []
        writer.add_part(image(1), 0.6, 1.0)
        assert watching.names(1) == ["movie-0001"]


@pytest.mark.parametrize("cut", [20, 100], ids=["in its directory", "all of its directory"])
def test_a_tiff_file_cut_in_its_last_page_gives_the_others_and_an_error(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cut: int
) -> None:
    monkeypatch.setattr(file_taking, "STALL_SECONDS", 0.5)
    content = write_stack(tmp_path / "pages.tif", 3)
    watching.start()
    path = watching.folder / "pages.tif"
    path.write_bytes(content[:-cut])
    assert [arrival.subject.name for arrival in watching.arrivals(2)] == ["pages-0000", "pages-0001"]
    failure = watching.next()
    assert isinstance(failure, Failure)
    assert "2 images are whole, image 2 (counted from 0) is cut short" in str(failure.error)
    path.write_bytes(content)
    assert watching.names(1) == ["pages-0002"]


def test_an_aborted_acquisition_is_reported_and_what_came_of_it_is_taken(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_taking, "STALL_SECONDS", 0.5)
    watching.start()
    with MrcWriter(watching.folder / "movie.mrc", SHAPE, announced=4) as writer:
        writer.add(image(0))
        writer.add(image(1))
        arrivals = watching.arrivals(2)
        assert [arrival.subject.name for arrival in arrivals] == ["movie-0000", "movie-0001"]
        assert all(isinstance(arrival.subject, Frame) and arrival.subject.images_in_file == 4 for arrival in arrivals)
        failure = watching.next()
        assert isinstance(failure, Failure)
        assert "2 images are whole, of 4 announced, no other image has begun" in str(failure.error)
        writer.add(image(2))
        writer.add(image(3))
        assert watching.names(2) == ["movie-0002", "movie-0003"]


@pytest.mark.parametrize("name", ["counting.mrc", "pages.tif"])
def test_a_slow_stack_yields_no_image_twice(watching: Watching, name: str) -> None:
    """Its first image stands still like a single frame, and is taken for one."""
    watching.start()
    names = []
    with WRITERS[name](watching.folder / name) as add:
        for number in range(3):
            add(image(number))
            names += watching.names(1)  # and then quiet for longer than a file takes to settle
    stem = Path(name).stem
    assert names == [stem, f"{stem}-0001", f"{stem}-0002"]
    assert watching.names(0) == []


@pytest.mark.parametrize("name", ["late.mrc", "pages.tif"])
def test_a_restart_amid_a_stack_finds_the_same_frames(watching: Watching, name: str) -> None:
    path = watching.folder / name
    watching.start()
    with WRITERS[name](path) as add:
        add(image(0))
        add(image(1))
        before = watching.arrivals(2)
        watching.stop()
        add(image(2))
        watching.start()
        after = watching.arrivals(3)
        assert all(arrival.resumed for arrival in after), "the results that are there will be found"
        assert [a.subject.frame_id for a in after[:2]] == [b.subject.frame_id for b in before]
        assert [a.subject.name for a in after[:2]] == [b.subject.name for b in before]
        add(image(3))
        assert watching.names(1) == [f"{path.stem}-0003"]


def test_a_stack_that_is_added_to_before_it_was_read_is_still_one_that_was_there(watching: Watching) -> None:
    with MrcWriter(watching.folder / "movie.mrc", SHAPE) as writer:
        writer.add(image(0))
        stop = threading.Event()
        outcomes = watching.new_source().arrivals(stop)
        assert next(outcomes) is None
        writer.add(image(1))
        arrived = []
        while len(arrived) < 2:
            if outcome := next(outcomes):
                arrived.append(outcome)
        stop.set()
        assert list(outcomes) in ([], [None])
    assert all(isinstance(arrival, Arrival) and arrival.resumed for arrival in arrived)


def test_a_single_frame_with_results_is_not_taken_again_when_it_becomes_a_stack(watching: Watching) -> None:
    with MrcWriter(watching.folder / "movie.mrc", SHAPE, counts=True) as writer:
        writer.add(image(0))
        watching.finished = {"movie.mrc"}
        watching.start()
        assert watching.names(0) == []
        writer.add(image(1))
        assert watching.names(1) == ["movie-0001"]


@pytest.mark.parametrize("name", ["late.mrc", "pages.tif"])
def test_a_stack_written_anew_is_taken_anew(watching: Watching, name: str) -> None:
    watching.start()
    for seed in (0, 10):
        with WRITERS[name](watching.folder / name) as add:
            add(image(seed))
            add(image(seed + 1))
        arrivals = watching.arrivals(2)
        for index, arrival in enumerate(arrivals):
            assert isinstance(arrival.subject, Frame)
            np.testing.assert_array_equal(arrival.subject.pixels, image(seed + index))
    assert watching.names(0) == []


def test_a_sidecar_that_comes_amid_a_stack_changes_all_its_frames(watching: Watching) -> None:
    watching.start()
    with MrcWriter(watching.folder / "movie.mrc", SHAPE) as writer:
        writer.add(image(0))
        writer.add(image(1))
        watching.arrivals(2)
        (watching.folder / "movie.json").write_text('{"voltage_kv": 80, "defocus_angstrom": [10, 20, 30, 40]}')
        again = watching.arrivals(2)
        writer.add(image(2))
        again += watching.arrivals(1)
    defoci = [arrival.subject.acquisition.defocus_angstrom for arrival in again if isinstance(arrival.subject, Frame)]
    assert defoci == [10, 20, 30]
    assert watching.names(0) == []


def test_one_mistake_in_the_sidecar_is_not_reported_at_every_image(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_taking, "RETRY_SECONDS", (0.05,))
    (watching.folder / "movie.json").write_text('{"pixel_size_angstrom": -1}')
    watching.start()
    with MrcWriter(watching.folder / "movie.mrc", SHAPE) as writer:
        writer.add(image(0))
        failure = watching.next()
        assert isinstance(failure, Failure)
        assert "movie.json: `pixel_size_angstrom` must be" in str(failure.error)
        for number in range(1, 4):
            writer.add(image(number))
            assert watching.names(0) == []
        (watching.folder / "movie.json").write_text("{}")
        assert watching.names(4) == [f"movie-{index:04d}" for index in range(4)]


def test_one_bad_page_costs_a_growing_stack_no_other(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_taking, "RETRY_SECONDS", (0.05,))
    watching.start()
    path = watching.folder / "movie.tif"
    pages = [image(number).astype(np.float32) for number in range(4)]
    pages[2][3, 3] = np.nan
    for number, page in enumerate(pages):
        tifffile.imwrite(path, page, append=number > 0)
        if number == 1:
            assert len(watching.arrivals(2)) == 2
    outcomes = [watching.next() for _ in range(2)]
    failure, last = outcomes
    assert isinstance(failure, Failure)
    assert "movie-0002: 1 pixels are NaN" in str(failure.error)
    assert isinstance(last, Arrival)
    assert last.subject.name == "movie-0003"
    assert watching.names(0) == []


def test_a_page_added_while_a_bad_one_is_tried_again_repeats_no_other(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_taking, "RETRY_SECONDS", (2.0,))
    watching.start()
    path = watching.folder / "movie.tif"
    pages = np.stack([image(number).astype(np.float32) for number in range(3)])
    pages[1, 3, 3] = np.nan
    tifffile.imwrite(path, pages, photometric="minisblack")
    assert [arrival.subject.name for arrival in watching.arrivals(2)] == ["movie-0000", "movie-0002"]
    tifffile.imwrite(path, pages[0] + 1, append=True)
    outcomes = [watching.next(), watching.next()]  # in either order: the bad one may be tried again in between
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    (added,) = [outcome for outcome in outcomes if isinstance(outcome, Arrival)]
    assert "movie-0001" in str(failure.error)
    assert added.subject.name == "movie-0003"
    assert watching.names(0) == []


def test_a_series_needs_to_know_how_long_it_is(watching: Watching) -> None:
    watching.start(in_series=True)
    taken, total = threading.Event(), list[int]()
    writing = threading.Thread(
        target=write_slowly, args=[WRITERS["pages.tif"](watching.folder / "pages.tif"), taken, total]
    )
    writing.start()
    with MrcWriter(watching.folder / "announced.mrc", SHAPE, announced=3) as writer:
        writer.add(image(0))
        writer.add(image(1))
        known = watching.arrivals(2)  # while those of the other file wait
        writer.add(image(2))
        known += watching.arrivals(1)
    assert all(isinstance(a.subject, Frame) and a.subject.images_in_file == 3 for a in known)
    assert [a.subject.name for a in known] == [f"announced-{index:04d}" for index in range(3)]
    taken.set()
    writing.join(PATIENCE_SECONDS)
    whole = watching.arrivals(total[0])
    assert all(isinstance(a.subject, Frame) and a.subject.images_in_file == total[0] for a in whole)


def test_an_ome_tiff_is_read_when_it_stands_still_and_added_to_without_repeats(watching: Watching) -> None:
    watching.start()
    path = watching.folder / "movie.ome.tif"
    for number in (2, 3):
        tifffile.imwrite(path, np.stack([image(index) for index in range(number)]), ome=True)
        names = watching.names(2 if number == 2 else 1)
    assert names == ["movie.ome-0002"]


# --- what is known of a file at a moment ------------------------------------------------------------------------------


def write_stack(path: Path, number: int) -> bytes:
    with WRITERS[path.name](path) as add:
        for index in range(number):
            add(image(index))
    return path.read_bytes()


@pytest.mark.parametrize("name", WRITERS)
def test_no_image_of_a_file_cut_anywhere_is_taken_for_whole_that_is_not(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ends = [len(write_stack(tmp_path_factory.mktemp("whole") / name, number)) for number in range(1, 5)]
    content = write_stack(tmp_path_factory.mktemp("whole") / name, 4)
    path = tmp_path_factory.mktemp("cut") / name
    images = [image(index) for index in range(4)]

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, len(content)), st.integers(0, len(content)), st.integers(0, 4))
    def check(length: int, within_bytes: int, known: int) -> None:
        path.write_bytes(content[:length])
        extent = extent_of(path, within_bytes)
        n_there = sum(end <= min(length, within_bytes) for end in ends)
        if extent is None:
            assert n_there == 0
            return
        assert n_there <= extent.whole <= min(length, within_bytes) // images[0].nbytes
        frames = list(read_frames(path, images=range(extent.whole))) if extent.whole else []
        for frame, expected in zip(frames, images, strict=False):
            assert isinstance(frame, Frame)
            np.testing.assert_array_equal(frame.pixels, expected)
        if known <= extent.whole:
            again = extent_of(path, within_bytes, known)
            assert again is not None
            assert again.whole == extent.whole
        if length == len(content):
            assert not extent.is_torn

    check()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(["a.mrc", "a.mrcs", "a.tif"]))
def test_garbage_has_an_extent_or_none_and_never_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("garbage") / name
    path.write_bytes(content)
    extent_of(path)


def test_a_file_emptied_while_it_is_read_stops_nothing(tmp_path: Path) -> None:
    """Had it been mapped into memory, the kernel would end the process."""
    path = tmp_path / "late.mrc"
    write_stack(path, 3)
    frames = read_frames(path, images=range(3))
    assert isinstance(next(frames), Frame)
    path.write_bytes(b"")
    rest = list(frames)
    assert [type(frame) for frame in rest] == [FrameError, FrameError]


def test_what_is_surely_written() -> None:
    def look(stack: GrowingStack, size: int, now: float, **how: bool) -> int:
        return stack.sure_bytes(size, now, **{"stands_still": False, "in_order": True} | how)

    stack = GrowingStack()
    assert look(stack, 100, 0) == 0, "seen for the first time, it may be written over"
    assert look(stack, 200, 1) == 199
    assert look(stack, 200, 2) == 0, "changed without growing"
    assert look(stack, 150, 3) == 0, "shorter"
    assert look(stack, 200, 4) == 199
    assert look(stack, 200, 5, stands_still=True) == 200

    stack = GrowingStack()
    assert look(stack, 100, 0, in_order=False) == 0
    assert look(stack, 200, 0.1, in_order=False) == 0, "what came just now may have holes"
    assert look(stack, 300, 1, in_order=False) == 100
    assert look(stack, 400, 2, in_order=False) == 300


def test_frames_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "late.mrc"
    write_stack(path, 2)
    with pytest.raises(FrameError, match="are more than the"):
        growing.read_growing(path, range(2), DEFAULT_LIMITS.__class__(frame_pixels=10))
