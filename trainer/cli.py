"""The command `hrtemd-train`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.errors import HrtemdError
from trainer.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from trainer.rebuild import Workspace

RECIPES = Path(__file__).parent / "recipes"


class _Stages(click.Group):
    """Ends in one sentence, not in a traceback, where a recipe or a folder cannot be used."""

    def invoke(self, context: click.Context) -> Any:
        """Run a stage."""
        try:
            return super().invoke(context)
        except (RecipeError, HrtemdError) as error:
            raise click.ClickException(str(error)) from error


_SHIPPED = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))

# A paragraph that begins with the control character \b is shown as it is written.
_HELP = f"""Rebuild hrtemd's networks from simulation.

A RECIPE is a TOML file, or the name of a shipped one: {_SHIPPED}.
Everything is made under --work (default runs/NAME) and goes on where it was interrupted.

\b
Example:
  hrtemd-train rebuild graphene --smoke     the whole way in two minutes, to see that it works
  hrtemd-train rebuild graphene             for real: hours
"""


@click.group(cls=_Stages, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """`hrtemd-train`."""


def _stage(help_text: str) -> Callable[[Callable[..., None]], click.Command]:
    """Give a stage's command the argument and options that all of them share."""

    def decorate(function: Callable[..., None]) -> click.Command:
        command = click.option(
            "--smoke", is_flag=True, help="A tiny run that proves the way, not the network; its own folder."
        )(function)
        command = click.option(
            "--work", type=click.Path(path_type=Path), help="Folder for exit waves, checkpoints and the package."
        )(command)
        command = click.argument("recipe")(command)
        return main.command(help=help_text)(command)

    return decorate


@_stage("Simulate the exit waves a recipe asks for; those that are there already are kept.")
def simulate(recipe: str, work: Path | None, smoke: bool) -> None:
    """`hrtemd-train simulate`."""
    _workspace(recipe, work, smoke).simulate()


@_stage("Train the network on simulated exit waves, imaged anew at every step.")
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Model package whose network to learn on from, made by a recipe with the same [network] and [series]; without "
    "it weights are random. A checkpoint in the work folder comes first.",
)
def train(recipe: str, work: Path | None, smoke: bool, start: Path | None) -> None:
    """`hrtemd-train train`."""
    from daemon.recognition.package import ModelPackage

    workspace = _workspace(recipe, work, smoke)
    if start is None:
        workspace.train()
    else:
        workspace.learn_on(ModelPackage.load(start))


@_stage("Calibrate the network on held-out frames and write the model package.")
def export(recipe: str, work: Path | None, smoke: bool) -> None:
    """`hrtemd-train export`."""
    package = _workspace(recipe, work, smoke).export()
    click.echo(f"The model package is {package.folder}. Check it with: hrtemd models verify {package.folder}")


@_stage("Measure the exported model on held-out frames, through the daemon's own code, and write its report.")
@click.option(
    "--real-graphene",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of experimental graphene images with calibration.csv, judged by the geometry of what is found.",
)
def evaluate(recipe: str, work: Path | None, smoke: bool, real_graphene: Path | None) -> None:
    """`hrtemd-train evaluate`."""
    workspace = _workspace(recipe, work, smoke)
    workspace.evaluate(real_graphene)
    click.echo(f"The report is in {workspace.package_folder / 'report'}.")


@_stage("All four stages: simulate, train, export, evaluate.")
def rebuild(recipe: str, work: Path | None, smoke: bool) -> None:
    """`hrtemd-train rebuild`."""
    workspace = _workspace(recipe, work, smoke)
    workspace.rebuild()
    click.echo(f"The model package is {workspace.package_folder}.")


def _workspace(recipe: str, work: Path | None, smoke: bool) -> "Workspace":
    # torch and abTEM take seconds to import, which --help should not wait for.
    from trainer.rebuild import Workspace

    loaded = Recipe.load(Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml")
    if smoke:
        loaded = loaded.smoke()
    return Workspace(loaded, work or Path("runs") / (loaded.name + ("-smoke" if smoke else "")))


if __name__ == "__main__":
    main()
