"""Frames of one series to a focal series of three: are they fit to be analysed together, and which three of more."""

import hashlib
from collections.abc import Sequence
from itertools import combinations

from daemon.errors import FrameError
from daemon.frames import FocalSeries, Frame
from daemon.recognition.package import Range, StatedRanges

FRAMES = 3

LEAST_STEP_ANGSTROM = 5.0
"""Frames whose defocus differs by less count as taken at the same one: two of them tell no more than one."""

_PIXEL_SIZE_TOLERANCE = 1e-3


def focal_series(frames: Sequence[Frame], source: str, name: str, ranges: StatedRanges) -> FocalSeries:
    """Make a focal series of its frames, or of the best three where there are more.

    The best three are those whose middle defocus and two steps lie nearest to the middles of the model's ranges: each
    distance is taken in half widths of its range, and the largest of the three distances counts.

    Args:
        frames: In the order they were taken.
        source: Name of the source.
        name: Of the series.
        ranges: What the model was trained for.

    Raises:
        FrameError: The frames are fewer than three, differ in size or pixel size, one is blank, or their defocus is not
            known or not different.
    """
    if len(frames) < FRAMES:
        raise FrameError(
            f"{name}: a focal series has {FRAMES} frames at different defocus, or more; this one has {len(frames)}."
        )
    _check_sizes(frames, name)
    _check_pixel_sizes(frames, name)
    _check_contents(frames, name)
    defocus = _known_defocus(frames, name)
    chosen = _best_three(defocus, ranges)
    if chosen is None:
        raise FrameError(
            f"{name}: the frames of the series were not taken at {FRAMES} different defocus values, each "
            f"{LEAST_STEP_ANGSTROM:g} Å or more from the next: {_listed(frames, defocus)}; "
            "check `defocus_angstrom` in the metadata or sidecars."
        )
    three = tuple(frames[index] for index in chosen)
    return FocalSeries(
        frames=(three[0], three[1], three[2]),
        first=chosen.index(min(chosen)),
        frame_id=_frame_id(three, source, name),
        name=name,
        offered=tuple(frame.name for frame in frames) if len(frames) > FRAMES else (),
    )


def choice_made(series: FocalSeries) -> list[str]:
    """Say which three frames of a longer series were analysed; nothing where there was no choice."""
    if not series.offered:
        return []
    return [
        f"Of the {len(series.offered)} frames of the series, the three whose defocus suits the model best were "
        f"analysed: {_listed(series.frames, series.defocus_angstrom)}."
    ]


def content_of(frame: Frame) -> str:
    """Return the part of a frame's id that tells its pixels from all others."""
    return frame.frame_id.rpartition("/")[2]


def _check_sizes(frames: Sequence[Frame], name: str) -> None:
    if len({frame.pixels.shape for frame in frames}) > 1:
        sizes = ", ".join(f"{frame.name}: {frame.pixels.shape[1]} × {frame.pixels.shape[0]}" for frame in frames)
        raise FrameError(
            f"{name}: the frames of the series differ in size ({sizes} pixels); take all of them with the same "
            "binning and read-out area."
        )


def _check_pixel_sizes(frames: Sequence[Frame], name: str) -> None:
    sizes = [frame.calibration.pixel_size_angstrom if frame.calibration else None for frame in frames]
    known = [size for size in sizes if size is not None]
    if known and (len(known) < len(sizes) or max(known) > min(known) * (1 + _PIXEL_SIZE_TOLERANCE)):
        told = ", ".join(
            f"{frame.name}: {f'{size:g} Å' if size else 'unknown'}" for frame, size in zip(frames, sizes, strict=True)
        )
        raise FrameError(
            f"{name}: the frames of the series differ in pixel size ({told}); take all of them at one magnification, "
            "or give the right size as `pixel_size_angstrom`."
        )


def _check_contents(frames: Sequence[Frame], name: str) -> None:
    for frame in frames:
        if frame.pixels.min() == frame.pixels.max():
            raise FrameError(
                f"{name}: {frame.name} is blank, all its pixels are alike; was the beam blanked, or the screen down?"
            )


def _known_defocus(frames: Sequence[Frame], name: str) -> list[float]:
    defocus = [frame.acquisition.defocus_angstrom for frame in frames]
    unknown = [frame.name for frame, value in zip(frames, defocus, strict=True) if value is None]
    if unknown:
        raise FrameError(
            f"{name}: the defocus of {', '.join(unknown)} is not known; give it as `defocus_angstrom` in the metadata "
            "or in a sidecar of each frame."
        )
    return [value for value in defocus if value is not None]


def _best_three(defocus: Sequence[float], ranges: StatedRanges) -> tuple[int, ...] | None:
    """Return the places of three frames in order of defocus, None where no three differ."""
    ordered = sorted(range(len(defocus)), key=lambda place: defocus[place])
    triplets = [
        triplet
        for triplet in combinations(ordered, FRAMES)
        if min(_steps([defocus[place] for place in triplet])) >= LEAST_STEP_ANGSTROM
    ]
    return min(triplets, key=lambda triplet: _misfit([defocus[place] for place in triplet], ranges), default=None)


def _steps(values: Sequence[float]) -> tuple[float, float]:
    return values[1] - values[0], values[2] - values[1]


def _misfit(values: Sequence[float], ranges: StatedRanges) -> tuple[float, float]:
    """Return how far three defocus values are from what the model knows best; the sum decides between equals."""
    distances = [_distance(values[1], ranges.defocus_angstrom)]
    if ranges.defocus_step_angstrom:
        distances += [_distance(step, ranges.defocus_step_angstrom) for step in _steps(values)]
    return max(distances), sum(distances)


def _distance(value: float, stated: Range) -> float:
    low, high = stated
    return abs(value - (low + high) / 2) / max((high - low) / 2, 1.0)


def _frame_id(frames: Sequence[Frame], source: str, name: str) -> str:
    """Name a series so that the same images in the same order of defocus have the same name in every run."""
    digest = hashlib.blake2b(" ".join(map(content_of, frames)).encode(), digest_size=8)
    return f"{source}/{name}/series/{digest.hexdigest()}"


def _listed(frames: Sequence[Frame], defocus: Sequence[float]) -> str:
    return ", ".join(f"{frame.name} ({value:g} Å)" for frame, value in zip(frames, defocus, strict=True))
