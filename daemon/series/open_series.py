"""A focal series whose frames are still coming."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from daemon.frames import Frame
from daemon.series.triplets import content_of
from daemon.sources.source import Arrival

Label = int | str
"""What tells the frames of one series apart: their index or, where nobody gives one, their content."""


@dataclass
class OpenSeries:
    """What has come of a series so far.

    Attributes:
        given_name: What the operator knows the series by; empty where it goes by its first frame's name.
        length: How many frames it is to have.
        touched_at: When it was last added to, on its grouping's clock.
        arrivals: The frames by label, in order of coming.
    """

    given_name: str
    length: int
    touched_at: float = 0.0
    arrivals: dict[Label, Arrival] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the operator knows the series by."""
        return self.given_name or self.in_order()[0].subject.name

    @property
    def is_complete(self) -> bool:
        """Whether all its frames are there."""
        return len(self.arrivals) >= self.length

    @property
    def bytes(self) -> int:
        """Memory that its pixels take."""
        return sum(frame.pixels.nbytes for frame in self.frames())

    def in_order(self) -> list[Arrival]:
        """Return the frames in the order they were taken: by index, or as they came."""
        indices = [label for label in self.arrivals if isinstance(label, int)]
        if len(indices) < len(self.arrivals):
            return list(self.arrivals.values())
        return [self.arrivals[index] for index in sorted(indices)]

    def frames(self) -> list[Frame]:
        """Return the same as frames."""
        return [frame_of(arrival) for arrival in self.in_order()]

    def identities(self) -> dict[Label, Hashable]:
        """Return what each of its frames is known again by."""
        return {label: identity_of(frame_of(arrival)) for label, arrival in self.arrivals.items()}

    def remove(self, arrival: Arrival) -> None:
        """Take out a frame that turns out to be no part of it."""
        self.arrivals = {label: other for label, other in self.arrivals.items() if other is not arrival}

    def missing(self) -> str:
        """Say how many frames are missing and, as far as that is known, which: indices may count from 0 or from 1."""
        there = self.arrivals.keys()
        number = self.length - len(there)
        ranges = [range(start, start + self.length) for start in (0, 1)]
        gaps = [[str(index) for index in indices if index not in there] for indices in ranges if there <= set(indices)]
        which = f" (index {' or '.join(', '.join(gap) for gap in gaps)})" if gaps else ""
        return f"{number} {'is' if number == 1 else 'are'} missing{which}"


def frame_of(arrival: Arrival) -> Frame:
    """Return the frame that arrived: sources hand over frames, and only grouping makes series of them."""
    assert isinstance(arrival.subject, Frame)
    return arrival.subject


def identity_of(frame: Frame) -> Hashable:
    """Return what makes a frame the same when it comes again: its content and what is said of it."""
    return content_of(frame), frame.acquisition, frame.calibration
