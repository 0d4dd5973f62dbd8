"""The report that is committed: what held, what did not, and on which machine."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.torture.outcome import Check, Outcome, machine

_HEAD = """# Torture

Written by `make torture`; the rows are those of issue 4. What was run stands beside what was asked for. All numbers are
in [torture.json](torture.json). Short forms of the same code run with the tests (`tests/torture/test_torture.py`).

Machine: {machine}.
"""


_ABOUT_LOAD = """Load is the mean number of processes that want a core, over a minute, before and after a row. Far above
the number of cores, other programs had most of them, and what a row says about times it says about those."""


def write_report(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write `torture.md` and `torture.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"machine": machine(), "rows": [asdict(outcome) for outcome in outcomes]}
    (folder / "torture.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (folder / "torture.md").write_text(
        "\n".join([_HEAD.format(machine=machine()), _table(outcomes), *map(_row, outcomes)])
    )


def _table(outcomes: Sequence[Outcome]) -> str:
    lines = ["| row | asked for | run | result | when, on commit | load |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        about = outcome.circumstances
        commit = f"`{about['commit']}`" + (" and changes" if about["changed_since"] else "")
        lines.append(
            f"| {outcome.row} | {outcome.asked} | {outcome.run} | {_verdict(outcome.checks)} "
            f"| {about['date']}, {commit} | {about['load_before']} to {about['load_after']} |"
        )
    return "\n".join([*lines, "", _ABOUT_LOAD, ""])


def _verdict(checks: Sequence[Check]) -> str:
    failed = sum(not check.holds for check in checks)
    return f"**{failed} of {len(checks)} fail**" if failed else f"all {len(checks)} hold"


def _row(outcome: Outcome) -> str:
    lines = [f"## {outcome.row}", "", f"{outcome.run}; {outcome.seconds:.0f} s.", ""]
    lines += ["| | must hold | found |", "|---|---|---|"]
    lines += [
        f"| {'holds' if check.holds else '**fails**'} | {check.what} | {_cell(check.measured)} |"
        for check in outcome.checks
    ]
    shown = {name: value for name, value in outcome.numbers.items() if name != "samples"}
    lines += ["", *outcome.notes, f"Numbers: `{json.dumps(shown)}`", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]
