"""Short forms of the torture, through the same code; `make torture` runs the full ones. Nothing here is about time."""

from pathlib import Path

import pytest

from tests.torture.endurance import endurance
from tests.torture.fuzzing import chunk_of
from tests.torture.hostile import hostile
from tests.torture.kills import kills
from tests.torture.live_view import live_view
from tests.torture.neighbours import neighbours
from tests.torture.outcome import Outcome
from tests.torture.report import write_report


def assert_holds(outcome: Outcome) -> None:
    failures = outcome.failures(with_timing=False)
    assert not failures, "\n".join(f"{check.what}: {check.measured}" for check in failures)


def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path, blob_model: Path) -> None:
    assert_holds(kills(tmp_path, blob_model, number=2, seed=1))


def test_many_frames_leave_nothing_behind(tmp_path: Path, blob_model: Path) -> None:
    assert_holds(endurance(tmp_path, blob_model, number=600))


def test_live_view_counts_what_it_leaves_out(tmp_path: Path, blob_model: Path) -> None:
    assert_holds(live_view(tmp_path, blob_model, seconds=3.0, side=512))


def test_bad_neighbours_harm_nobody_else(tmp_path: Path, blob_model: Path) -> None:
    """A camera or folder that goes and comes back is in test_zeromq_source.py and test_directory_source.py."""
    chosen = ["a subscriber that stops reading", "a full results disk", "a full spool disk"]
    assert_holds(neighbours(tmp_path, blob_model, number=24, chosen=chosen))


def test_hostile_messages_are_refused_and_counted(tmp_path: Path, blob_model: Path) -> None:
    assert_holds(hostile(tmp_path, blob_model, number=3000))


@pytest.mark.parametrize("format_name", ["array-1.0", "dectris-v1", "dectris-stream2"])
def test_fuzzed_messages_follow_from_their_seed(format_name: str) -> None:
    first, again, other = (chunk_of(format_name, seed, 7) for seed in (1, 1, 2))
    assert len(first) == len(other)
    assert first != other
    assert first == again


def test_a_report_says_what_was_run_and_what_failed(tmp_path: Path) -> None:
    outcome = Outcome("kills", "200 kills", "3 kills", circumstances={
        "date": "today", "commit": "abc", "changed_since": False, "load_before": 1.0, "load_after": 2.0,
    })  # fmt: skip
    outcome.check("nothing is lost", holds=True, measured="67 frames")
    outcome.check("nothing is | repeated", holds=False, measured="1 | 2")
    outcome.write(tmp_path / "found")
    write_report([Outcome.read(tmp_path / "found" / "kills.json")], tmp_path / "reports")
    report = (tmp_path / "reports" / "torture.md").read_text()
    assert "| kills | 200 kills | 3 kills | **1 of 2 fail** | today, `abc` | 1.0 to 2.0 |" in report
    assert "| holds | nothing is lost | 67 frames |" in report
    assert "**fails**" in report
