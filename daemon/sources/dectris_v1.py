"""DECTRIS stream v1, as SIMPLON detectors send it: JSON and binary parts.

A series is a message `dheader-1.0`, one `dimage-1.0` for each image, and `dseries_end-1.0`; the last is missing after
an abort. Our sub-object `hrtem` may ride in the header appendix or an image appendix, which SIMPLON sends as one more
part. Shapes are (width, height). Source: DECTRIS, SIMPLON API reference, "Stream".
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from daemon.errors import FrameError
from daemon.frames import Acquisition
from daemon.sources.compression import Packing
from daemon.sources.fields import (
    Buffer,
    ByteOrder,
    json_object,
    kind_of,
    label,
    pixel_type,
    positive_number,
    shown,
    two_lengths,
    whole_number,
)
from daemon.sources.numbering import SeriesNumbers
from daemon.sources.wire_image import Opening, WireImage, hrtem_keys

_ENCODING = re.compile(r"(?P<shuffled>bs(?P<bits>8|16|32|64)-?)?(?P<lz4>lz4)?(?P<order>[<>]?)")

_TABLES = ("dflatfield", "dpixelmask", "dcountrate_table")
"""Each is described by a part of JSON and followed by one of numbers."""

_LONGEST_APPENDIX_BYTES = 2**16


class DectrisV1Decoder:
    """Understands DECTRIS stream v1."""

    def __init__(self) -> None:
        self.opening: Opening | None = None
        self._numbers = SeriesNumbers()
        self._awaits_configuration = False

    def accept(self, parts: list[Buffer]) -> list[WireImage | FrameError]:
        """Take in a message; return its image, and what is missing before it.

        Raises:
            FrameError: The message is not of this format, damaged, or superfluous.
        """
        if not parts:
            raise FrameError("The message is empty.")
        header = json_object(parts[0], "first part of the message")
        kind = kind_of(header).partition("-")[0]
        awaits_configuration, self._awaits_configuration = self._awaits_configuration, False
        if awaits_configuration and self.opening and "htype" not in header:
            # Some senders, LiberTEM-live's simulator among them, send the two parts of a header as two messages.
            return [*self._start(self.opening.series, [*self.opening.message, *parts])]
        if kind not in ("dheader", "dimage", "dseries_end"):
            raise FrameError(
                f"The message's htype is {shown(header.get('htype'))}, which stream v1 does not have; "
                "check the source's `type`."
            )
        series = label(whole_number(header, "series", "first part of the message"))
        if kind == "dheader":
            return [*self._start(series, parts)]
        if kind == "dimage":
            return self._image(series, header, parts)
        self.opening = None
        return [*self._numbers.end(series)]

    def reopen(self, parts: list[Buffer]) -> None:
        """Take in the opening of a series of which images were received in an earlier run.

        Raises:
            FrameError: It is damaged.
        """
        self.accept(parts)
        self._numbers.forget_position()

    def _start(self, series: str, parts: list[Buffer]) -> list[FrameError]:
        """Begin a series; its configuration comes where the detector's `header_detail` is not `none`."""
        self._awaits_configuration = len(parts) == 1
        said = list(_objects(parts[1:]))
        configuration: dict[str, Any] = said[0] if said and "htype" not in said[0] else {}
        energy_ev = positive_number(configuration.get("incident_energy", configuration.get("photon_energy")))
        exposure_seconds = positive_number(configuration.get("count_time"))
        self.opening = Opening(
            series,
            message=tuple(map(bytes, parts)),
            keys=_keys_among(said),
            acquisition=Acquisition(voltage_kv=energy_ev and energy_ev / 1e3, exposure_seconds=exposure_seconds),
        )
        return self._numbers.start(series, _length(configuration))

    def _image(self, series: str, header: dict[str, Any], parts: list[Buffer]) -> list[WireImage | FrameError]:
        if len(parts) < 3:
            raise FrameError(f"An image of stream v1 has 3 parts or more, this one {len(parts)}.")
        number = whole_number(header, "frame", "image header")
        described = json_object(parts[1], "image's description")
        packing, order = _packing(described.get("encoding"))
        width, height = two_lengths(described.get("shape"), "image's description")
        opening = self.opening if self.opening and self.opening.series == series else Opening(series)
        image = WireImage(
            number=number,
            shape=(height, width),
            dtype=pixel_type(described.get("type"), order, "image's description"),
            payload=parts[2],
            packing=packing,
            keys=opening.keys | _keys_among(_objects(parts[3:])),
            acquisition=opening.acquisition,
            series=series,
        )
        return [*self._numbers.image(series, number), image]


def _objects(parts: list[Buffer]) -> Iterator[dict[str, Any]]:
    """Yield the parts that are JSON objects, but no tables of the detector, and no appendix of somebody else."""
    rest = iter(parts)
    for part in rest:
        try:
            value = json_object(part, "appendix")
        except FrameError:
            if b'"hrtem"' in bytes(part[:_LONGEST_APPENDIX_BYTES]):
                raise
            continue
        yield value
        if kind_of(value).partition("-")[0] in _TABLES:
            next(rest, None)


def _keys_among(said: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return hrtem_keys(next((part["hrtem"] for part in said if "hrtem" in part), {}))


def _length(configuration: dict[str, Any]) -> int | None:
    """Return how many images a series is to have, if the detector tells."""
    images, triggers = (configuration.get(key, 1) for key in ("nimages", "ntrigger"))
    if "nimages" not in configuration or not isinstance(images, int) or not isinstance(triggers, int):
        return None
    return max(0, images * triggers)


def _packing(encoding: object) -> tuple[Packing, ByteOrder]:
    """Read an encoding such as `bs16-lz4<`: how pixels are packed, and their byte order."""
    match = _ENCODING.fullmatch(encoding) if isinstance(encoding, str) else None
    if not match or (match["shuffled"] and not match["lz4"]):
        raise FrameError(f"Images of encoding {shown(encoding)} cannot be unpacked; set the detector to lz4 or bslz4.")
    packing: Packing = "bslz4" if match["shuffled"] else "lz4-block" if match["lz4"] else "none"
    return packing, ">" if match["order"] == ">" else "<"
