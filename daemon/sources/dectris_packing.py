"""Packs images as DECTRIS detectors do; for their simulators.

`dectris-compression` unpacks only. imagecodecs, which has the same two filters, is loaded when first used: the daemon
itself never packs.
"""

import struct
from typing import Any

from numpy.typing import NDArray

from daemon.sources.compression import Packing

_BLOCK_BYTES = 8192  # as bitshuffle itself chooses
_ELEMENTS_OF_A_SHUFFLE = 8  # what is left over at the end is stored as it is


def pack(pixels: NDArray[Any], packing: Packing) -> bytes:
    """Pack pixels, in the byte order they have."""
    content = pixels.tobytes()
    if packing == "none":
        return content
    import imagecodecs

    if packing == "lz4-block":
        return bytes(imagecodecs.lz4_encode(content))
    if packing == "lz4":
        return bytes(imagecodecs.lz4h5_encode(content))
    return _bitshuffled_lz4(content, pixels.dtype.itemsize)


def _bitshuffled_lz4(content: bytes, element_bytes: int) -> bytes:
    import imagecodecs

    step = _ELEMENTS_OF_A_SHUFFLE * element_bytes
    whole = len(content) - len(content) % step
    packed = [struct.pack(">QI", len(content), _BLOCK_BYTES)]
    for start in range(0, whole, _BLOCK_BYTES):
        block = content[start : min(start + _BLOCK_BYTES, whole)]
        shuffled = imagecodecs.bitshuffle_encode(block, itemsize=element_bytes, blocksize=len(block) // element_bytes)
        compressed = imagecodecs.lz4_encode(shuffled)
        packed += [struct.pack(">I", len(compressed)), bytes(compressed)]
    return b"".join((*packed, content[whole:]))
