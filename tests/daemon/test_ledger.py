"""The ledger: numbers without gaps, one state a frame, bounded, and whole whatever happens to its file."""

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from threading import enumerate as threads_alive
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from daemon.errors import ConfigurationError, HrtemdError
from daemon.ledger import Ledger, LedgerLimits, State, read_history
from daemon.ledger.schema import VERSION

PLENTY = LedgerLimits(bytes=2**30, age_days=30)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

Open = Callable[..., Ledger]


@pytest.fixture(autouse=True)
def no_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten by itself within a test, unless by posting."""
    monkeypatch.setattr("daemon.ledger.ledger._SECONDS_BETWEEN_TIDYINGS", 3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def open_ledger(path: Path) -> Iterator[Open]:
    opened: list[Ledger] = []

    def open_(limits: LedgerLimits = PLENTY) -> Ledger:
        opened.append(Ledger(path, limits))
        return opened[-1]

    yield open_
    for ledger in opened:
        ledger.close()
    assert "ledger" not in [thread.name for thread in threads_alive()]


def publish(ledger: Ledger, frame_id: str, payload: bytes = b"") -> int:
    ledger.receive("camera", frame_id, f"{frame_id}.tif", NOON)
    return ledger.post("atoms/camera", {}, payload, frame=("camera", frame_id), state="published").sequence


def sequences(ledger: Ledger, topic: str = "atoms/camera") -> list[int]:
    return [message.sequence for message in ledger.after(topic, 0, limit=100_000)]


def pragma(ledger: Ledger, statement: str) -> None:
    """Change what SQLite does on the connection that writes."""
    ledger._file._writer.use(lambda connection: connection.execute(f"PRAGMA {statement}").fetchall())


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def overwrite_pages(path: Path, first: int) -> None:
    """Leave garbage where tables were."""
    with path.open("r+b") as file:
        file.seek(4096 * first)
        file.write(b"\xa5" * (path.stat().st_size - 4096 * first))


def test_a_frame_is_received_until_it_is_published(open_ledger: Open) -> None:
    ledger = open_ledger()
    assert ledger.state("camera", "a") is None
    assert ledger.receive("camera", "a", "a.tif", NOON) == "received"
    assert ledger.receive("camera", "a", "a.tif", NOON) == "received"
    message = ledger.post("atoms/camera", {"name": "a"}, b"table", frame=("camera", "a"), state="published")
    assert message.header == {"name": "a", "sequence": 1, "ledger": ledger.identity}
    assert ledger.receive("camera", "a", "a.tif", NOON) == ledger.state("camera", "a") == "published"
    assert ledger.state("other", "a") is None


def test_every_topic_counts_for_itself(open_ledger: Open) -> None:
    ledger = open_ledger()
    posted = [ledger.post(topic, {"n": n}, bytes([n])) for n, topic in enumerate(["status", "event/a", "status"])]
    assert [(message.topic, message.sequence) for message in posted] == [("status", 1), ("event/a", 1), ("status", 2)]
    assert ledger.topics() == ["event/a", "status"]
    assert (ledger.oldest("status"), ledger.newest("status")) == (1, 2)
    assert (ledger.oldest("never"), ledger.newest("never"), ledger.after("never", 0)) == (None, 0, [])
    assert ledger.after("status", 0) == [posted[0], posted[2]]
    assert ledger.after("status", 1) == [posted[2]]


def test_a_replay_is_cut_by_number_and_by_size_but_never_empty(open_ledger: Open) -> None:
    ledger = open_ledger()
    for _ in range(10):
        ledger.post("status", {}, bytes(1000))
    assert len(ledger.after("status", 0, limit=4)) == 4
    assert len(ledger.after("status", 0, limit_bytes=3500)) == 3
    assert [message.sequence for message in ledger.after("status", 8, limit_bytes=1)] == [9]


def test_nothing_is_posted_where_the_frame_cannot_be_noted(open_ledger: Open) -> None:
    ledger = open_ledger()
    with pytest.raises(TypeError):
        ledger.post("atoms/camera", {"name": object()}, b"", frame=("camera", "a"), state="published")
    assert ledger.state("camera", "a") is None
    assert publish(ledger, "b") == 1


def test_what_was_begun_and_never_ended_is_counted_across_restarts(open_ledger: Open) -> None:
    ledger = open_ledger()
    ledger.receive("camera", "a", "a.tif", NOON)
    assert ledger.begin("camera", "a") == 1
    ledger.close()
    ledger = open_ledger()
    assert ledger.attempts("camera", "a") == 1
    assert ledger.begin("camera", "a") == 2
    ledger.end("camera", "a")
    assert ledger.attempts("camera", "a") == 0
    ledger.begin("camera", "a")
    publish(ledger, "a")
    assert ledger.attempts("camera", "a") == 0


def test_names_that_are_not_unicode_are_kept(open_ledger: Open, path: Path) -> None:
    ledger = open_ledger()
    name = os.fsdecode(b"M\xfcller\x00.tif")
    ledger.receive("camera", name, name, NOON)
    ledger.post("event/camera", {"error": f"{name}: is bad."}, b"", frame=("camera", name), state="failed")
    assert ledger.state("camera", name) == "failed"
    (entry,) = read_history(path)
    assert entry.error == "M\\udcfcller\x00.tif: is bad."


def test_threads_get_numbers_without_gap(open_ledger: Open) -> None:
    ledger = open_ledger()
    got: list[int] = []

    def post() -> None:
        got.extend(ledger.post("status", {}, b"").sequence for _ in range(100))

    threads = [Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sequences(ledger, "status") == list(range(1, 401))


class LedgerMachine(RuleBasedStateMachine):
    """The ledger against lists and dictionaries, closed and opened at any time."""

    frames = st.tuples(st.sampled_from(["camera", "folder"]), st.text(max_size=3))
    topics = st.sampled_from(["atoms/camera", "event/camera", "status"])

    @initialize()
    def begin_a_new_one(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name, "ledger.sqlite")
        self.ledger = Ledger(self.path, PLENTY)
        self.states: dict[tuple[str, str], State] = {}
        self.attempts: dict[tuple[str, str], int] = {}
        self.posted: dict[str, list[tuple[dict[str, Any], bytes]]] = {}

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path, PLENTY)

    @rule(frame=frames)
    def receive(self, frame: tuple[str, str]) -> None:
        state = self.states.setdefault(frame, "received")
        assert self.ledger.receive(*frame, "origin", NOON) == state

    @rule(frame=frames)
    def begin(self, frame: tuple[str, str]) -> None:
        self.attempts[frame] = self.attempts.get(frame, 0) + 1 if frame in self.states else 0
        assert self.ledger.begin(*frame) == self.attempts[frame]

    @rule(frame=frames)
    def end(self, frame: tuple[str, str]) -> None:
        self.ledger.end(*frame)
        self.attempts[frame] = 0

    @rule(
        topic=topics, frame=frames, state=st.sampled_from([None, "received", "published", "failed"]),
        header=st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text()), payload=st.binary(),
    )  # fmt: skip
    def post(
        self, topic: str, frame: tuple[str, str], state: State | None, header: dict[str, Any], payload: bytes
    ) -> None:
        message = self.ledger.post(topic, header, payload, frame=frame, state=state)
        earlier = self.posted.setdefault(topic, [])
        numbered = {**header, "sequence": len(earlier) + 1, "ledger": self.ledger.identity}
        assert (message.header, message.payload) == (numbered, payload)
        earlier.append((numbered, payload))
        if state is not None:
            self.states[frame] = state
            self.attempts[frame] = 0

    @rule(topic=topics, sequence=st.integers(0, 5), limit=st.integers(1, 3))
    def after(self, topic: str, sequence: int, limit: int) -> None:
        got = [(message.header, message.payload) for message in self.ledger.after(topic, sequence, limit)]
        assert got == self.posted.get(topic, [])[sequence : sequence + limit]

    @invariant()
    def everything_is_as_noted(self) -> None:
        assert self.ledger.topics() == sorted(self.posted)
        assert all(self.ledger.newest(topic) == len(posted) for topic, posted in self.posted.items())
        assert all(self.ledger.attempts(*frame) == attempts for frame, attempts in self.attempts.items())
        noted = {(entry.source, entry.frame_id): entry.state for entry in read_history(self.path)}
        assert noted == self.states

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


class TestPruning:
    def test_the_oldest_go_from_all_topics_and_the_file_stays_small(self, open_ledger: Open, path: Path) -> None:
        limits = LedgerLimits(bytes=2**20, age_days=30)
        ledger = open_ledger(limits)
        for index in range(200):
            publish(ledger, str(index), bytes(20_000))
            ledger.post("status", {}, b"")
        kept = sequences(ledger)
        assert kept == list(range(kept[0], 201))
        assert 20 < len(kept) < 60
        assert kept[0] == ledger.oldest("atoms/camera")
        assert sequences(ledger, "status")[0] in (kept[0], kept[0] - 1)
        ledger.close()
        assert path.stat().st_size < 1.2 * limits.bytes

    def test_a_lower_limit_gives_room_back(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        for index in range(100):
            publish(ledger, str(index), bytes(20_000))
        ledger.close()
        assert path.stat().st_size > 2_000_000
        ledger = open_ledger(LedgerLimits(bytes=2**20, age_days=30))
        assert ledger.prune() > 0
        assert publish(ledger, "next") == 101
        ledger.close()
        assert path.stat().st_size < 1.1 * 2**20

    def test_what_is_too_old_goes_but_never_a_frame_that_is_unfinished(
        self, open_ledger: Open, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger = open_ledger(LedgerLimits(bytes=2**30, age_days=1))
        ledger.receive("camera", "unfinished", "unfinished.tif", NOON)
        publish(ledger, "old")
        assert ledger.prune() == 0
        later = (datetime.now(UTC) + timedelta(days=2)).timestamp()
        monkeypatch.setattr("daemon.ledger.pruning.time", lambda: later)
        assert ledger.prune() == 2  # its message and itself
        assert [entry.frame_id for entry in read_history(path)] == ["unfinished"]
        assert (ledger.oldest("atoms/camera"), ledger.newest("atoms/camera")) == (None, 1)
        assert publish(ledger, "new") == 2

    def test_finished_frames_take_a_part_of_it_only(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger(LedgerLimits(bytes=100 * 4096, age_days=30))
        for index in range(150):
            ledger.receive("camera", f"unfinished {index}", "", NOON)
        for index in range(300):
            publish(ledger, str(index))
        ledger.prune()
        states = [entry.state for entry in read_history(path)]
        assert (states.count("received"), states.count("published")) == (150, 100)


class TestTidying:
    @pytest.fixture(autouse=True)
    def soon(self, no_tidying: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("daemon.ledger.ledger._SECONDS_BETWEEN_TIDYINGS", 0.01)

    def test_brings_what_was_noted_into_the_file_and_forgets_what_is_too_much(
        self, open_ledger: Open, path: Path
    ) -> None:
        limits = LedgerLimits(bytes=2**20, age_days=30)
        ledger = open_ledger(limits)
        for index in range(200):
            publish(ledger, str(index), bytes(20_000))
        wait_for(lambda: sequences(ledger)[0] > 140)
        copy = path.with_name("copy.sqlite")

        def has_the_last_frame() -> bool:
            shutil.copy(path, copy)  # without what is beside it
            with suppress(HrtemdError):  # copied while it was written
                return read_history(copy)[-1].frame_id == "199"
            return False

        wait_for(has_the_last_frame)

    def test_goes_on_after_trouble_which_is_told_once(
        self, open_ledger: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        ledger = open_ledger()
        tried: list[int] = []

        def fail() -> int:
            tried.append(len(tried))
            if len(tried) < 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            return 0

        monkeypatch.setattr(ledger, "prune", fail)
        wait_for(lambda: len(tried) > 5)
        assert caplog.text.count("The ledger is not tidied up: [Errno 28]") == 1


def test_a_full_disk_is_the_systems_error_and_leaves_no_gap(open_ledger: Open, path: Path) -> None:
    ledger = open_ledger()
    publish(ledger, "before")
    pragma(ledger, "max_page_count = 1")  # SQLite takes the size it has
    ledger.receive("camera", "a", "a.tif", NOON)
    with pytest.raises(OSError, match="No space left") as raised:
        ledger.post("atoms/camera", {}, bytes(100_000), frame=("camera", "a"), state="published")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert ledger.state("camera", "a") == "received"
    assert sequences(ledger) == [1]
    pragma(ledger, "max_page_count = 1000000")
    assert publish(ledger, "a", bytes(100_000)) == 2


def test_a_file_in_use_by_another_writer_is_the_systems_error(open_ledger: Open, path: Path) -> None:
    ledger = open_ledger()
    pragma(ledger, "busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="busy") as raised:
            publish(ledger, "a")
    assert raised.value.errno == errno.EBUSY
    assert publish(ledger, "a") == 1


def test_a_folder_that_cannot_be_made_is_the_systems_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Ledger(tmp_path / "file" / "ledger.sqlite", PLENTY)
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(PermissionError):
        Ledger(tmp_path / "folder.sqlite", PLENTY)


class TestDamage:
    def test_what_is_no_database_is_set_aside(
        self, open_ledger: Open, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.write_bytes(b"This is no database at all, though it is long enough for one." * 100)
        ledger = open_ledger()
        assert publish(ledger, "a") == 1
        (aside,) = path.parent.glob("ledger.sqlite.damaged-*Z")
        assert aside.read_bytes().startswith(b"This is no database")
        (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
        assert str(path) in record.message
        assert aside.name in record.message

    def test_damage_that_shows_at_work_begins_another_and_work_goes_on(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        for index in range(50):
            publish(ledger, str(index), bytes(5000))
        ledger.close()
        overwrite_pages(path, first=1)
        ledger = open_ledger()
        message = ledger.post("atoms/camera", {}, b"", frame=("camera", "50"), state="published")
        assert message.sequence == 1
        assert message.header["ledger"] == ledger.identity
        assert ledger.state("camera", "50") == "published"
        assert len(list(path.parent.glob("*.damaged-*Z"))) == 1

    def test_damage_that_a_reader_finds_begins_another_too(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        for index in range(50):
            publish(ledger, str(index), bytes(5000))
        ledger.close()
        ledger = open_ledger()
        before = ledger.identity
        overwrite_pages(path, first=8)
        assert ledger.after("atoms/camera", 0) == []
        assert ledger.identity != before
        assert publish(ledger, "a") == 1

    def test_a_reader_of_another_process_says_so_and_changes_nothing(self, path: Path) -> None:
        path.write_bytes(b"This is no database at all." * 100)
        with pytest.raises(HrtemdError, match="is damaged"):
            read_history(path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]


class TestFiling:
    def test_what_is_to_be_filed_is_known_until_it_is_in_order_and_after_a_restart(self, open_ledger: Open) -> None:
        ledger = open_ledger()
        first = ledger.post("atoms/b", {"name": "one"}, b"1", folder="")
        ledger.post("atoms/a", {"name": "two"}, b"2")
        ledger.post("atoms/a", {"name": "three"}, b"3", folder="day/1")
        ledger.close()

        ledger = open_ledger()
        assert [(message.header["name"], message.payload, folder) for message, folder in ledger.not_filed()] == [
            ("one", b"1", ""),
            ("three", b"3", "day/1"),
        ]
        ledger.filed(first.topic, first.sequence)
        assert [message.sequence for message, _ in ledger.not_filed()] == [2]

    def test_a_ledger_of_an_older_version_goes_on(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        before = publish(ledger, "a"), ledger.identity
        ledger.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE not_filed")
            connection.execute("PRAGMA user_version = 1")

        ledger = open_ledger()
        message = ledger.post("atoms/camera", {}, b"", folder="")
        assert (message.sequence, ledger.identity) == (before[0] + 1, before[1])
        assert [found.sequence for found, _ in ledger.not_filed()] == [message.sequence]


@pytest.mark.parametrize("use", [lambda path: Ledger(path, PLENTY), read_history], ids=["daemon", "history"])
class TestOtherFiles:
    def test_a_ledger_of_a_newer_version_is_left_alone(self, path: Path, use: Callable[[Path], object]) -> None:
        Ledger(path, PLENTY).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(ConfigurationError, match=f"ledger of version {VERSION + 1}, of a newer hrtemd"):
            use(path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_another_programs_database_is_left_alone(self, path: Path, use: Callable[[Path], object]) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE frames (photo TEXT)")
        with pytest.raises(ConfigurationError, match="not a ledger of hrtemd"):
            use(path)


def test_a_network_share_is_told_and_works_without_wal(
    open_ledger: Open, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("file", "schema", "history"):
        monkeypatch.setattr(f"daemon.ledger.{module}.may_use_wal", lambda _: False)
    ledger = open_ledger()
    assert publish(ledger, "a") == 1
    assert [entry.state for entry in read_history(path)] == ["published"]
    assert not path.with_name(f"{path.name}-wal").exists()
    assert "lies on a network share" in caplog.text


class TestHistory:
    def test_says_what_became_of_frames_oldest_first(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        publish(ledger, "a")
        ledger.receive("camera", "b", "b.tif", NOON)
        ledger.post("event/camera", {"error": "b.tif: is bad."}, b"", frame=("camera", "b"), state="failed")
        ledger.receive("folder", "c", "c.tif", NOON + timedelta(hours=1))
        ledger.begin("folder", "c")
        a, b, c = read_history(path)
        assert (a.frame_id, a.origin, a.state, a.error, a.received_at) == ("a", "a.tif", "published", None, NOON)
        assert a.done_at
        assert (b.state, b.error) == ("failed", "b.tif: is bad.")
        assert (c.state, c.done_at, c.attempts) == ("received", None, 1)
        assert read_history(path, source="folder") == [c]
        assert read_history(path, state="failed") == [b]
        assert read_history(path, limit=2) == [b, c]
        assert read_history(path, source="camera", state="received") == []

    def test_since_is_about_coming_and_being_done(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        publish(ledger, "done today")  # it came at noon of a day in the past
        ledger.receive("camera", "came then", "", NOON)
        recent = datetime.now(UTC) - timedelta(hours=1)
        assert [entry.frame_id for entry in read_history(path, since=recent)] == ["done today"]
        assert len(read_history(path, since=NOON)) == 2

    def test_needs_a_ledger(self, path: Path) -> None:
        with pytest.raises(HrtemdError, match="there is no ledger"):
            read_history(path)

    def test_of_a_stopped_daemon_needs_and_leaves_no_other_file(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        publish(ledger, "a")
        ledger.close()
        assert len(read_history(path)) == 1
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_of_a_daemon_that_was_killed_is_read_with_its_last_frames(self, open_ledger: Open, path: Path) -> None:
        ledger = open_ledger()
        publish(ledger, "a")
        copy = path.with_name("copy.sqlite")
        for suffix in ("", "-wal"):  # as they lie there after a kill
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        assert len(read_history(copy)) == 1


READER = """
import sys
import time
from pathlib import Path
from daemon.ledger import read_history

print("ready", flush=True)
published = 0
while published < 300:
    states = [entry.state for entry in read_history(Path(sys.argv[1]))]
    assert states.count("published") >= published, "went back"
    assert states.count("received") <= 1, "saw half of it"
    published = states.count("published")
"""


def test_processes_read_while_the_daemon_writes(open_ledger: Open, path: Path) -> None:
    ledger = open_ledger()
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout
        assert reader.stdout.readline() == b"ready\n"
    for index in range(300):
        publish(ledger, str(index))
    for reader in readers:
        _, complaints = reader.communicate(timeout=60)
        assert (reader.returncode, complaints) == (0, b"")
