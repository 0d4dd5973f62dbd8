"""`array-1.0`, as detectors and cameras at PSI send it: a JSON header, then the pixels as they are.

The header is `{"htype": "array-1.0", "shape": [height, width], "type": "uint16", "frame": 7}`, and may have `endianess`
and our sub-object `hrtem`. There are no series: a number smaller than the last one means that the sender began anew.
"""

from daemon.errors import FrameError
from daemon.sources.fields import Buffer, byte_order, json_object, kind_of, pixel_type, shown, two_lengths, whole_number
from daemon.sources.numbering import SuperfluousFrameError, missing
from daemon.sources.wire_image import Opening, WireImage, hrtem_keys

_HEADER = "header of array-1.0"


class Array10Decoder:
    """Understands array-1.0."""

    opening: Opening | None = None

    def __init__(self) -> None:
        self._last: WireImage | None = None

    def accept(self, parts: list[Buffer]) -> list[WireImage | FrameError]:
        """Take in a message; return its image, and what is missing before it.

        Raises:
            FrameError: The message is not of this format, damaged, or came before.
        """
        if len(parts) != 2:
            raise FrameError(f"A message of array-1.0 has 2 parts, this one {len(parts)}; check the source's `type`.")
        header = json_object(parts[0], _HEADER)
        if not kind_of(header).startswith("array-1"):
            raise FrameError(
                f"The message's htype is {shown(header.get('htype'))}, not 'array-1.0'; check the source's `type`."
            )
        image = WireImage(
            number=whole_number(header, "frame", _HEADER),
            shape=two_lengths(header.get("shape"), _HEADER),
            dtype=pixel_type(header.get("type"), byte_order(header, _HEADER), _HEADER),
            payload=parts[1],
            keys=hrtem_keys(header.get("hrtem", {})),
        )
        last, self._last = self._last, image
        if last is None or image.number < last.number:
            return [image]
        if image.number > last.number:
            gap = image.number > last.number + 1
            return [missing(last.number + 1, image.number), image] if gap else [image]
        # Two senders count alike; only the same pixels make it the same frame.
        if image.payload == last.payload:
            raise SuperfluousFrameError("it came before")
        return [image]

    def reopen(self, parts: list[Buffer]) -> None:
        """Do nothing: there are no series."""
