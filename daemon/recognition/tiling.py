"""Frames larger than memory likes: the network's input in overlapping tiles, the same answer as in one piece."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from daemon.recognition.backends import Session

TILE_PIXELS = 2048
"""Side of the largest input run in one piece: about 2 GB of activations."""


def run_tiled(
    session: Session, image: NDArray[np.float32], stride: int, multiple: int, reach: int, tile: int = TILE_PIXELS
) -> NDArray[np.float32]:
    """Run a network over an image of any size.

    Tiles start at multiples of `multiple` and overlap by the network's reach, so that each kept cell sees what it would
    see in the whole image.

    Args:
        session: The network.
        image: Shape (channels, height, width), or (height, width) for a single channel.
        stride: Image pixels per output cell.
        multiple: The network's input must be a multiple of this.
        reach: Half width in pixels of what one output cell sees.
        tile: Largest side of one input.

    Returns:
        Heads of shape (channels, rows, columns), cut to the cells whose centres lie in the image.
    """
    channels = image if image.ndim == 3 else image[None]
    _, height, width = channels.shape
    padded = np.pad(channels, ((0, 0), (0, -height % multiple), (0, -width % multiple)))
    rows, columns = (extent // stride for extent in padded.shape[1:])
    heads: NDArray[np.float32] | None = None
    overlap = -(-reach // multiple) * multiple
    for top, bottom, keep_top, keep_bottom in _spans(padded.shape[1], tile, overlap):
        for left, right, keep_left, keep_right in _spans(padded.shape[2], tile, overlap):
            part = session.run(np.ascontiguousarray(padded[None, :, top:bottom, left:right]))[0]
            if heads is None:
                heads = np.empty((len(part), rows, columns), np.float32)
            heads[:, keep_top // stride : keep_bottom // stride, keep_left // stride : keep_right // stride] = part[
                :,
                (keep_top - top) // stride : (keep_bottom - top) // stride,
                (keep_left - left) // stride : (keep_right - left) // stride,
            ]
    assert heads is not None
    return heads[:, : -(-height // stride), : -(-width // stride)]


def _spans(extent: int, tile: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (start, stop, keep from, keep to) of tiles along one axis; what is kept covers it exactly once."""
    if extent <= tile:
        yield 0, extent, 0, extent
        return
    step = tile - 2 * overlap
    for kept in range(0, extent, step):
        keep_to = min(kept + step, extent)
        yield max(0, kept - overlap), min(extent, keep_to + overlap), kept, keep_to
