"""The frames of one image file, as arrivals."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from time import perf_counter

from daemon.publish.files import OVERLAY_SUFFIX
from daemon.readers import SUFFIXES, frame_files, read_frames
from daemon.sources.source import TOP, Arrival


def may_hold_frames(path: Path) -> bool:
    """Whether a file's name is that of an image: not hidden or temporary, and not one of hrtemd's own overlays."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or path.name.startswith((".", "~")) or path.name.endswith(OVERLAY_SUFFIX):
        return False
    # TIA's .ser files hold the pixels of an .emi beside them, which is the frame.
    return suffix != ".ser" or path in frame_files([path, *path.parent.glob("*.emi")])


def arrivals_from(
    path: Path,
    *,
    source: str,
    pixel_size_angstrom: float | None,
    folder: PurePosixPath = TOP,
    resumed: bool = False,
) -> Iterator[Arrival]:
    """Read a file frame by frame, each when it is asked for.

    Args:
        path: The image file.
        source: Name of the source.
        pixel_size_angstrom: Å per pixel; beats what file and sidecar say.
        folder: Folder below the results directory that its results belong in.
        resumed: It was there before the daemon started.

    Raises:
        FrameError: The file, or the next image in it, is not a frame.
    """
    frames = iter(read_frames(path, source=source, pixel_size_angstrom=pixel_size_angstrom))
    while True:
        started = perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        read_ms = 1e3 * (perf_counter() - started)
        yield Arrival(source, str(path.resolve()), frame, read_ms, folder, resumed)
