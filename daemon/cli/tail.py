"""`hrtemd tail`: a running daemon's results in a terminal."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.options import SECRET_KEY, SERVER_KEY
from daemon.protocol import DEFAULT_ENDPOINT

if TYPE_CHECKING:
    from daemon.client import Client, Result

_QUIET_SECONDS = 10.0
"""Without a result for so long, it is said that there is none."""

_SILENT_SECONDS = 3.0
"""Without a heartbeat for so long, it is said that the daemon is gone."""

_TAIL_EPILOG = """\b
Example:
  hrtemd tail
  hrtemd tail tcp://microscope:5600 --source camera
  hrtemd tail --json | jq .counts
  hrtemd tail tcp://microscope:5600 --secret-key laptop.key_secret --server-key microscope.key

Exit statuses: 0 stopped by Ctrl-C; 2 unusable arguments.
"""


@click.command(epilog=_TAIL_EPILOG)
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@click.option("--source", "sources", metavar="NAME", multiple=True, help="Only this source; may be given again.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest results that the daemon keeps.")
@click.option("--json", "as_json", is_flag=True, help="Print headers, one JSON object a line, instead of sentences.")
@click.option("--replay-endpoint", metavar="ENDPOINT", help="Where to ask for what was missed; default: the next port.")
@SECRET_KEY
@SERVER_KEY
def tail(
    endpoint: str, sources: tuple[str, ...], from_start: bool, as_json: bool, replay_endpoint: str | None,
    secret_key: Path | None, server_key: Path | None,
) -> None:  # fmt: skip
    """Follow a running daemon.

    One line for each frame or focal series, and for each event, until Ctrl-C. ENDPOINT is that of [publish.zeromq] in
    the daemon's config.toml. On stderr stands what is not a result: how each source is, at first, when its sender comes
    or goes, and when nothing comes; that the daemon is gone or back; which results were missed.
    """
    try:
        from daemon.client import Atoms, Client, Event, Result, Status

        with Client[Result](
            endpoint,
            receive=(Atoms, Event, Status),
            sources=sources or None,
            from_start=from_start,
            timeout_seconds=_SILENT_SECONDS,
            replay_endpoint=replay_endpoint,
            secret_key=secret_key,
            server_key=server_key,
        ) as client:
            _follow(client, endpoint, _json_line if as_json else _line)
    except KeyboardInterrupt:
        pass


def _follow(client: "Client[Result]", endpoint: str, line: Callable[["Result"], str]) -> None:
    from daemon.client import NoResultsError, Status
    from daemon.errors import HrtemdError

    is_heard = is_silence_told = is_quiet_told = False
    connected: dict[str, bool] = {}
    result_at = monotonic()
    while True:
        try:
            result = next(client)
        except NoResultsError as silence:  # not even a heartbeat
            if not is_silence_told:
                _tell(str(silence))
            is_heard, is_silence_told = False, True
            continue
        except HrtemdError as problem:
            _tell(str(problem))
            continue
        if not is_heard:
            _tell(f"Following the daemon at {endpoint}.")
            is_heard, is_silence_told = True, False
            connected.clear()
        if not isinstance(result, Status):
            click.echo(line(result))
            result_at, is_quiet_told = monotonic(), False
            continue
        is_quiet = monotonic() > result_at + _QUIET_SECONDS and not is_quiet_told
        if is_quiet:
            _tell(f"The daemon runs, but has had no results for {_QUIET_SECONDS:.0f} s.")
            is_quiet_told = True
        for name, gauge in result.header.get("sources", {}).items():
            if is_quiet or connected.get(name) != gauge["connected"]:  # the first time too
                _tell(_source_told(name, gauge))
            connected[name] = gauge["connected"]


def _tell(sentence: str) -> None:
    click.echo(f"{datetime.now():%H:%M:%S}  {_printable(sentence)}", err=True)


def _json_line(result: "Result") -> str:
    return json.dumps({"topic": result.topic, **result.header})


def _line(result: "Result") -> str:
    from daemon.client import Event
    from daemon.errors import beginning_with_file

    time = datetime.fromisoformat(result.header["published_at"]).astimezone()
    if isinstance(result, Event):
        origin = result.header.get("origin")  # alerts are about no file
        told = f"event: {beginning_with_file(result.sentence, origin) if origin else result.sentence}"
    else:
        told = _atoms_told(result.header)
    return _printable(f"{time:%H:%M:%S}  {result.source}  {told}")


def _atoms_told(header: dict[str, Any]) -> str:
    by_species = ", ".join(f"{number} {name}" for name, number in header["counts"].items())
    taken_at = datetime.fromisoformat(header["acquired_at"] or header["received_at"])
    age_seconds = (datetime.now(UTC) - taken_at).total_seconds()
    warnings = "".join(f"; warning: {warning}" for warning in header["warnings"])
    return (
        f"{header['name']}  {header['found']}{f' ({by_species})' * bool(by_species)}  "
        f"{sum(header['latency_ms'].values()):.0f} ms  {age_seconds:.1f} s old{warnings}"
    )


def _source_told(name: str, gauge: dict[str, Any]) -> str:
    """Say how a source is, by what the heartbeat tells of it."""
    if "senders" in gauge:
        way_in = f"{gauge['senders']} sender{'s' * (gauge['senders'] != 1)} at {gauge['endpoint']}"
        if gauge["refused"]:
            way_in += f" (refused {gauge['refused']} times: see docs/keys.md)"
    else:
        way_in = gauge["folder"] if gauge["connected"] else f"{gauge['folder']} is out of reach"
    age = gauge["seconds_since_last_frame"]
    last = "no frame yet" if age is None else f"last frame {age:.0f} s ago"
    dropped = "".join(f", {number} dropped ({reason})" for reason, number in gauge["dropped"].items())
    models = ", ".join(f"{model} on {backend}" for model, backend in gauge["models"].items())
    waiting = ", ".join(f"{number} to {stage}" for stage, number in gauge["waiting"].items() if number)
    return (
        f"{name}: {way_in}; {last}; {gauge['received']} received, {gauge['analysed']} analysed, {gauge['failed']} "
        f"failed{dropped}; waiting: {waiting or 'none'}; {models}"
    )


def _printable(text: str) -> str:
    """Replace what a terminal would obey: names come from outside."""
    return "".join(character if character.isprintable() else "�" for character in text)
