"""Old results go, whole frames at a time, and nothing else does."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.atoms import SCHEMA, with_header, write_csv, write_parquet
from daemon.publish import retention
from daemon.publish.retention import Retention, RetentionLimits

DAY = 86400.0
ALL = {".atoms.csv", ".atoms.parquet", ".overlay.png"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def write_result(results: Path) -> Callable[..., int]:
    """Write the files of a frame, as old as asked for; return their size."""

    def write(stem: str, age_days: float = 1.0, overlay_bytes: int = 10_000) -> int:
        path = results / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"schema": "hrtemd.atoms.v1", "source": "camera", "frame_id": stem}
        table = with_header(SCHEMA.empty_table(), header)
        files = [path.with_name(path.name + suffix) for suffix in sorted(ALL)]
        write_csv(table, files[0])
        write_parquet(table, files[1])
        files[2].write_bytes(bytes(overlay_bytes))
        for file in files:
            os.utime(file, (time.time() - DAY * age_days,) * 2)
        return sum(file.stat().st_size for file in files)

    return write


def there(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}


def stems(folder: Path) -> set[str]:
    return {name.removesuffix(".atoms.parquet") for name in there(folder) if name.endswith(".atoms.parquet")}


def delete(folder: Path, **limits: float) -> int:
    return Retention(folder, RetentionLimits(**limits)).delete_excess()  # type: ignore[arg-type]


def test_without_limits_everything_stays(results: Path, write_result: Callable[..., int]) -> None:
    write_result("a", age_days=1000)
    assert delete(results) == 0
    assert stems(results) == {"a"}


def test_the_oldest_go_until_the_rest_is_small_enough(
    results: Path, write_result: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [write_result(f"frame.{index}", age_days=10 - index) for index in range(5)]
    kept = Retention(results, RetentionLimits(bytes=sum(sizes[3:])))
    with caplog.at_level(logging.INFO):
        assert kept.delete_excess() == 3
    assert there(results) == {f"frame.{index}{suffix}" for index in (3, 4) for suffix in ALL}
    assert (kept.deleted_results, kept.deleted_bytes) == (3, sum(sizes[:3]))
    deleted = [record.message for record in caplog.records if "deleted" in record.message]
    assert len(deleted) == 3
    assert str(results / "frame.0") in deleted[0]
    assert kept.delete_excess() == 0


def test_what_is_too_old_goes_with_the_folders_that_it_leaves_empty(
    results: Path, write_result: Callable[..., int]
) -> None:
    write_result("2026/march/a", age_days=8)
    write_result("2026/april/b", age_days=8)
    (results / "2026/april/notes.txt").touch()
    write_result("c", age_days=6)
    assert delete(results, age_days=7) == 2
    assert there(results) == {"2026/april/notes.txt"} | {f"c{suffix}" for suffix in ALL}
    assert not (results / "2026/march").exists()


def test_the_results_folder_itself_stays(results: Path, write_result: Callable[..., int]) -> None:
    write_result("day/a", age_days=8)
    assert delete(results, age_days=7) == 1
    assert list(results.iterdir()) == []


def test_room_is_made_before_the_disk_is_full(
    results: Path, write_result: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [write_result(f"{index}", age_days=10 - index) for index in range(5)]

    def disk_usage(folder: Path) -> SimpleNamespace:
        """Tell of a disk that holds the five of them and no more."""
        return SimpleNamespace(free=sum(sizes) - sum(file.stat().st_size for file in folder.iterdir()))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert delete(results, free_bytes=sum(sizes[:2])) == 2
    assert stems(results) == {"2", "3", "4"}


def test_what_is_unpublished_stays_and_others_go_in_its_place(
    results: Path, write_result: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(4):
        write_result(f"{index}", age_days=10 - index)
    asked = []

    def is_unpublished(source: str, frame_id: str) -> bool:
        asked.append((source, frame_id))
        return frame_id == "0"

    careful = Retention(results, RetentionLimits(age_days=7.5), is_unpublished)
    assert careful.delete_excess() == 2
    assert stems(results) == {"0", "3"}
    assert asked == [("camera", "0"), ("camera", "1"), ("camera", "2")]
    careful.delete_excess()
    assert caplog.text.count("not yet published") == 1


def test_what_is_young_stays_whatever_its_size(
    results: Path, write_result: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    write_result("old", age_days=1)
    write_result("young", age_days=0)
    assert delete(results, bytes=1) == 1
    assert stems(results) == {"young"}
    assert "what is left is too young" in caplog.text


def test_what_hrtemd_did_not_write_stays(results: Path, tmp_path: Path, write_result: Callable[..., int]) -> None:
    outside = tmp_path / "outside"
    write_result("../outside/mine", age_days=100)
    (results / "elsewhere").symlink_to(outside)
    (results / "linked.atoms.parquet").symlink_to(outside / "mine.atoms.parquet")
    write_parquet(SCHEMA.empty_table(), results / "other.atoms.parquet")
    (results / "damaged.atoms.parquet").write_bytes(b"PAR1")
    for name in ("ledger.sqlite", "events.jsonl", "frame.tif", "lonely.overlay.png", "lonely.atoms.csv"):
        (results / name).write_bytes(bytes(100))
    for file in results.iterdir():
        os.utime(file, (1e9, 1e9), follow_symlinks=False)
    before = there(tmp_path)
    write_result("ours", age_days=100)
    assert delete(results, age_days=1, bytes=1) == 1
    assert there(tmp_path) == before


def test_a_table_that_was_written_anew_meanwhile_stays(results: Path, write_result: Callable[..., int]) -> None:
    write_result("a", age_days=9)
    write_result("b", age_days=8)

    def analyse_b_again(_source: str, _frame_id: str) -> bool:
        write_result("b", age_days=0)
        return False

    assert Retention(results, RetentionLimits(age_days=7), analyse_b_again).delete_excess() == 1
    assert there(results) == {f"b{suffix}" for suffix in ALL}


def test_one_that_cannot_be_deleted_holds_up_no_other(
    results: Path, write_result: Callable[..., int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_result("locked/a", age_days=9)
    write_result("b", age_days=8)
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    kept = Retention(results, RetentionLimits(age_days=7))
    assert [kept.delete_excess(), kept.delete_excess()] == [1, 0]
    assert stems(results) == {"locked/a"}
    assert caplog.text.count("Permission denied") == 1
    monkeypatch.undo()
    assert kept.delete_excess() == 1


def test_a_folder_that_is_gone_is_told_once(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    results.rmdir()
    kept = Retention(results, RetentionLimits(bytes=1))
    assert [kept.delete_excess(), kept.delete_excess()] == [0, 0]
    assert caplog.text.count(str(results)) == 1


def test_events_are_bounded_and_the_last_ones_stay(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "EVENTS_BYTES", 1000)
    events = results / "events.jsonl"
    for round_ in range(3):
        with events.open("a") as file:
            file.writelines(f'{{"round": {round_}, "line": {line}}}\n' for line in range(50))
            file.flush()
            delete(results, age_days=7)
            file.write('{"appended": "meanwhile"}\n')
    older = results / "events.older.jsonl"
    assert older.read_text().splitlines()[-2:] == ['{"round": 2, "line": 49}', '{"appended": "meanwhile"}']
    assert not events.exists()
    events.write_text("few\n")
    delete(results, age_days=7)
    assert events.read_text() == "few\n"


def test_its_thread_looks_again_and_again_until_stopped(
    results: Path, write_result: Callable[..., int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "_SHORTEST_PAUSE_SECONDS", 0.01)
    faults = iter([True])

    def is_unpublished(_source: str, _frame_id: str) -> bool:
        if next(faults, False):
            raise RuntimeError("a fault")
        return False

    kept = Retention(results, RetentionLimits(age_days=7), is_unpublished)
    kept.start()
    for stem in ("a", "b"):
        write_result(stem, age_days=9)
        deadline = time.monotonic() + 60
        while stems(results):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    kept.stop()
    assert kept.deleted_results == 2
    assert "by a fault in hrtemd" in caplog.text
    write_result("c", age_days=9)
    assert kept.delete_excess() == 0
