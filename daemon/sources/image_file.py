"""The frames of one image file, as arrivals."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from time import perf_counter

from daemon.errors import FrameError
from daemon.readers import DEFAULT_LIMITS, ReadLimits, parts_of, read_frames
from daemon.sources.source import TOP, Arrival, Failure


def changed_at(*files: Path) -> float:
    """Return when the last of the files that exist changed, in seconds since 1970; 0 where none does."""
    newest = 0.0
    for file in files:
        try:
            status = file.stat()
        except OSError:  # not there, or reading the frame says what is wrong
            continue
        # The time of the last change of name counts too: a file moved here keeps the time it was written.
        newest = max(newest, status.st_mtime, status.st_ctime)
    return newest


def unreadable(path: Path, source: str, error: Exception) -> Failure:
    """A file, or an image of one, that is no frame."""
    return Failure(source, str(path), error, frame_id=f"unreadable/{path}")


def arrivals_from(
    path: Path,
    *,
    source: str,
    pixel_size_angstrom: float | None,
    folder: PurePosixPath = TOP,
    resumed: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
    images: range | None = None,
) -> Iterator[Arrival | Failure]:
    """Read a file frame by frame, each when it is asked for; an image of a stack that is no frame is a failure.

    Args:
        path: The image file.
        source: Name of the source.
        pixel_size_angstrom: Å per pixel; beats what file and sidecar say.
        folder: Folder below the results directory that its results belong in.
        resumed: It was there before the daemon started.
        limits: Beyond them the file is refused.
        images: Only these, of a stack that may still grow.

    Raises:
        FrameError: The file, or its only image, is not a frame.
    """
    _, sidecar, *_ = parts_of(path)
    described_at = changed_at(sidecar)
    frames = iter(
        read_frames(path, source=source, pixel_size_angstrom=pixel_size_angstrom, limits=limits, images=images)
    )
    while True:
        started = perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        read_ms = 1e3 * (perf_counter() - started)
        if isinstance(frame, FrameError):
            yield unreadable(path, source, frame)
        else:
            yield Arrival(source, str(path.resolve()), frame, read_ms, folder, resumed, described_at)
