"""What a row of the torture found: checks that hold or not, and the numbers behind them."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Check:
    """A sentence that must hold.

    Attributes:
        what: The sentence.
        holds: Whether it does.
        measured: What was found, for people.
        is_timing: It depends on how busy the machine is, so a test says nothing of it.
    """

    what: str
    holds: bool
    measured: str
    is_timing: bool = False


@dataclass
class Outcome:
    """What became of one row.

    Attributes:
        row: Its name.
        asked: What the issue asks for, such as "200 kills".
        run: What was run, such as "20 kills".
        checks: What must hold.
        numbers: What was measured, in JSON types.
        notes: What a reader must know besides.
        circumstances: Date, commit, load.
        seconds: How long it took.
    """

    row: str
    asked: str
    run: str
    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    circumstances: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def check(self, what: str, holds: object, measured: object = "", *, is_timing: bool = False) -> None:
        """Note whether a sentence holds."""
        self.checks.append(Check(what, bool(holds), str(measured), is_timing))

    def failures(self, *, with_timing: bool = True) -> list[Check]:
        """Return what does not hold."""
        return [check for check in self.checks if not check.holds and (with_timing or not check.is_timing)]

    def write(self, folder: Path) -> None:
        """Write it for the report; whatever it holds survives what comes after it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.row}.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` wrote."""
        values = json.loads(file.read_text())
        return cls(**{**values, "checks": [Check(**check) for check in values["checks"]]})


class Circumstances:
    """When, on what commit and beside what a row was run."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._values = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "commit": _git("rev-parse", "--short", "HEAD"),
            "changed_since": bool(_git("status", "--porcelain", "daemon")),
            "load_before": round(os.getloadavg()[0], 1),
        }

    def end(self, outcome: Outcome) -> Outcome:
        """Note them in an outcome."""
        outcome.seconds = round(monotonic() - self._started, 1)
        outcome.circumstances = {**self._values, "load_after": round(os.getloadavg()[0], 1)}
        return outcome


def machine() -> str:
    """Name the machine in a line."""
    facts = _facts("/proc/cpuinfo")
    memory_kib = int(_facts("/proc/meminfo").get("MemTotal", "0 kB").split()[0])
    return (
        f"{facts.get('model name', platform.processor())}, {os.cpu_count()} cores, {memory_kib / 2**20:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, 99th percentile and largest of some values."""
    ordered = sorted(values)
    return {
        "median": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))],
        "largest": ordered[-1],
    }


def _facts(file: str) -> dict[str, str]:
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()
