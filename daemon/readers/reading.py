"""One file -> its frames: pixels, pixel size, how and when they were taken."""

import os
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
from daemon.readers.growing import MRC_SUFFIXES, read_growing, read_mrc
from daemon.readers.guard import guarded
from daemon.readers.limits import DEFAULT_LIMITS, ReadLimits
from daemon.readers.sidecar import merge, read_sidecar
from daemon.readers.stack import ImageStack


def read_frames(
    path: Path,
    *,
    source: str = "files",
    pixel_size_angstrom: float | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
    images: range | None = None,
) -> Iterator[Frame | FrameError]:
    """Yield the frames of one file, loading a long stack image by image.

    A frame is named by the file's stem; of several, `STEM-0000`, `STEM-0001` and so on. Where the file does not tell
    when it was taken, the time it was last written stands for it. An image of a stack that is no frame gives its error
    and the others their frames.

    Args:
        path: A file of any format in `SUFFIXES`; a sidecar `.json` beside it is heeded.
        source: The first part of `frame_id`.
        pixel_size_angstrom: Beats the sidecar, which beats the file's own metadata.
        limits: Beyond them a file is refused before its pixels are loaded.
        images: Only these, of a stack that may still grow and of which they are whole; see `extent_of`.

    Raises:
        FrameError: The file, its sidecar or its only image cannot be used; nothing else is ever raised.
    """
    written_at = _written_at(path)
    sidecar = read_sidecar(path)
    if images is None:
        stacks = guarded(path.name, partial(_read_stacks, path, limits))
        n_images = sum(len(stack.positions()) for stack in stacks)
        is_stack = n_images > 1
    else:
        stack, n_images = guarded(path.name, partial(read_growing, path, images, limits))
        stacks, is_stack = [stack], True
    sidecar.check_lengths(n_images, path.with_suffix(".json").name, or_more=images is not None)
    located = [(stack, position) for stack in stacks for position in stack.positions()]
    # All at once, since a wrong size is the file's or the sidecar's fault, not one image's.
    calibrations = [
        calibrate(stack, path, pixel_size_angstrom, sidecar.for_image(index).get("pixel_size_angstrom"))
        for index, (stack, _) in enumerate(located)
    ]
    for index in range(n_images) if images is None else images:
        stack, position = located[index]
        name = f"{path.stem}-{index:04d}" if is_stack else path.stem
        where = name if is_stack else path.name
        try:
            pixels = validate_pixels(guarded(where, partial(stack.load, position)), where)
        except FrameError as error:
            if not is_stack:
                raise
            yield error
            continue
        acquisition = merge(stack.acquisition, sidecar.for_image(index))
        number = index if acquisition.series_index is None else acquisition.series_index
        yield Frame(
            pixels=pixels,
            frame_id=make_frame_id(source, acquisition.series_id or path.name, number, pixels),
            name=name,
            calibration=calibrations[index],
            acquisition=acquisition,
            images_in_file=n_images,
            acquired_at=stack.acquired_at or written_at,
        )


def _written_at(path: Path) -> datetime:
    """Return when a file was last written, having made sure that it can be opened and is of a known kind."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):  # of a folder that could not be searched for files, this says why
            os.scandir(path).close()
        if not stat.S_ISREG(status.st_mode):
            raise FrameError(f"{path}: this is not a file; name the image files, or a folder that holds some.")
        path.open("rb").close()
    except FileNotFoundError:
        raise FrameError(f"{path}: there is no such file; check the name.") from None
    except PermissionError:
        raise FrameError(f"{path}: permission denied; allow this account to read it.") from None
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


def _read_stacks(path: Path, limits: ReadLimits) -> list[ImageStack]:
    suffix = path.suffix.lower()
    read = read_mrc if suffix in MRC_SUFFIXES else plain.READERS.get(suffix, rosettasciio.read)
    stacks = read(path, limits)
    for stack in stacks:
        limits.check_frame(stack.pixels.shape, path.name)
    return stacks
