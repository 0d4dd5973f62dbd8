"""`hrtemd run` and `hrtemd demo`: the daemon at work."""

from pathlib import Path

import click

from daemon.cli.options import CONFIG_FILE

_RUN_EPILOG = """\b
Example:
  hrtemd run --config config.toml

Exit statuses: 0 stopped on request; 1 no source is left, no engine runs the model, or another hrtemd runs on the same
folders; 2 unusable configuration.
"""


@click.command(epilog=_RUN_EPILOG)
@click.option("--config", metavar="FILE", type=CONFIG_FILE, required=True, help="The daemon's config.toml.")
def run(config: Path) -> None:
    """Analyse frames as they come, until stopped.

    SIGTERM or Ctrl-C ends the daemon once the frame in work is finished; a second one ends it at once. What was not
    analysed is analysed at the next start. One line for each frame goes to stderr; errors also go to events.jsonl in
    the results folder.
    """
    from daemon.config import load_configuration
    from daemon.log import log_to_stderr
    from daemon.service import run_daemon

    configuration = load_configuration(config, verify=True)
    with log_to_stderr():
        status = run_daemon(configuration)
    raise SystemExit(status)


_DEMO_EPILOG = """\b
Example:
  hrtemd demo

Exit statuses: 0 every frame was analysed and its count agrees with the truth; 1 otherwise.
"""


@click.command(epilog=_DEMO_EPILOG)
@click.option(
    "--keep", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="A new or empty folder for frames, results and log, instead of one in the system's temporary folder.",
)  # fmt: skip
def demo(keep: Path | None) -> None:
    """Show the daemon at work on simulated frames.

    Their atoms are known, so the counts are checked. Takes less than a minute.
    """
    from daemon.demo import run_demo

    raise SystemExit(run_demo(keep))
