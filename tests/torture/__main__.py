"""Run the torture, and write its report: `python -m tests.torture [ROW ...] [--scale SHARE] [--minutes M]`.

Each row leaves its own JSON in runs/torture/ as soon as it is done, so that nothing of it is lost if another fails; the
report in docs/reports/ is made of all that is there. `make torture` runs the rows that are missing.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from math import inf
from pathlib import Path

from tests.daemon.conftest import write_blob_package
from tests.torture import endurance, hostile, kills, live_view, neighbours, timing
from tests.torture.outcome import REPOSITORY, Outcome
from tests.torture.report import write_report

FOUND = REPOSITORY / "runs" / "torture"


def _scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale))


ROWS: dict[str, Callable[[Path, Path, float, float], Outcome]] = {
    "kills": lambda folder, model, scale, minutes: kills.kills(
        folder, model, _scaled(kills.ASKED, scale), minutes=minutes
    ),
    "endurance": lambda folder, model, scale, minutes: endurance.endurance(
        folder, model, _scaled(endurance.ASKED, scale), minutes
    ),
    "overlays": lambda folder, model, scale, minutes: endurance.overlays(
        folder, model, _scaled(endurance.OVERLAYS, scale), minutes
    ),
    "live_view": lambda folder, _model, scale, _minutes: live_view.live_view(
        folder, seconds=max(3.0, live_view.ASKED_SECONDS * scale)
    ),
    "neighbours": lambda folder, model, scale, _minutes: neighbours.neighbours(
        folder, model, max(30, _scaled(neighbours.ASKED, scale))
    ),
    "hostile": lambda folder, model, scale, minutes: hostile.hostile(
        folder, model, _scaled(hostile.ASKED, scale), minutes=minutes
    ),
    "overhead": lambda folder, _model, scale, minutes: timing.overhead(
        folder, max(5, _scaled(timing.PAIRS, scale)), minutes
    ),
    "receive_path": lambda _folder, _model, scale, _minutes: timing.receive_path(max(5, _scaled(timing.FRAMES, scale))),
}


def main() -> int:
    """Run rows, then write the report; return 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; the missing ones if none is named"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of what the issue asks for")
    parser.add_argument("--minutes", type=float, default=inf, help="after so long a long row ends with what it has")
    parser.add_argument("--folder", type=Path, help="where the daemons work, instead of the system's temporary folder")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    missing = [row for row in ROWS if not (FOUND / f"{row}.json").exists()]
    failed = False
    for row in [] if arguments.report_only else arguments.rows or missing:
        failed |= not _run(row, arguments.scale, arguments.minutes, arguments.folder)
    outcomes = [Outcome.read(FOUND / f"{row}.json") for row in ROWS if (FOUND / f"{row}.json").exists()]
    write_report(outcomes, REPOSITORY / "docs" / "reports")
    return 1 if failed else 0


def _run(row: str, scale: float, minutes: float, parent: Path | None) -> bool:
    """Run a row; return whether all of it holds."""
    print(f"{row} ...", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"torture-{row}-", dir=parent, ignore_cleanup_errors=True) as folder:
        try:
            (Path(folder) / row).mkdir()
            model = write_blob_package(Path(folder) / "blobs", frames=1)
            outcome = ROWS[row](Path(folder) / row, model, scale, minutes)
        except Exception:
            traceback.print_exc()
            return False
    outcome.write(FOUND)
    for check in outcome.failures():
        print(f"  does not hold: {check.what} ({check.measured})", flush=True)
    print(f"{row}: {len(outcome.checks)} checks in {outcome.seconds:.0f} s", flush=True)
    return not outcome.failures()


if __name__ == "__main__":
    sys.exit(main())
