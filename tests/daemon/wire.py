"""Messages to send to a source, and what it makes of them."""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic

import numpy as np
import zmq

from daemon.sources.formats import FORMATS
from daemon.sources.simulator import Outgoing, Shot
from daemon.sources.source import Arrival, Failure

PATIENCE_SECONDS = 30.0


def shots(number: int, size: int = 40, first: int = 0) -> list[Shot]:
    return [
        Shot(np.full((size, size), first + value, np.uint16), {"pixel_size_angstrom": 0.1}) for value in range(number)
    ]


def images(format_name: str, number: int, first: int = 0) -> list[Outgoing]:
    messages = FORMATS[format_name].simulator().series(shots(first + number), first + number)
    return [message for message in messages if message.kind == "image"][first:]


def endpoint_of(sender: "zmq.Socket[bytes]") -> str:
    return sender.getsockopt_string(zmq.LAST_ENDPOINT)


def send(sender: "zmq.Socket[bytes]", messages: Iterable[Outgoing]) -> None:
    for message in messages:
        sender.send_multipart(message.parts)


def take(
    arrivals: Iterator[Arrival | Failure | None], until: Callable[[list[Arrival | Failure]], bool]
) -> list[Arrival | Failure]:
    """Collect what a source yields until there is enough of it."""
    found: list[Arrival | Failure] = []
    give_up_at = monotonic() + PATIENCE_SECONDS
    while not until(found):
        assert monotonic() < give_up_at, found
        if item := next(arrivals):
            found.append(item)
    return found


def frames_in(found: list[Arrival | Failure]) -> list[Arrival]:
    return [item for item in found if isinstance(item, Arrival)]


def values_in(found: list[Arrival | Failure]) -> list[int]:
    """The value that all pixels of a frame have."""
    return [int(item.subject.pixels[0, 0]) for item in frames_in(found)]  # type: ignore[union-attr]


def sentences_in(found: list[Arrival | Failure]) -> list[str]:
    return [str(item.error) for item in found if isinstance(item, Failure)]


def has(number: int) -> Callable[[list[Arrival | Failure]], bool]:
    return lambda found: len(frames_in(found)) == number


def said(words: str) -> Callable[[list[Arrival | Failure]], bool]:
    return lambda found: any(words in sentence for sentence in sentences_in(found))
