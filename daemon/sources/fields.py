"""Values out of messages, each checked: what arrives on the wire is data, and anybody may have written it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from daemon.errors import FrameError

Buffer = bytes | memoryview
"""One part of a message, or a piece of it."""

# Larger ones are no numbers of frames, and beyond it JSON readers in other languages round.
_LARGEST_WHOLE_NUMBER = 2**53

_LONGEST_JSON_BYTES = 2**20
_LONGEST_LABEL = 40

_PIXEL_TYPES = {
    spelling: dtype
    for dtype in map(np.dtype, ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"))
    for spelling in (dtype.name, dtype.str.lstrip("<|"))
}

ByteOrder = Literal["<", ">"]

_BYTE_ORDERS: dict[str, ByteOrder] = {"little": "<", "<": "<", "big": ">", ">": ">"}


def json_object(part: Buffer, what: str) -> dict[str, Any]:
    """Decode a part that is a JSON object.

    Raises:
        FrameError: It is something else.
    """
    if len(part) > _LONGEST_JSON_BYTES:
        raise FrameError(f"The {what} has {len(part):,} bytes, too many for JSON; check what the sender sends.")
    try:
        value = json.loads(bytes(part))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"The {what} is not JSON ({str(error)[:100]}); check the source's `type`.") from None
    if not isinstance(value, dict):
        raise FrameError(f"The {what} is JSON, but no object of keys and values; check the source's `type`.")
    return value


def kind_of(header: Mapping[str, Any]) -> str:
    """Return `htype`, which some senders write as a list of names; empty where it is neither."""
    kind = header.get("htype")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    return kind if isinstance(kind, str) else ""


def whole_number(values: Mapping[str, Any], key: str, what: str) -> int:
    """Return a whole number from 0.

    Raises:
        FrameError: There is none.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST_WHOLE_NUMBER:
        raise FrameError(f"`{key}` of the {what} must be a whole number from 0, not {shown(value)}.")
    return value


def two_lengths(values: object, what: str) -> tuple[int, int]:
    """Return the two numbers of a shape, in the order they stand in.

    Raises:
        FrameError: They are not two whole numbers above 0.
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or len(values) != 2:
        raise FrameError(f"The shape of the {what} must be two whole numbers, not {shown(values)}.")
    first, second = values
    for value in (first, second):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST_WHOLE_NUMBER:
            raise FrameError(f"The shape of the {what} must be two whole numbers above 0, not {shown(values)}.")
    return first, second


def pixel_type(value: object, byte_order: ByteOrder, what: str) -> np.dtype[Any]:
    """Return the type of pixels, named as by NumPy (`uint16`, `<u2`).

    Args:
        value: As it stands in the message.
        byte_order: `<` or `>`; one that stands in `value` beats it.
        what: The part of the message, for errors.

    Raises:
        FrameError: There is no such type of intensities.
    """
    name = value if isinstance(value, str) else ""
    if name[:1] in ("<", ">", "|", "="):
        byte_order = ">" if name[0] == ">" else "<"
        name = name[1:]
    if name not in _PIXEL_TYPES:
        raise FrameError(
            f"Pixels of type {shown(value)} in the {what} are not known; send one of "
            f"{', '.join(sorted({dtype.name for dtype in _PIXEL_TYPES.values()}))}."
        )
    return _PIXEL_TYPES[name].newbyteorder(byte_order)


def byte_order(header: Mapping[str, Any], what: str) -> ByteOrder:
    """Return `<` or `>` as `endianess` or `endianness` says; `<` where neither is there.

    Raises:
        FrameError: It says something else.
    """
    value = header.get("endianess", header.get("endianness", "little"))
    order = _BYTE_ORDERS.get(value.lower()) if isinstance(value, str) else None
    if order is None:
        raise FrameError(f"`endianess` of the {what} must be 'little' or 'big', not {shown(value)}.")
    return order


def positive_number(value: object) -> float | None:
    """Return a finite number above 0; None for anything else, since senders write 0 where they do not know."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def label(value: object) -> str:
    """Turn an id into a word that can stand in names: letters, digits, - and _, and not many of them."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(value)[: 4 * _LONGEST_LABEL])[:_LONGEST_LABEL] or "_"


def shown(value: object) -> str:
    """Write a value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
