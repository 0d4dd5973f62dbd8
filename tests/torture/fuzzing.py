"""Damaged messages of every format: what each is follows from a seed, so that any can be made again."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import cbor2
import numpy as np

from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.compression import Packing
from daemon.sources.dectris_stream2_simulator import DectrisStream2Simulator
from daemon.sources.dectris_v1_simulator import DectrisV1Simulator
from daemon.sources.formats import FORMATS
from daemon.sources.simulator import Shot, Simulator, damaged

MESSAGES_A_CHUNK = 100
"""So many follow from one seed; within a chunk the decoder remembers what came before, as it does of a camera."""

SIDE = 32

_SHARE_UNHARMED = 0.25
_LARGEST_PART_BYTES = 2**18

_ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 1e308, float("nan"), float("inf"), "", "uint16",
    "../../../etc/passwd", "/tmp/hrtemd-was-here", "x" * 5000, "\x00", "\ud800", [], [1], [1, 2], [0, 0], [32, 32],
    [2**20, 2**20], [-1, 32], {}, {"a": {"b": {}}}, {"pixel_size_angstrom": 0.16}, {"series_id": "../../x"},
    {"series_id": "../../x", "series_index": 1, "series_length": 10**9}, "lz4<", "bs16-lz4<", "bs8-lz4<", "<", ">",
    "array-1.0", "dimage-1.0", "dheader-1.0", "dseries_end-1.0", "image", "start", "end",
]  # fmt: skip
"""What a header may hold instead of what it should."""

_ODD_KEYS = [
    "htype", "type", "shape", "frame", "series", "series_id", "image_id", "data", "encoding", "hrtem", "user_data",
    "endianess", "nimages", "number_of_images", "arm_date", "start_time", "size", "hash", "incident_energy",
]  # fmt: skip


def messages(format_name: str, seed: int, number: int) -> Iterator[list[bytes]]:
    """Yield so many messages of a format, most of them damaged."""
    for chunk in range(-(-number // MESSAGES_A_CHUNK)):
        yield from chunk_of(format_name, seed, chunk)[: number - chunk * MESSAGES_A_CHUNK]


def chunk_of(format_name: str, seed: int, chunk: int) -> list[list[bytes]]:
    """Make the messages of one chunk."""
    chance = Random(f"{format_name}/{seed}/{chunk}")
    whole = _series(format_name, chance)
    others = _series(chance.choice(list(FORMATS)), chance)
    made: list[list[bytes]] = []
    for place in range(MESSAGES_A_CHUNK):
        parts = list(whole[place % len(whole)])
        if chance.random() > _SHARE_UNHARMED:
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                parts = chance.choice(_WAYS)(parts, others, chance)
        made.append([part[:_LARGEST_PART_BYTES] for part in parts] or [b""])
    return made


def _series(format_name: str, chance: Random) -> list[list[bytes]]:
    """Make an unharmed series of some images."""
    packing = cast(Packing, chance.choice(("none", "lz4", "bslz4")))
    simulator: Simulator = {
        "array-1.0": Array10Simulator,
        "dectris-v1": lambda: DectrisV1Simulator(packing),
        "dectris-stream2": lambda: DectrisStream2Simulator(packing),
    }[format_name]()
    dtype = chance.choice(("uint8", "uint16", "uint32", "float32"))
    random = np.random.default_rng(chance.randrange(2**32))
    keys = {"pixel_size_angstrom": 0.16, "series_id": "s", "series_index": 0} if chance.random() < 0.5 else {}
    length = chance.randint(1, 6)
    images = random.poisson(20.0, (length, SIDE, SIDE)).astype(dtype)
    made = [message.parts for message in simulator.series([Shot(image, keys) for image in images], length)]
    return [_undated(parts) for parts in made] if format_name == "dectris-stream2" else made


def _undated(parts: list[bytes]) -> list[bytes]:
    """Have the start of a stream2 series tell the same time in every run."""
    message = cbor2.loads(parts[0])
    is_start = message["type"] == "start"
    return [cbor2.dumps(message | {"arm_date": datetime(2026, 11, 25, tzinfo=UTC)})] if is_start else parts


def _bytes_changed(parts: list[bytes], _others: list[list[bytes]], chance: Random) -> list[bytes]:
    return damaged(parts, chance) if parts else parts


def _noise(parts: list[bytes], _others: list[list[bytes]], chance: Random) -> list[bytes]:
    return [chance.randbytes(chance.randrange(200)) for _ in range(chance.randrange(6))]


def _parts_moved(parts: list[bytes], others: list[list[bytes]], chance: Random) -> list[bytes]:
    parts = list(parts)
    match chance.randrange(5):
        case 0 if parts:
            del parts[chance.randrange(len(parts))]
        case 1 if parts:
            parts.insert(chance.randrange(len(parts) + 1), chance.choice(parts))
        case 2:
            chance.shuffle(parts)
        case 3 if parts:
            parts[chance.randrange(len(parts))] = chance.choice(chance.choice(others))
        case _:
            parts += chance.choice(others)
    return parts


def _part_grown(parts: list[bytes], _others: list[list[bytes]], chance: Random) -> list[bytes]:
    parts = list(parts)
    if parts:
        place = chance.randrange(len(parts))
        parts[place] = parts[place] * chance.randint(2, 9)
    return parts


def _header_changed(parts: list[bytes], _others: list[list[bytes]], chance: Random) -> list[bytes]:
    """Put an odd value into JSON or CBOR, which stays well-formed."""
    parts = list(parts)
    places = list(range(len(parts)))
    chance.shuffle(places)
    for place in places:
        for decode, encode in ((json.loads, _to_json), (cbor2.loads, cbor2.dumps)):
            try:
                value = decode(parts[place])
                if isinstance(value, dict):
                    parts[place] = encode(_with_odd_value(value, chance))
                    return parts
            except Exception:
                continue
    return parts


def _to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def _with_odd_value(value: Any, chance: Random) -> Any:
    """Replace, add or remove something, at any depth."""
    if isinstance(value, cbor2.CBORTag) and chance.random() < 0.8:
        if chance.random() < 0.3:
            return cbor2.CBORTag(chance.choice((40, 64, 65, 69, 70, 82, 85, 56500, 2, 1)), value.value)
        return cbor2.CBORTag(value.tag, _with_odd_value(value.value, chance))
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], _with_odd_value(value[place], chance), *value[place + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        changed = dict(value)
        match chance.randrange(4):
            case 0:
                del changed[key]
            case 1:
                changed[chance.choice(_ODD_KEYS)] = chance.choice(_ODD_VALUES)
            case _:
                changed[key] = _with_odd_value(value[key], chance)
        return changed
    if isinstance(value, bytes) and value and chance.random() < 0.8:
        content = bytearray(value)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(min(len(content), 64))] = chance.randrange(256)
        return bytes(content)
    return chance.choice(_ODD_VALUES)


_WAYS: list[Callable[[list[bytes], list[list[bytes]], Random], list[bytes]]] = [
    _bytes_changed, _bytes_changed, _header_changed, _header_changed, _header_changed, _parts_moved, _part_grown,
    _noise,
]  # fmt: skip
