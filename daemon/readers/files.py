"""Which files of a folder are frames."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.errors import FrameError
from daemon.readers import plain, rosettasciio

SUFFIXES = frozenset({*plain.READERS, *rosettasciio.PLUGINS})
"""The file endings read, in lower case."""

# TIA's `x.emi` describes the pixels in `x_1.ser`, `x_2.ser` ...; RosettaSciIO follows it to one digit, no further.
_SER_OF_EMI = re.compile(r"(?P<stem>.+)_\d\.ser", re.IGNORECASE)


def frame_files(paths: Iterable[Path]) -> list[Path]:
    """Expand folders into the frames they hold, in natural order (`a2` before `a10`), each file once.

    A file named itself is taken whatever its ending: reading it then says what is wrong. Two things are no frames
    even so, because a shell's `*` names them too: the `.ser` files of a named `.emi`, and the sidecar of a named frame.

    Args:
        paths: Files and folders; folders are searched recursively, hidden ones left out.

    Raises:
        FrameError: A folder cannot be listed.
    """
    named: list[Path] = []
    for path in paths:
        named.extend(sorted(_files_within(path), key=_natural_key) if _is_folder(path) else [path])
    files = list(dict.fromkeys(named))
    emi_stems = {file.with_suffix("") for file in files if file.suffix.lower() == ".emi"}
    frame_stems = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    return [file for file in files if not _is_companion(file, emi_stems, frame_stems)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # reading it as a file then says what is wrong
        return False


def _files_within(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if _looks_like_frame(name))


def _refuse(error: OSError) -> None:
    raise FrameError(f"{error.filename}: the folder cannot be listed ({error.strerror}); check its permissions.")


def _looks_like_frame(name: str) -> bool:
    """Tell by name alone; a file under a temporary name (`x.tif.tmp`, `~x.tif`) has no ending or start of a frame."""
    name = name.lower()
    is_result = name.endswith(".overlay.png") or ".atoms." in name
    return not is_result and not name.startswith((".", "~")) and Path(name).suffix in SUFFIXES


def _is_companion(file: Path, emi_stems: set[Path], frame_stems: set[Path]) -> bool:
    if file.suffix.lower() == ".json":
        return file.with_suffix("") in frame_stems
    ser = _SER_OF_EMI.fullmatch(file.name)
    return ser is not None and file.with_name(ser["stem"]) in emi_stems


def _natural_key(path: Path) -> list[list[tuple[bool, int, str]]]:
    parts = [re.findall(r"[0-9]+|[^0-9]+", part) for part in path.parts]
    return [[(False, int(run), "") if run[0] in "0123456789" else (True, 0, run) for run in runs] for runs in parts]
