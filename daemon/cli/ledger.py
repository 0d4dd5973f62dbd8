"""`hrtemd ledger`: what became of the frames."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.options import CONFIG_FILE

if TYPE_CHECKING:
    from daemon.ledger import Entry

_LEDGER_EPILOG = """\b
Example:
  hrtemd ledger --config config.toml --since 2h
  hrtemd ledger --config config.toml --state failed --json
  hrtemd ledger results/ledger.sqlite

Exit statuses: 0 done; 1 there is no ledger, or it cannot be read; 2 unusable arguments or configuration.
"""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _Time(click.ParamType[datetime]):
    """A time, or how long ago it was."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, or refuse with a usage error."""
        try:
            if ago := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", value):
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
            return datetime.fromisoformat(value).astimezone(UTC)  # without a zone it is local
        except (ValueError, OverflowError):
            message = f"{value!r} is no time; say how long ago, such as 30m, 2h or 1d, or when: 2026-03-01T14:00."
            self.fail(message, param, ctx)


@click.command(epilog=_LEDGER_EPILOG)
@click.argument("file", metavar="[LEDGER]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--config", metavar="FILE", type=CONFIG_FILE, help="The daemon's config.toml, which says where LEDGER is."
)
@click.option("--source", metavar="NAME", help="Only frames of this source.")
@click.option("--state", type=click.Choice(["received", "published", "failed"]), help="Only frames that are so.")
@click.option(
    "--since", metavar="TIME", type=_Time(), help="Only what came or was done since: 30m, 2h, 1d or 2026-03-01T14:00."
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, help="Only the newest N; 50 if left out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, its times in UTC.")
def ledger(
    file: Path | None,
    config: Path | None,
    source: str | None,
    state: str | None,
    since: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tell what became of frames, oldest first.

    A frame is received, and unfinished, until it is published or failed. Below one that failed stands why. Times are
    local. The daemon may run or not.
    """
    from daemon.config import load_configuration
    from daemon.ledger import read_history

    if file is None and config is not None:
        file = load_configuration(config).ledger_path
    elif file is None or config is not None:
        raise click.UsageError("Give either --config FILE or LEDGER.")
    entries = read_history(file, source=source, state=state, since=since, limit=limit)
    for line in map(_json, entries) if as_json else _table(entries):
        click.echo(line)


def _json(entry: "Entry") -> str:
    return json.dumps(asdict(entry), default=datetime.isoformat)


def _table(entries: Sequence["Entry"]) -> Iterator[str]:
    if not entries:
        yield "No such frames."
        return
    width = max(len("source"), *(len(entry.source) for entry in entries))
    yield f"{'received':19}  {'state':9}  {'done':19}  {'source':{width}}  frame"
    for entry in entries:
        times = _local(entry.received_at), _local(entry.done_at)
        yield f"{times[0]}  {entry.state:9}  {times[1]:19}  {entry.source:{width}}  {_printable(entry.origin)}"
        if entry.error is not None:
            yield f"    {_printable(entry.error)}"
        if entry.attempts:
            yield f"    analyses begun that never ended: {entry.attempts}"
    counts = Counter(entry.state for entry in entries)
    yield f"in all: {', '.join(f'{number} {state}' for state, number in counts.items())}"


def _local(time: datetime | None) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "-"


def _printable(text: str) -> str:
    """Escape what would move a terminal's cursor: names may come from anywhere."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
