"""Which files of a folder are frames, and which files belong to a frame."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

from daemon.readers import plain, rosettasciio

SUFFIXES = frozenset({*plain.READERS, *rosettasciio.PLUGINS})
"""The file endings read, in lower case."""

_SCREEN_PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".webp"})
"""Endings of pictures made to be looked at: eight bits a pixel, often lossy. They are not read."""

# TIA's `x.emi` describes the pixels in `x_1.ser`, `x_2.ser` ...; RosettaSciIO follows it to one digit, no further.
_SER_OF_EMI = re.compile(r"(?P<stem>.+)_\d\.ser", re.IGNORECASE)


def frame_files(paths: Iterable[Path]) -> list[Path]:
    """Expand folders into the frames they hold, in natural order (`a2` before `a10`), each file once.

    A file named itself is taken whatever its ending: reading it then says what is wrong. Two things are no frames
    even so, because a shell's `*` names them too: the `.ser` files of a named `.emi`, and the sidecar of a named frame.

    Args:
        paths: Files and folders; folders are searched recursively, hidden ones left out. A folder that cannot be listed
            stands for itself: reading it then says why.
    """
    named: list[Path] = []
    for path in paths:
        unlisted: list[OSError] = []
        found = [*frames_within(path, unlisted.append)] if _is_folder(path) else [path]
        found += [Path(error.filename) for error in unlisted]
        named += sorted(found, key=_natural_key)
    files = list(dict.fromkeys(named))
    emi_stems = {file.with_suffix("") for file in files if file.suffix.lower() == ".emi"}
    frame_stems = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    return [file for file in files if not _is_companion(file, emi_stems, frame_stems)]


def frames_within(
    folder: Path, onerror: Callable[[OSError], None], on_picture: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Yield the frames of a folder and all below it, hidden ones left out, in no order.

    Args:
        folder: Where.
        onerror: As of `os.walk`.
        on_picture: Called with each picture for the screen among them.
    """
    for parent, folders, names in os.walk(folder, onerror=onerror):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if on_picture:
            for name in filter(is_screen_picture, names):
                on_picture(Path(parent, name))
        yield from _frames_among(names, Path(parent))


def frames_read_from(parts: Set[Path], folder: Path) -> list[Path]:
    """Return the frames of a folder, though not of those below it, that are read from any of `parts` (see `parts_of`).

    Raises:
        OSError: The folder cannot be listed.
    """
    beginnings = {_beginning(part.name) for part in parts}
    names = [name for name in os.listdir(folder) if _beginning(name) in beginnings]  # noqa: PTH208 (names are wanted)
    return [frame for frame in _frames_among(names, folder) if not parts.isdisjoint(parts_of(frame))]


def parts_of(frame: Path) -> list[Path]:
    """Return what a frame is read from, if it exists: its file, its sidecar, and the `.ser` files of an `.emi`."""
    parts = [frame, frame.with_suffix(".json")]
    if frame.suffix.lower() == ".emi":
        parts += [frame.with_name(f"{frame.stem}_{digit}.ser") for digit in range(10)]
    return parts


def may_hold_frames(name: str) -> bool:
    """Tell by a file's name alone; one of hrtemd's overlays or a temporary name (`x.tif.tmp`, `~x.tif`) does not."""
    name = name.lower()
    return Path(name).suffix in SUFFIXES and not name.startswith((".", "~")) and not name.endswith(".overlay.png")


def is_screen_picture(name: str) -> bool:
    """Tell by a file's name alone."""
    return Path(name).suffix.lower() in _SCREEN_PICTURES


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # reading it as a file then says what is wrong
        return False


def _frames_among(names: Iterable[str], folder: Path) -> list[Path]:
    """Return the files of one folder that are frames, of an `.emi` and its `.ser` files only the `.emi`."""
    files = [folder / name for name in names if may_hold_frames(name)]
    emi_stems = {file.with_suffix("") for file in files if file.suffix.lower() == ".emi"}
    return [file for file in files if not _is_companion(file, emi_stems, set())]


def _beginning(name: str) -> str:
    """Return what the names of a frame's parts have in common, and few others."""
    return re.sub(r"(_[0-9])?(\.[^.]*)?$", "", name, count=1)


def _is_companion(file: Path, emi_stems: set[Path], frame_stems: set[Path]) -> bool:
    if file.suffix.lower() == ".json":
        return file.with_suffix("") in frame_stems
    ser = _SER_OF_EMI.fullmatch(file.name)
    return ser is not None and file.with_name(ser["stem"]) in emi_stems


def _natural_key(path: Path) -> list[list[tuple[bool, int, str]]]:
    parts = [re.findall(r"[0-9]+|[^0-9]+", part) for part in path.parts]
    return [[(False, int(run), "") if run[0] in "0123456789" else (True, 0, run) for run in runs] for runs in parts]
