"""`hrtemd export`: atom tables for other programs."""

import sys
from pathlib import Path

import click

_EXPORT_EPILOG = """\b
Example:
  hrtemd export results/frame.atoms.parquet --format imagej-roi --output frame.roi

Exit statuses: 0 done; 1 TABLE is not an atom table, or FILE cannot be written; 2 unusable arguments.
"""


@click.command(epilog=_EXPORT_EPILOG)
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format", "format_", required=True, metavar="FORMAT",
    help="csv for spreadsheets; extxyz for ASE and OVITO, in Å; imagej-roi for ImageJ and Fiji, in pixels.",
)  # fmt: skip
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; standard output where left out.",
)  # fmt: skip
def export(table: Path, format_: str, output: Path | None) -> None:
    """Convert an atom table for another program.

    TABLE is a STEM.atoms.parquet.
    """
    import pyarrow as pa

    from daemon.atoms import SCHEMA, read_parquet
    from daemon.errors import HrtemdError
    from daemon.publish.convert import convert_table
    from daemon.publish.files import replacing

    try:
        atoms = read_parquet(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise HrtemdError(f"{table}: not a Parquet file ({error}); name a STEM.atoms.parquet.") from error
    if atoms.schema.names != SCHEMA.names:
        raise HrtemdError(f"{table}: holds no atoms; name a STEM.atoms.parquet that hrtemd wrote.")
    content = convert_table(atoms, format_)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_bytes(content)
    elif format_ == "imagej-roi" and sys.stdout.isatty():
        raise click.UsageError("An ImageJ selection is not text for a terminal; give --output FILE.roi.")
    else:
        sys.stdout.buffer.write(content)
