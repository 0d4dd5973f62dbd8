"""Every format that comes through ZeroMQ: who understands it, and who can send it."""

from collections.abc import Callable
from typing import NamedTuple

from daemon.sources.array_1_0 import Array10Decoder
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.dectris_stream2 import DectrisStream2Decoder
from daemon.sources.dectris_stream2_simulator import DectrisStream2Simulator
from daemon.sources.dectris_v1 import DectrisV1Decoder
from daemon.sources.dectris_v1_simulator import DectrisV1Simulator
from daemon.sources.simulator import Simulator
from daemon.sources.wire_image import Decoder


class Format(NamedTuple):
    """Makes a decoder, which each source has for itself, and a simulator."""

    decoder: Callable[[], Decoder]
    simulator: Callable[[], Simulator]


FORMATS: dict[str, Format] = {
    "array-1.0": Format(Array10Decoder, Array10Simulator),
    "dectris-v1": Format(DectrisV1Decoder, DectrisV1Simulator),
    "dectris-stream2": Format(DectrisStream2Decoder, DectrisStream2Simulator),
}
"""By the `type` of a source in config.toml."""
