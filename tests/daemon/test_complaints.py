"""What users of other programs complain of: docs/reports/complaints.md is whole, and what no other test there holds."""

import ast
import os
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event, active_count

import numpy as np
import pytest
import zmq
from scipy.spatial import cKDTree

from daemon.drops import Drops
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.publish.header import result_header
from daemon.readers import DEFAULT_LIMITS, read_frames
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser, Recognition
from daemon.sources.connection import Place
from daemon.sources.formats import FORMATS
from daemon.sources.source import Arrival
from daemon.sources.zeromq import ZeroMQSource
from tests.daemon.wire import has, send, shots, take, values_in

REPOSITORY = Path(__file__).parents[2]
SAMPLES = REPOSITORY / "daemon" / "demo" / "samples"
COMPLAINTS = 19


def rows() -> list[tuple[str, str]]:
    lines = (REPOSITORY / "docs" / "reports" / "complaints.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [(complaint.strip(), tests) for complaint, tests in cells[1:]]


def named_tests() -> list[str]:
    return sorted({test for _, tests in rows() for test in re.findall(r"`([^`]+::[^`]+)`", tests)})


def test_every_complaint_has_tests_or_is_said_to_be_open() -> None:
    assert len(rows()) == COMPLAINTS
    assert [complaint for complaint, tests in rows() if "::" not in tests and "*later*" not in tests] == []


@pytest.mark.parametrize("name", named_tests())
def test_each_test_that_is_named_exists(name: str) -> None:
    file, *path = name.split("::")
    body = ast.parse((REPOSITORY / file).read_text(encoding="utf-8")).body
    for part in path:
        (found,) = [item for item in body if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name == part]
        body = found.body


def test_nothing_grows_when_a_detector_restarts_again_and_again() -> None:
    source = ZeroMQSource(
        "camera", Place("tcp://127.0.0.1:*", bind=True), FORMATS["dectris-v1"].decoder(), "lossless",
        None, DEFAULT_LIMITS, 2**20, Drops(),
    )  # fmt: skip
    descriptors, threads = [], []
    with zmq.Context() as context, closing(source.arrivals(Event())) as arrivals:  # type: ignore[type-var]
        assert next(arrivals) is None
        for _ in range(40):
            with context.socket(zmq.PUSH) as detector:  # a new process: its series count from 1 again
                detector.connect(source.endpoint)
                send(detector, FORMATS["dectris-v1"].simulator().series(shots(2), 2))
                assert values_in(take(arrivals, has(2))) == [0, 1]
            take(arrivals, lambda _: source.senders == 0)
            descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
            threads.append(active_count())
    for held in (descriptors, threads):  # of the whole process, where others may just come or go
        assert min(held[-10:]) <= max(held[5:15])


@pytest.fixture(scope="module")
def graphene() -> Recogniser:
    return Recogniser(find_model("graphene"))


def sheet() -> Frame:
    (frame,) = read_frames(SAMPLES / "graphene-holes.tif")
    assert isinstance(frame, Frame)
    return replace(frame, pixels=np.ascontiguousarray(frame.pixels[:512, :512]))


def positions_in(recognition: Recognition) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    return np.column_stack([recognition.table[name].to_numpy() for name in ("x_angstrom", "y_angstrom")])


def test_a_sheet_of_inverted_contrast_has_the_same_atoms(graphene: Recogniser) -> None:
    frame = sheet()
    pixels = frame.pixels.astype(np.float32)
    inverted = replace(frame, pixels=pixels.max() + pixels.min() - pixels)
    as_it_is, upside_down = positions_in(graphene.recognise(frame)), positions_in(graphene.recognise(inverted))
    assert len(as_it_is) > 100
    for some, others in ((as_it_is, upside_down), (upside_down, as_it_is)):
        distances, _ = cKDTree(others).query(some)
        assert (distances < 0.5).mean() > 0.98  # Å; a bond has 1.42


@pytest.mark.parametrize("source", [*CalibrationSource])
def test_results_say_where_their_pixel_size_came_from(graphene: Recogniser, source: CalibrationSource) -> None:
    frame = sheet()
    size = 0.12 if frame.calibration is None else frame.calibration.pixel_size_angstrom
    known = None if source is CalibrationSource.ESTIMATED else Calibration(size, source)
    recognition = graphene.recognise(replace(frame, calibration=known))
    header = result_header(Arrival("camera", "sheet.tif", frame, read_ms=0.0), recognition)
    assert header["calibration_source"] == str(source)
    assert header["pixel_size_angstrom"] == pytest.approx(size, rel=0.02)
