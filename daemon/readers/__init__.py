"""Image files -> frames: every vendor's format, calibrated in Å, or one sentence that says why not."""

from daemon.readers.files import SUFFIXES, frame_files
from daemon.readers.reading import read_frames
from daemon.readers.sidecar import Sidecar, parse_sidecar, read_sidecar

__all__ = ["SUFFIXES", "Sidecar", "frame_files", "parse_sidecar", "read_frames", "read_sidecar"]
