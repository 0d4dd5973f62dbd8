"""The command `hrtemd`.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import errno
import os
from typing import Any

import click

from daemon.cli.check import check, doctor
from daemon.cli.export import export
from daemon.cli.keys import keys
from daemon.cli.ledger import ledger
from daemon.cli.models import models
from daemon.cli.process import process
from daemon.cli.replay import replay
from daemon.cli.run import demo, run
from daemon.cli.tail import tail
from daemon.errors import ConfigurationError, HrtemdError, ModelError, explain


class _Failure(click.ClickException):
    def __init__(self, error: HrtemdError) -> None:
        super().__init__(str(error))
        self.exit_code = 2 if isinstance(error, ConfigurationError | ModelError) else 1  # type: ignore[misc]


class _Commands(click.Group):
    """Turns hrtemd's own errors into a message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HrtemdError as error:
            raise _Failure(error) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever reads our output has had enough; click ends quietly
                raise
            raise _Failure(HrtemdError(explain(error))) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="hrtemd")
def main() -> None:
    """Find the atoms in HRTEM frames while the sample is still under the beam.

    Exit statuses of every command: 0 done, 1 some of it failed, 2 unusable arguments or configuration.
    """
    # Read when NumPy is imported. Our matrices are small; with more threads, BLAS has them wait busily for the next
    # one, in the way of all others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


for _command in (demo, process, run, replay, tail, check, doctor, keys, ledger, models, export):
    main.add_command(_command)
