"""`hrtemd keys`: key pairs for sockets that other machines can reach."""

from pathlib import Path

import click

_EPILOG = """\b
Example:
  hrtemd keys keys daemon laptop

Exit statuses: 0 done; 1 a file cannot be written; 2 there is such a key already.
"""


@click.command(epilog=_EPILOG)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def keys(folder: Path, names: tuple[str, ...]) -> None:
    """Make a key pair for each program.

    FOLDER/NAME.key is its public key: give it to those it talks to. FOLDER/NAME.key_secret is its own: move it to where
    the program runs, and let nobody else read it. docs/keys.md says where each goes.
    """
    from daemon.keys import make_keys

    for name in names:
        for path in make_keys(folder, name):
            click.echo(path)
