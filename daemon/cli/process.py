"""`hrtemd process`: analyse files once."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.options import CONFIG_FILE, PositiveNumber

if TYPE_CHECKING:
    from daemon.batch import Report
    from daemon.config import Configuration

_PROCESS_EPILOG = """\b
Example:
  hrtemd process session/ --output results --model graphene --pixel-size 0.12

Exit statuses: 0 every frame was analysed; 1 some lack results, see `error` and `warnings` in summary.json; 2 unusable
arguments or configuration, nothing was done.
"""


@click.command(epilog=_PROCESS_EPILOG)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--output", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results; made where it does not exist.",
)  # fmt: skip
@click.option(
    "--config", metavar="FILE", type=CONFIG_FILE,
    help="Take model, pixel size and series pattern of the first source, backend, limits and overlays from this "
    "config.toml.",
)  # fmt: skip
@click.option("--model", metavar="NAME", help="A shipped model (`hrtemd models list`) or a package's folder.")
@click.option(
    "--pixel-size", metavar="ANGSTROM", type=PositiveNumber("Å per pixel"),
    help="Å per pixel; beats what files, sidecars and --config say.",
)  # fmt: skip
@click.option(
    "--series", type=click.Choice(["stack", "metadata", "none"]), default="none", show_default=True,
    help="How frames make a focal series: the images of one file; by series_id, file name or defocus; or not at all.",
)  # fmt: skip
def process(
    paths: tuple[Path, ...], output: Path, config: Path | None, model: str | None, pixel_size: float | None, series: str
) -> None:
    """Find the atoms in image files and folders, once.

    For each frame writes STEM.atoms.csv, STEM.atoms.parquet and STEM.overlay.png, and summary.json for all. The images
    of a multi-frame file become STEM-0000, STEM-0001 and so on; of two frames of one name the later becomes STEM-2.

    With a model for focal series, --series stack makes one series of the images of each file. --series metadata groups
    all frames: by series_id in metadata or sidecar, by series_pattern of --config, or as a repeating defocus cycle.
    """
    from daemon.batch import SOURCE, Batch
    from daemon.config import Configuration, load_configuration
    from daemon.drops import Drops
    from daemon.publish.files import FilePublisher
    from daemon.readers import frame_files
    from daemon.recognition.package import find_model
    from daemon.recognition.recogniser import Recogniser
    from daemon.series.grouping import Grouping
    from daemon.series.membership import rules_for

    configuration = load_configuration(config) if config else Configuration()
    package = find_model(model or _model_of(configuration))
    manifest = package.manifest
    _refuse_mismatched_series(series, manifest.name, manifest.input_frames)
    files = frame_files(paths)
    if not files:
        raise click.UsageError(f"There is no image file in {', '.join(map(str, paths))}; name files or other folders.")
    if pixel_size is None and configuration.sources:
        pixel_size = configuration.sources[0].pixel_size_angstrom

    publisher = FilePublisher(output, overlays=configuration.publish.files.overlays)
    recogniser = Recogniser(package, configuration.recognition.backend)
    click.echo(f"{len(files)} files, model {manifest.name} on {recogniser.backend}", err=True)
    grouping = None
    if series != "none":
        pattern = configuration.sources[0].series_pattern if configuration.sources else None
        grouping = Grouping(SOURCE, rules_for(series, pattern), lambda _: manifest.ranges, Drops())
    batch = Batch(recogniser, publisher, pixel_size, configuration.limits.for_reading(), grouping)
    reports = _run(batch.process(files), output)
    failed = sum(report.error is not None for report in reports)
    what = "frames" if series == "none" else "series"
    click.echo(f"{len(reports) - failed} {what} analysed, {failed} failed; results are in {output}", err=True)
    if not all(report.complete for report in reports):
        raise SystemExit(1)


def _model_of(configuration: "Configuration") -> str:
    if configuration.sources:
        return configuration.sources[0].all_models[-1]  # for everything else, where there are several
    from daemon.recognition.package import shipped_models

    shipped = ", ".join(shipped_models()) or "none is shipped with this version; name the folder of a model package"
    raise click.UsageError(f"Which model? Give --model NAME, or --config FILE with a source. Models: {shipped}.")


def _refuse_mismatched_series(series: str, model: str, input_frames: int) -> None:
    if input_frames == 1 and series != "none":
        raise click.UsageError(f"--series {series}: the model {model!r} takes single frames; leave --series out.")
    if input_frames != 1 and series == "none":
        raise click.UsageError(
            f"The model {model!r} takes focal series of {input_frames} frames; say how they are grouped: --series "
            "stack for the images of one file, --series metadata by series_id, file name or defocus."
        )


def _run(batch: "Iterator[Report]", output: Path) -> "list[Report]":
    """Tell the operator of each frame as it is done, and write the summary even if stopped on the way."""
    from daemon.publish.files import write_json

    reports: list[Report] = []
    try:
        for report in batch:
            reports.append(report)
            click.echo(_line(report), err=True)
    finally:
        write_json(output / "summary.json", [asdict(report) for report in reports])
    return reports


def _line(report: "Report") -> str:
    from daemon.errors import beginning_with_file

    if report.error is not None:
        return f"failed: {beginning_with_file(report.error, report.file)}"
    warnings = "".join(f"; warning: {warning}" for warning in report.warnings)
    return f"{report.file}: {report.found} in {report.latency_ms:.0f} ms -> {report.stem}{warnings}"
