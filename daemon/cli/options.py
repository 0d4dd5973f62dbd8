"""Arguments that several commands share."""

import math
from pathlib import Path

import click

CONFIG_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

SECRET_KEY = click.option(
    "--secret-key", metavar="FILE", type=click.Path(path_type=Path), help="This side's own key (.key_secret)."
)
SERVER_KEY = click.option(
    "--server-key", metavar="FILE", type=click.Path(path_type=Path), help="Public key of whom to connect to (.key)."
)


class PositiveNumber(click.ParamType[float]):
    """A finite number above 0."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or refuse with a usage error."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            self.fail(f"{value!r} is not a number above 0.", param, ctx)
        return number
