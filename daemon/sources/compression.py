"""LZ4 and bitshuffle-LZ4 as DECTRIS detectors use them.

Both are framed as the HDF5 filters of these names frame them: 8 bytes with the unpacked size and 4 with the size of a
block, big-endian, then each block behind 4 bytes with its packed size. Only the `lz4` of stream v1 is a bare block.
"""

import struct
from typing import Literal

from dectris.compression import decompress

from daemon.errors import FrameError
from daemon.sources.fields import Buffer

Packing = Literal["none", "lz4-block", "lz4", "bslz4"]
"""How pixels are packed: not at all, as a bare LZ4 block, or framed."""

_HEADER = struct.Struct(">QI")
_BLOCK = struct.Struct(">I")

_LARGEST_BLOCK = 2**32 - 1  # its size is written in 4 bytes


def unpack(payload: Buffer, packing: Packing, element_bytes: int, size: int) -> Buffer:
    """Return `size` bytes of pixels.

    What a payload says of its own size is compared with `size` before memory is taken, so the caller must have checked
    only that.

    Args:
        payload: As it came.
        packing: How it is packed.
        element_bytes: Bytes of a pixel.
        size: Bytes that must come out.

    Raises:
        FrameError: Something else would come out, or the payload is damaged.
    """
    if packing == "none":
        if len(payload) != size:
            raise FrameError(f"The image has {len(payload):,} bytes where its shape and type make {size:,}.")
        return payload
    if packing == "lz4-block":
        payload = _framed(payload, size)
    if len(payload) < _HEADER.size:
        raise FrameError(f"The image is cut off: {len(payload)} bytes are too few for {packing}.")
    claimed = _HEADER.unpack_from(payload)[0]
    if claimed != size:
        raise FrameError(f"The image unpacks to {claimed:,} bytes where its shape and type make {size:,}.")
    try:
        unpacked: bytes = decompress(payload, "bslz4" if packing == "bslz4" else "lz4", elem_size=element_bytes)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise FrameError(f"The image cannot be unpacked as {packing}: {str(error) or 'out of memory'}.") from None
    if len(unpacked) != size:
        raise FrameError(f"The image unpacks to {len(unpacked):,} bytes where its shape and type make {size:,}.")
    return unpacked


def _framed(block: Buffer, size: int) -> bytes:
    """Frame a bare LZ4 block of `size` bytes as the library takes it."""
    if len(block) == size:
        # In a frame this would mean that the block is not packed, which a bare block never says.
        raise FrameError("The image is packed to exactly its own size, which cannot be told from no packing.")
    if max(size, len(block)) > _LARGEST_BLOCK:
        raise FrameError(f"The image has {size:,} bytes, more than one block of LZ4 can hold.")
    return b"".join((_HEADER.pack(size, size), _BLOCK.pack(len(block)), block))
