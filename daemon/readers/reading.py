"""One file -> its frames: pixels, pixel size, how and when they were taken."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from daemon.errors import FrameError
from daemon.frames import Frame, make_frame_id, validate_pixels
from daemon.readers import plain, rosettasciio
from daemon.readers.calibration import calibrate
from daemon.readers.files import SUFFIXES
from daemon.readers.guard import guarded
from daemon.readers.sidecar import merge, read_sidecar
from daemon.readers.stack import ImageStack


def read_frames(path: Path, *, source: str = "files", pixel_size_angstrom: float | None = None) -> Iterator[Frame]:
    """Yield the frames of one file, loading a long stack image by image.

    A frame is named by the file's stem; of several, `STEM-0000`, `STEM-0001` and so on. Where the file does not tell
    when it was taken, the time it was last written stands for it.

    Args:
        path: A file of any format in `SUFFIXES`; a sidecar `.json` beside it is heeded.
        source: The first part of `frame_id`.
        pixel_size_angstrom: Beats the sidecar, which beats the file's own metadata.

    Raises:
        FrameError: The file, its sidecar or one of its images cannot be used; nothing else is ever raised.
    """
    written_at = _written_at(path)
    sidecar = read_sidecar(path)
    stacks = guarded(path, partial(_read_stacks, path))
    images = [(stack, position) for stack in stacks for position in stack.positions()]
    sidecar.check_lengths(len(images), path.with_suffix(".json").name)
    for index, (stack, position) in enumerate(images):
        name = path.stem if len(images) == 1 else f"{path.stem}-{index:04d}"
        keys = sidecar.for_image(index)
        calibration = calibrate(stack, path, pixel_size_angstrom, keys.get("pixel_size_angstrom"))
        acquisition = merge(stack.acquisition, keys)
        number = index if acquisition.series_index is None else acquisition.series_index
        pixels = guarded(path, partial(stack.load, position))
        pixels = validate_pixels(pixels, path.name if len(images) == 1 else f"{path.name}, image {index}")
        yield Frame(
            pixels=pixels,
            frame_id=make_frame_id(source, acquisition.series_id or path.name, number, pixels),
            name=name,
            calibration=calibration,
            acquisition=acquisition,
            acquired_at=stack.acquired_at or written_at,
        )


def _written_at(path: Path) -> datetime:
    """Return when a file was last written, having made sure that it can be opened and is of a known kind."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FrameError(f"{path}: this is not a file; name the image files, or a folder that holds some.")
        path.open("rb").close()
    except FileNotFoundError:
        raise FrameError(f"{path}: there is no such file; check the name.") from None
    except PermissionError:
        raise FrameError(f"{path}: permission denied; allow this account to read the file.") from None
    except (OSError, ValueError) as error:
        raise FrameError(f"{path}: the file cannot be opened ({error}); check the disk or network share.") from None
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(sorted(SUFFIXES))
        raise FrameError(
            f"{path.name}: files ending in {path.suffix or 'nothing'} are not read; export one of {known}."
        )
    if status.st_size == 0:
        raise FrameError(f"{path.name}: the file is empty; it may still be being written, or its export failed.")
    return datetime.fromtimestamp(status.st_mtime, UTC)


def _read_stacks(path: Path) -> list[ImageStack]:
    plain_reader = plain.READERS.get(path.suffix.lower())
    return plain_reader(path) if plain_reader else rosettasciio.read(path)
