"""`hrtemd ledger`, as the facility engineer asks it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon.cli import main
from daemon.ledger import Ledger, LedgerLimits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with one frame in each state."""
    path = tmp_path / "results" / "ledger.sqlite"
    now = datetime.now(UTC)
    ledger = Ledger(path, LedgerLimits(bytes=2**20, age_days=30))
    ledger.receive("camera", "1", "/incoming/frame-1.tif", now - timedelta(hours=3))
    ledger.post("atoms/camera", {}, b"", frame=("camera", "1"), state="published")
    ledger.receive("camera", "2", "/incoming/frame\x1b[2J.tif", now - timedelta(hours=2))
    ledger.post("event/camera", {"error": "frame.tif: is bad."}, b"", frame=("camera", "2"), state="failed")
    ledger.receive("folder", "3", "/incoming/frame-3.tif", now - timedelta(hours=1))
    ledger.begin("folder", "3")
    ledger.close()
    return path


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *map(str, arguments)], catch_exceptions=False)


def frames(*arguments: object) -> list[str]:
    asked = ask(*arguments, "--json")
    assert asked.exit_code == 0
    return [json.loads(line)["frame_id"] for line in asked.stdout.splitlines()]


def test_shows_times_states_and_reasons(path: Path) -> None:
    heading, first, second, reason, third, unfinished, counts = ask(path).stdout.splitlines()
    assert heading.split() == ["received", "state", "done", "source", "frame"]
    columns = first.split()
    assert (columns[2], columns[5:]) == ("published", ["camera", "/incoming/frame-1.tif"])
    received_at = datetime.fromisoformat(" ".join(columns[:2])).astimezone()
    assert timedelta(hours=2.9) < datetime.now(UTC) - received_at < timedelta(hours=3.1)
    assert second.endswith(r"/incoming/frame\x1b[2J.tif")
    assert reason.strip() == "frame.tif: is bad."
    assert third.split()[2:] == ["received", "-", "folder", "/incoming/frame-3.tif"]
    assert unfinished.strip() == "analyses begun that never ended: 1"
    assert counts == "in all: 1 published, 1 failed, 1 received"


def test_chooses(path: Path) -> None:
    assert frames(path) == ["1", "2", "3"]
    assert frames(path, "--source", "camera") == ["1", "2"]
    assert frames(path, "--state", "failed") == ["2"]
    assert frames(path, "--limit", 2) == ["2", "3"]
    assert frames(path, "--state", "received", "--since", "1.5h") == ["3"]
    assert frames(path, "--state", "received", "--since", "30m") == []
    assert frames(path, "--since", "2026-01-01T00:00") == ["1", "2", "3"]
    assert ask(path, "--source", "nobody").stdout == "No such frames.\n"


def test_json_tells_everything(path: Path) -> None:
    told = json.loads(ask(path, "--json", "--state", "failed").stdout)
    received_at, done_at = (datetime.fromisoformat(told.pop(key)) for key in ("received_at", "done_at"))
    assert timedelta(0) < done_at - received_at < timedelta(hours=2.1)
    assert told == {
        "source": "camera",
        "frame_id": "2",
        "origin": "/incoming/frame\x1b[2J.tif",
        "state": "failed",
        "attempts": 0,
        "error": "frame.tif: is bad.",
    }


def test_finds_the_ledger_by_the_daemons_configuration(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    assert frames("--config", config) == ["1", "2", "3"]
    config.write_text('[ledger]\npath = "elsewhere.sqlite"\n')
    asked = ask("--config", config)
    assert asked.exit_code == 1
    assert "elsewhere.sqlite: there is no ledger" in asked.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Give either --config FILE or LEDGER"),
        (["x.sqlite", "--config", "FILE"], "Give either --config FILE or LEDGER"),
        (["x.sqlite", "--since", "yesterday"], "'yesterday' is no time"),
        (["x.sqlite", "--since", "9999999999d"], "is no time"),
        (["x.sqlite", "--limit", "0"], "0 is not in the range"),
        (["x.sqlite", "--state", "lost"], "'lost' is not one of"),
    ],
)
def test_refuses_arguments_it_cannot_use(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "FILE").touch()
    asked = ask(*(tmp_path / argument if argument == "FILE" else argument for argument in arguments))
    assert asked.exit_code == 2
    assert complaint in asked.stderr
