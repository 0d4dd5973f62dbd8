"""Result files: complete or absent, one stem a frame, and never outside the results directory."""

import errno
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from daemon.atoms import atom_table, header_of, read_parquet
from daemon.errors import ConfigurationError
from daemon.frames import Calibration, CalibrationSource, Frame, make_frame_id
from daemon.publish.files import FilePublisher, replacing, safe_name
from daemon.publish.header import result_table
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival


def arrival_of(name: str, origin: str = "/data/frame.tif", folder: str = "", seed: int = 0) -> Arrival:
    pixels = np.random.default_rng(seed).normal(100, 10, (64, 64)).astype(np.float32)
    calibration = Calibration(0.1, CalibrationSource.SIDECAR)
    frame = Frame(pixels, make_frame_id("camera", None, 0, pixels), name, calibration)
    return Arrival("camera", origin, frame, read_ms=1.5, folder=PurePosixPath(folder))


def recognition_of(arrival: Arrival) -> Recognition:
    assert arrival.subject.calibration
    table = atom_table(np.array([[1.0, 2.0], [3.0, 4.0]]), 0.1, "atom", np.ones(2), np.full(2, 0.1), ["C", "C"])
    times = {"prepare": 1.0, "infer": 2.0, "decode": 3.0}
    return Recognition(
        arrival.subject, arrival.subject.calibration, table, ["odd"], times, "graphene", "ab" * 32, "test"
    )


def table_of(arrival: Arrival) -> pa.Table:
    return result_table(arrival, recognition_of(arrival))


@pytest.fixture
def publisher(tmp_path: Path) -> FilePublisher:
    return FilePublisher(tmp_path / "results", overlays=True)


def publish(publisher: FilePublisher, arrival: Arrival) -> str:
    recognition = recognition_of(arrival)
    stem = publisher.write_tables(arrival, result_table(arrival, recognition))
    publisher.write_overlay(stem, recognition)
    return stem.relative_to(publisher.directory).as_posix()


def test_tables_and_overlay_can_be_read_and_tell_where_they_come_from(publisher: FilePublisher) -> None:
    arrival = arrival_of("frame", folder="day 1/sample")
    assert publish(publisher, arrival) == "day 1/sample/frame"
    folder = publisher.directory / "day 1" / "sample"
    assert sorted(path.name for path in folder.iterdir()) == [
        "frame.atoms.csv",
        "frame.atoms.parquet",
        "frame.overlay.png",
    ]
    assert pyarrow.csv.read_csv(folder / "frame.atoms.csv").num_rows == 2
    Image.open(folder / "frame.overlay.png").verify()
    header = header_of(read_parquet(folder / "frame.atoms.parquet"))
    assert header["frame_id"] == arrival.subject.frame_id
    assert header["schema"] == "hrtemd.atoms.v1"
    assert header["calibration_source"] == "sidecar"
    assert header["counts"] == {"C": 2}
    assert header["latency_ms"] == {"read": 1.5, "prepare": 1.0, "infer": 2.0, "decode": 3.0}
    assert header["shape"] == [64, 64]
    assert header["received_at"].endswith("+00:00")


def test_frames_of_one_name_from_different_files_keep_their_own_results(publisher: FilePublisher) -> None:
    first, second = arrival_of("frame", "/a/frame.tif"), arrival_of("frame", "/b/frame.tif", seed=1)
    assert publish(publisher, first) == "frame"
    assert publish(publisher, second) == "frame-2"
    assert publish(publisher, first) == "frame"
    assert publish(publisher, second) == "frame-2"


def test_results_are_known_again_by_a_later_run(publisher: FilePublisher) -> None:
    arrival = arrival_of("frame")
    assert not publisher.has_results(arrival)
    publish(publisher, arrival)
    later = FilePublisher(publisher.directory, overlays=True)
    assert later.has_results(arrival)
    assert not later.has_results(arrival_of("frame", seed=1)), "another image in the same file"
    (publisher.directory / "frame.overlay.png").unlink()
    assert not later.has_results(arrival), "the overlay is missing"


def test_results_older_than_their_sidecar_are_not_complete(publisher: FilePublisher) -> None:
    arrival, origin = arrival_of("frame"), Path("/data/frame.tif")
    publish(publisher, arrival)
    assert publisher.newer_result("camera", origin, PurePosixPath(), changed_at=1.0) == arrival.subject.frame_id
    assert not publisher.newer_result("camera", origin, PurePosixPath(), changed_at=4e9)
    assert publisher.has_results(replace(arrival, described_at=1.0))
    assert not publisher.has_results(replace(arrival, described_at=4e9))


def test_a_table_of_somebody_else_is_never_overwritten(publisher: FilePublisher) -> None:
    precious = publisher.directory / "frame.atoms.parquet"
    precious.write_bytes(b"not a table of ours")
    assert publish(publisher, arrival_of("frame")) == "frame-2"
    assert precious.read_bytes() == b"not a table of ours"


def test_a_damaged_table_blocks_no_name(publisher: FilePublisher) -> None:
    publish(publisher, arrival_of("frame"))
    table = publisher.directory / "frame.atoms.parquet"
    content = bytearray(table.read_bytes())
    footer_bytes = int.from_bytes(content[-8:-4], "little")
    content[-8 - footer_bytes : -8] = b"x" * footer_bytes
    table.write_bytes(content)
    assert publish(publisher, arrival_of("frame")) == "frame-2"
    (publisher.directory / "other.atoms.parquet").mkdir()
    assert publish(publisher, arrival_of("other")) == "other-2"


def test_a_failing_disk_is_not_taken_for_a_damaged_table(
    publisher: FilePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = arrival_of("frame")
    publish(publisher, arrival)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "frame")

    monkeypatch.setattr("pyarrow.parquet.read_schema", fail)
    with pytest.raises(OSError, match="Input/output error"):
        publish(publisher, arrival)
    assert not publisher.newer_result("camera", Path(arrival.origin), PurePosixPath(), 0.0)


def test_new_atoms_never_stand_beside_an_old_overlay(publisher: FilePublisher) -> None:
    arrival = arrival_of("frame")
    publish(publisher, arrival)
    publisher.write_tables(arrival, table_of(arrival))
    assert not (publisher.directory / "frame.overlay.png").exists()


def test_images_of_a_stack_with_a_long_name_keep_their_own_results(publisher: FilePublisher) -> None:
    names = [f"{'é' * 107}-{index:04d}" for index in range(3)]
    stems = [publish(publisher, arrival_of(name, seed=index)) for index, name in enumerate(names)]
    assert len(set(stems)) == 3
    assert [publish(publisher, arrival_of(name, seed=index)) for index, name in enumerate(names)] == stems


def test_each_namesake_is_opened_once(publisher: FilePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    namesakes = [arrival_of("frame", f"/{index}/frame.tif", seed=index) for index in range(12)]
    opened = []
    read_schema = pyarrow.parquet.read_schema
    monkeypatch.setattr("pyarrow.parquet.read_schema", lambda path: opened.append(path) or read_schema(path))
    stems = [publisher.write_tables(arrival, table_of(arrival)).name for arrival in namesakes]
    assert stems == ["frame", *(f"frame-{number}" for number in range(2, 13))]
    later = FilePublisher(publisher.directory, overlays=True)
    assert [later.write_tables(arrival, table_of(arrival)).name for arrival in namesakes] == stems
    assert len(opened) < 6 * len(namesakes)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "a.csv") as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


def test_what_another_process_left_half_written_is_deleted(publisher: FilePublisher) -> None:
    folder = publisher.write_tables(arrival := arrival_of("frame"), table_of(arrival)).parent
    (folder / ".frame.overlay.png.hrtemd-0123abcd.part").write_bytes(b"half")
    (folder / ".next.tif.part").write_bytes(b"of a camera: results may lie beside frames")
    with replacing(folder / "other.csv") as temporary:
        temporary.write_text("of this process")
        publisher.delete_unfinished()
    left = {path.name for path in folder.iterdir()}
    assert left == {"frame.atoms.csv", "frame.atoms.parquet", ".next.tif.part", "other.csv"}


def test_events_are_one_json_object_a_line(publisher: FilePublisher) -> None:
    publisher.write_event("camera", "/a/frame.tif", "It is\nempty.")
    publisher.write_event("camera", "/b/frame.tif", "It is torn.")
    events = [json.loads(line) for line in (publisher.directory / "events.jsonl").read_text().splitlines()]
    assert [event["error"] for event in events] == ["It is\nempty.", "It is torn."]


def test_a_results_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ConfigurationError, match="name another folder"):
        FilePublisher(tmp_path / "results" / "below", overlays=True)


@given(st.text(st.characters(codec=None), max_size=300))
def test_a_frame_name_is_a_name_and_nothing_more(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe
    assert safe not in ("", ".", "..")
    assert not safe.startswith(".")
    assert len(safe.encode()) <= 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", "C:\\temp\\x", "a\x00b"])
def test_a_name_never_leads_outside(publisher: FilePublisher, name: str) -> None:
    publish(publisher, arrival_of(name, folder=".."))
    written = [path for path in publisher.directory.parent.rglob("*") if path.is_file()]
    assert len(written) == 3
    assert all(path.is_relative_to(publisher.directory) for path in written)
