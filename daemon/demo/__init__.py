"""`hrtemd demo`: the real daemon on simulated frames whose atoms are known."""

import tempfile
from pathlib import Path

import click

from daemon.demo.trial import Trial
from daemon.demo.truth import SHIPPED_SAMPLES, Expected, Truth, load_truths
from daemon.errors import FrameError, HrtemdError

LIMIT_SECONDS = 55.0
"""`hrtemd demo` ends within a minute, whatever happens."""


def run_demo(keep: Path | None = None, samples: Path = SHIPPED_SAMPLES) -> int:
    """Drop the samples one by one into a folder that the daemon watches, and show what it finds.

    Args:
        keep: A new or empty folder for everything the demo makes; None for one in the system's temporary folder, which
            stays there too, since its results are what the demo is for.
        samples: Folder with the frames and `truth.json`.

    Returns:
        The exit status: 0 where every frame was analysed and its count agrees with the truth, else 1.

    Raises:
        HrtemdError: The daemon did not start, ended early or took too long.
    """
    truths = load_truths(samples)
    folder = _working_folder(keep)
    click.echo(f"Starting the daemon in {folder} ...")
    with Trial(folder, {truth.model for truth in truths.values()}, LIMIT_SECONDS) as trial:
        click.echo(f"Dropping {len(truths)} simulated frames into {trial.incoming}, one by one:\n")
        problems = _show_findings(trial, truths)
    if not problems:
        undrawn = [file.name for file in truths if not trial.overlay_of(file).exists()]
        problems = [f"{name} has no overlay; {trial.log} says why." for name in undrawn]
    click.echo(_conclusion(trial, truths, problems))
    return 1 if problems else 0


def _working_folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="hrtemd-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise HrtemdError(f"The folder {keep} is not empty; name a new one, so that nothing in it is overwritten.")
    return keep.resolve()


def _show_findings(trial: Trial, truths: dict[Path, Truth]) -> list[str]:
    """Print a line a frame as it is analysed; return what went wrong."""
    name_width = max(len(file.name) for file in truths)
    description_width = max(len(truth.description) for truth in truths.values())
    click.echo(f"  {'frame':{name_width}}  {'':{description_width}}  {'expected':>12}  {'found':>7}  {'latency':>9}")
    problems = []
    for file, truth in truths.items():
        expected = str(Expected(count=truth.atoms, tolerance=truth.tolerance))
        click.echo(f"  {file.name:{name_width}}  {truth.description:{description_width}}  {expected:>12}", nl=False)
        try:
            finding = trial.analyse(file, truth)
        except FrameError as error:
            click.echo("   failed")
            problems.append(f"{file.name} was not analysed: {error}")
            continue
        differences = truth.differences(finding.rows, finding.counts)
        click.echo(f"  {finding.rows:>7,}  {finding.latency_ms:>6.0f} ms{'  <- differs' if differences else ''}")
        if truth.counts:
            told = (f"{finding.counts.get(name, 0):,} {name} ({is_true})" for name, is_true in truth.counts.items())
            click.echo(f"  {'':{name_width}}  {', '.join(told)}")
        if differences:
            problems.append(
                f"In {file.name} the daemon found {' and '.join(differences)}; compare {trial.overlay_of(file)}."
            )
    return problems


def _conclusion(trial: Trial, truths: dict[Path, Truth], problems: list[str]) -> str:
    model = next(iter(truths.values())).model
    if problems:
        verdict = "\n".join(["The demo failed:", *(f"  {problem}" for problem in problems)])
    else:
        verdict = f"All {len(truths)} frames were analysed, and the counts agree with what was simulated."
    return f"""
{verdict}

  atom tables    {trial.results}/*.atoms.csv, *.atoms.parquet
  overlays       {trial.results}/*.overlay.png
  daemon's log   {trial.log}

Try next, with images of your own:
  hrtemd process IMAGE... --output results --model {model}
  hrtemd check --config {trial.config}
  hrtemd run --config {trial.config}
      and then copy images into {trial.folder_of(model)}
"""
