"""Records of a spool's segment: messages written one after the other, each with a checksum."""

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.sources.connection import Message
from daemon.sources.fields import Buffer

# Mark, whether it repeats the opening of a series, microseconds since 1970, parts, bytes of the body, its checksum.
_RECORD = struct.Struct("<4s?qIQI")
_MARK = b"hrs1"
_LENGTH = struct.Struct("<Q")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


def append_records(path: Path, end: int, messages: Iterable[Message], *, are_openings: bool = False) -> int:
    """Append messages to a segment and make sure of them; return its new size.

    Args:
        path: The segment, which must exist.
        end: Its size so far.
        messages: In the order they came.
        are_openings: Whether they repeat the opening of a series.

    Raises:
        OSError: They cannot be written, and none of them is there.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        for message in messages:
            for piece in _pieces(message, are_openings):
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    except OSError as error:
        os.ftruncate(descriptor, end)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        os.close(descriptor)


def read_records(path: Path) -> Iterator[tuple[Message, bool]]:
    """Yield messages, and whether each repeats an opening, up to the first that is cut off or damaged."""
    with path.open("rb") as segment:
        while head := segment.read(_RECORD.size):
            if len(head) < _RECORD.size:
                return
            mark, is_opening, microseconds, parts, size, checksum = _RECORD.unpack(head)
            here = segment.tell()
            if mark != _MARK or here + size > os.fstat(segment.fileno()).st_size or parts * _LENGTH.size > size:
                return
            body = memoryview(segment.read(size))
            if zlib.crc32(body) != checksum:
                log.warning("%s: damaged from byte %d on; what follows is lost", path, here)
                return
            yield Message(_parts(body, parts), _EPOCH + timedelta(microseconds=microseconds)), is_opening


def _pieces(message: Message, is_opening: bool) -> list[Buffer]:
    lengths = b"".join(_LENGTH.pack(len(part)) for part in message.parts)
    checksum = zlib.crc32(lengths)
    for part in message.parts:
        checksum = zlib.crc32(part, checksum)
    size = len(lengths) + sum(len(part) for part in message.parts)
    microseconds = (message.received_at - _EPOCH) // timedelta(microseconds=1)
    return [_RECORD.pack(_MARK, is_opening, microseconds, len(message.parts), size, checksum), lengths, *message.parts]


def _parts(body: memoryview, number: int) -> list[Buffer]:
    start = number * _LENGTH.size
    parts: list[Buffer] = []
    for (length,) in _LENGTH.iter_unpack(body[:start]):
        parts.append(body[start : start + length])
        start += length
    return parts
