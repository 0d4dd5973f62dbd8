"""`hrtemd replay`: recorded frames, sent as a camera would."""

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from daemon.cli.options import SECRET_KEY, SERVER_KEY, PositiveNumber

if TYPE_CHECKING:
    from daemon.sources.simulator import Shot

_EPILOG = """\b
Example:
  hrtemd replay session/ --to tcp://127.0.0.1:9999 --bind --format dectris-stream2 --rate 10 --loop

Exit statuses: 0 all was sent, or stopped by Ctrl-C; 1 the endpoint cannot be used, or some files cannot be read;
2 unusable arguments.
"""

_SHARE = click.FloatRange(0.0, 1.0)


@click.command(epilog=_EPILOG)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--to", "endpoint", metavar="ENDPOINT", required=True, help="Such as tcp://127.0.0.1:9999.")
@click.option(
    "--format", "format_name", type=click.Choice(["array-1.0", "dectris-v1", "dectris-stream2"]), required=True,
    help="How frames are written into messages.",
)  # fmt: skip
@click.option(
    "--rate", metavar="HZ", type=PositiveNumber("frames a second"), default=1.0, show_default=True,
    help="Frames a second.",
)  # fmt: skip
@click.option("--loop", is_flag=True, help="Begin again after the last frame, with a new series.")
@click.option(
    "--socket", type=click.Choice(["push", "pub"]), default="push", show_default=True,
    help="push for a source that pulls, pub for one that subscribes.",
)  # fmt: skip
@click.option("--bind", is_flag=True, help="Wait for the daemon to connect, as cameras do.")
@SECRET_KEY
@SERVER_KEY
@click.option(
    "--allowed-keys", metavar="FOLDER", type=click.Path(path_type=Path), help="With --bind: keys that may connect."
)
@click.option("--drop", metavar="SHARE", type=_SHARE, default=0.0, help="Fault: leave out this share of the frames.")
@click.option("--corrupt", metavar="SHARE", type=_SHARE, default=0.0, help="Fault: damage this share of the frames.")
@click.option(
    "--abort-after", metavar="N", type=click.IntRange(min=1), help="Fault: end each series after N frames, unannounced."
)
@click.option("--no-start", is_flag=True, help="Fault: do not announce any series.")
@click.option(
    "--jitter", metavar="SHARE", type=_SHARE, default=0.0,
    help="Make pauses between frames longer or shorter by up to this share.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of faults and jitter.")
def replay(
    paths: tuple[Path, ...], endpoint: str, format_name: str, rate: float, loop: bool, socket: Literal["push", "pub"],
    bind: bool, secret_key: Path | None, server_key: Path | None, allowed_keys: Path | None,
    drop: float, corrupt: float, abort_after: int | None, no_start: bool, jitter: float, seed: int,
) -> None:  # fmt: skip
    """Send recorded frames as a camera would.

    What sidecars say of frames rides along. Each pass over the files is one series, and focal series that sidecars name
    get another name in each. Ctrl-C ends it.
    """
    from random import Random

    from daemon.keys import keys_for
    from daemon.readers import frame_files
    from daemon.sources.formats import FORMATS
    from daemon.sources.replay import Pace, camera, play, shots_from, taken_again
    from daemon.sources.simulator import Faults

    keys = keys_for(binds=bind, secret=secret_key, allowed=allowed_keys, server=server_key)
    files = frame_files(paths)
    if not files:
        raise click.UsageError(f"There is no image file in {', '.join(map(str, paths))}; name files or other folders.")
    unread: set[str] = set()

    def say_once(sentence: str) -> None:
        if sentence not in unread:
            unread.add(sentence)
            say(sentence)

    def passes() -> Iterator[Iterable["Shot"]]:
        yield shots_from(files, say_once)
        for times in count(1):
            if not loop or (unread and not sent):  # where no file can be read, none can in the next pass
                return
            yield taken_again(shots_from(files, say_once), times)

    simulator, chance, sent = FORMATS[format_name].simulator(), Random(seed), 0
    faults = Faults(drop, corrupt, abort_after, no_start)
    try:
        with camera(endpoint, socket, bind=bind, keys=keys, say=say) as opened:
            for _ in play(opened, simulator, passes(), Pace(rate, jitter), faults, chance):
                sent += 1
    except KeyboardInterrupt:
        say("stopped")
    say(f"{sent} frames sent")
    if unread:
        raise SystemExit(1)


def say(sentence: str) -> None:
    """Tell the user; standard output stays free."""
    click.echo(sentence, err=True)
