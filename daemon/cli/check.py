"""`hrtemd check` and `hrtemd doctor`: is everything in place?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.options import CONFIG_FILE

if TYPE_CHECKING:
    from daemon.config import Source

_CHECK_EPILOG = """\b
Example:
  hrtemd check --config config.toml

Exit statuses: 0 `hrtemd run` would start; 2 it would not.
"""


@click.command(epilog=_CHECK_EPILOG)
@click.option("--config", metavar="FILE", type=CONFIG_FILE, required=True, help="The config.toml to check.")
def check(config: Path) -> None:
    """Say what a configuration would run.

    Or every mistake in it at once, each with its line and key. Folders are looked at and models loaded into their
    engine; nothing is written. HRTEMD_... environment variables count.
    """
    from daemon.config import load_configuration
    from daemon.errors import BackendError, ConfigurationError
    from daemon.recognition.backends import open_session
    from daemon.recognition.package import find_model

    configuration = load_configuration(config, verify=True)
    pinned = configuration.recognition.backend
    try:
        backends = {
            model: open_session(find_model(model).onnx_path, pinned).description
            for model in {model for source in configuration.sources for model in source.all_models}
        }
    except BackendError as error:
        raise ConfigurationError(f"{config}: recognition.backend: {error}") from error
    for source in configuration.sources:
        size = source.pixel_size_angstrom
        click.echo(f"{source.name}: {_way_in(source)}")
        for line in _models(source):
            click.echo(f"  {line}")
        click.echo(f"  backend {', '.join(sorted({backends[model] for model in source.all_models}))}")
        click.echo(f"  policy {source.policy}")
        if find_model(source.all_models[0]).manifest.input_frames > 1:
            by_name = f", by the file name ({source.series_pattern})" if source.series_pattern else ""
            click.echo(
                f"  focal series by series_id, by file{by_name}, else by defocus cycle; "
                f"given up when incomplete for {source.series_timeout_seconds:g} s"
            )
        if source.average_frames > 1:
            click.echo(f"  averages {source.average_frames} frames, weights {source.average_weights}")
        click.echo(
            f"  pixel size {f'{size} Å, whatever the frames say' if size else 'from what comes with each frame'}"
        )
    publish = configuration.publish
    results = "tables and overlays" if publish.files.overlays else "tables"
    click.echo(f"{results} go to {publish.files.directory}")
    if publish.zeromq:
        who = f"keys in {publish.zeromq.allowed_keys}" if publish.zeromq.keys else "whoever listens"
        click.echo(f"and to {who} at {publish.zeromq.endpoint}, again at {publish.zeromq.replay_endpoint}")
    click.echo(f"ledger {configuration.ledger_path}")


def _models(source: "Source") -> Iterator[str]:
    """Say which model analyses which frames."""
    for choice in source.models:
        yield f"model {choice.model} where {choice.conditions}"
    if not source.models:
        yield f"model {source.model}"
    elif source.model:
        yield f"model {source.model} for everything else, and where a frame does not tell"
    else:
        yield "no model for everything else, or where a frame does not tell: such a frame is an event"


def _way_in(source: "Source") -> str:
    """Say in a line where frames come from."""
    if source.type == "directory":
        patterns = [f"only {pattern}" for pattern in source.include] + [f"not {pattern}" for pattern in source.exclude]
        return f"watches {source.path}" + (f" ({', '.join(patterns)})" if patterns else "")
    verb = {"pull": "pulls", "sub": "subscribes to"}[source.socket]
    place = "bound to" if source.bind else "connected to"
    spool = f", spooled in {source.spool}" if source.spool else ""
    keys = f", with key {source.secret_key}" if source.keys else ""
    return f"{verb} {source.type} frames, {place} {source.endpoint}{keys}{spool}"


_DOCTOR_EPILOG = """\b
Example:
  hrtemd doctor --config config.toml

Exit statuses: 0 all that is needed works; 1 something marked FAILED does not; 2 unusable configuration.
"""


@click.command(epilog=_DOCTOR_EPILOG)
@click.option(
    "--config", metavar="FILE", type=CONFIG_FILE, help="Also look at the folders and models of this config.toml."
)
def doctor(config: Path | None) -> None:
    """Look at this machine, and time a frame.

    Reports engines and precision, GPU, models, folders with their permissions and file systems.
    """
    from daemon.config import load_configuration
    from daemon.doctor import Finding, State, examine

    findings: list[Finding] = []
    for finding in examine(load_configuration(config) if config else None):
        findings.append(finding)
        click.echo(f"{finding.state.value:8}{finding.subject}: {finding.detail}")
    if any(finding.state is State.FAILED for finding in findings):
        raise SystemExit(1)
