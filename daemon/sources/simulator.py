"""What the simulators of cameras have in common: shots, messages, and faults on request."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from daemon.frames import Frame


class Shot(NamedTuple):
    """One image to send: pixels of shape (height, width), and the keys of our sub-object `hrtem`."""

    pixels: NDArray[Any]
    keys: dict[str, Any]


class Outgoing(NamedTuple):
    """A message on its way; one without parts is lost on it."""

    kind: Literal["start", "image", "end"]
    parts: list[bytes]


class Simulator(Protocol):
    """Sends as a camera of one format does; a new one counts its series and images anew."""

    def series(self, shots: Iterable[Shot], length: int | None = None) -> Iterator[Outgoing]:
        """Yield the messages of one series.

        Args:
            shots: Its images.
            length: How many they are; formats that announce it leave it out where it is None.
        """


@dataclass(frozen=True)
class Faults:
    """What goes wrong on the way.

    Attributes:
        drop: Share of the images that are never sent.
        corrupt: Share of the images that are damaged.
        abort_after: As many images are sent of a series, then nothing more of it, not even its end.
        no_start: No series is announced.
    """

    drop: float = 0.0
    corrupt: float = 0.0
    abort_after: int | None = None
    no_start: bool = False


def shot_of(frame: Frame) -> Shot:
    """Take what a recorded frame's file and sidecar tell along with its pixels."""
    acquisition = frame.acquisition
    keys = {
        "pixel_size_angstrom": frame.calibration.pixel_size_angstrom if frame.calibration else None,
        "defocus_angstrom": acquisition.defocus_angstrom,
        "voltage_kv": acquisition.voltage_kv,
        "dose_per_square_angstrom": acquisition.dose_per_square_angstrom,
        "series_id": acquisition.series_id,
        "series_index": acquisition.series_index,
        "series_length": acquisition.series_length,
    }
    return Shot(frame.pixels, {key: value for key, value in keys.items() if value is not None})


def with_faults(messages: Iterable[Outgoing], faults: Faults, chance: Random) -> Iterator[Outgoing]:
    """Yield the messages of a series with faults among them."""
    images = 0
    for message in messages:
        if message.kind == "start" and faults.no_start:
            continue
        if message.kind == "image":
            images += 1
            if chance.random() < faults.drop:
                message = Outgoing("image", [])
            elif chance.random() < faults.corrupt:
                message = Outgoing("image", damaged(message.parts, chance))
        yield message
        if images == faults.abort_after:
            return


def damaged(parts: list[bytes], chance: Random) -> list[bytes]:
    """Cut off one part of a message, or change some of its bytes."""
    parts = list(parts)
    place = chance.randrange(len(parts))
    part = bytearray(parts[place])
    if not part or chance.random() < 0.5:
        parts[place] = bytes(part[: chance.randrange(len(part) + 1)])
    else:
        for _ in range(chance.randint(1, 8)):
            part[chance.randrange(len(part))] = chance.randrange(256)
        parts[place] = bytes(part)
    return parts
