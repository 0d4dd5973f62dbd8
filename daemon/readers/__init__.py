"""Image files -> frames: every vendor's format, calibrated in Å, or one sentence that says why not."""

from daemon.readers.files import (
    SUFFIXES,
    frame_files,
    frames_read_from,
    frames_within,
    is_screen_picture,
    may_hold_frames,
    parts_of,
)
from daemon.readers.growing import Extent, extent_of, may_grow
from daemon.readers.limits import DEFAULT_LIMITS, ReadLimits
from daemon.readers.reading import read_frames
from daemon.readers.sidecar import Sidecar, parse_sidecar, read_sidecar

__all__ = [
    "DEFAULT_LIMITS",
    "SUFFIXES",
    "Extent",
    "ReadLimits",
    "Sidecar",
    "extent_of",
    "frame_files",
    "frames_read_from",
    "frames_within",
    "is_screen_picture",
    "may_grow",
    "may_hold_frames",
    "parse_sidecar",
    "parts_of",
    "read_frames",
    "read_sidecar",
]
