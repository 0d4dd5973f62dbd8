"""`hrtemd models`: the networks that came with this installation."""

import click

_MODELS_EPILOG = """\b
Example:
  hrtemd models show graphene

Exit statuses: 0 done; 2 there is no such model, or it is damaged.
"""


@click.group(epilog=_MODELS_EPILOG)
def models() -> None:
    """List, show and verify models."""


@models.command("list")
def list_models() -> None:
    """List the shipped models.

    One a line: name, version, specimen, frames, Å per pixel it was trained for.
    """
    from daemon.recognition.package import find_model, shipped_models

    for name in shipped_models():
        manifest = find_model(name).manifest
        frames = "single frames" if manifest.input_frames == 1 else f"series of {manifest.input_frames}"
        low, high = manifest.ranges.pixel_size_angstrom
        click.echo(f"{name:24} {manifest.version:8} {manifest.specimen}, {frames}, {low:g} to {high:g} Å/px")


@models.command("show")
@click.argument("name")
def show_model(name: str) -> None:
    """Print a model's manifest as JSON.

    NAME is that of a shipped model, or the folder of a model package.
    """
    from daemon.recognition.package import find_model

    click.echo(find_model(name).manifest.model_dump_json(indent=2))


@models.command("verify")
@click.argument("name", required=False)
def verify_models(name: str | None) -> None:
    """Verify that models are undamaged.

    Each must be complete, and its network the one its manifest speaks of. Without NAME, all shipped ones are verified.
    """
    from daemon.errors import ModelError
    from daemon.recognition.package import find_model, shipped_models

    names = [name] if name else shipped_models()
    if not names:
        raise ModelError("No models are shipped with this installation; install hrtemd again.")
    damaged = False
    for name in names:
        try:
            package = find_model(name)
        except ModelError as error:
            damaged = True
            click.echo(f"{name}: damaged: {error}", err=True)
        else:
            click.echo(f"{name}: verified, SHA-256 {package.manifest.onnx_sha256}")
    if damaged:
        raise SystemExit(2)
