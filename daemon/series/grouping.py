"""A source's frames, as they come, to focal series.

A frame belongs to the series that the first of the source's rules tells (see `daemon.series.membership`). A frame of
which no rule tells anything continues a defocus cycle: frames of one folder, one after the other, that go through focus
in one direction; where the defocus turns back, the next cycle begins.

A series ends when all its frames are there. It is given up, with a failure that says what is missing, when nothing more
of it came for some time, or when too many series are open.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from time import monotonic

from daemon.drops import Drops
from daemon.errors import FrameError, HrtemdError
from daemon.frames import Frame
from daemon.recognition.package import StatedRanges
from daemon.series.membership import Key, Membership, Rule
from daemon.series.open_series import Label, OpenSeries, frame_of, identity_of
from daemon.series.triplets import FRAMES, LEAST_STEP_ANGSTROM, content_of, focal_series
from daemon.sources.source import Arrival, Failure, Source

MOST_OPEN = 32
"""Series of a source that may be incomplete at one time."""

OPEN_BYTES = 2 * 2**30
"""Memory for the frames of a source's incomplete series; a single series may take more."""

LONGEST_SERIES = 32
"""Frames of a series, all of which are held until it is complete."""

DUPLICATE = "the same frame of a series again"
RETAKEN = "a frame of a series was taken again"
INCOMPLETE = "series incomplete: the missing frames did not come"
CUT_OFF = "defocus cycle cut off"
CROWDED = "series incomplete: too many were open"
TOO_LONG = "series too long"
UNPLACED = "frame belongs to no series"

_REMEMBERED_SERIES = 256
_CYCLE = "cycle"


class Grouping:
    """Collects the frames of one source until their series are complete.

    Args:
        source: Name of the source.
        rules: The first that tells a frame's series decides.
        ranges: Tells of a frame what its model was trained for; of a longer series, decides which three are analysed.
        drops: Counts the frames that end in no series.
        timeout_seconds: A series to which nothing was added for so long is given up.
        finish: Called with the id of each frame that ends in no series, once it was made known why.
    """

    def __init__(
        self,
        source: str,
        rules: Sequence[Rule],
        ranges: Callable[[Frame], StatedRanges],
        drops: Drops,
        timeout_seconds: float = math.inf,
        finish: Callable[[str], None] | None = None,
    ) -> None:
        self._source = source
        self._rules = rules
        self._ranges = ranges
        self._drops = drops
        self._timeout_seconds = timeout_seconds
        self._finish = finish
        self._given_up: list[str] = []
        self._open: dict[Key, OpenSeries] = {}
        """The one that was added to last stands last."""
        self._ended: dict[Key, dict[Label, Hashable]] = {}
        """What the last series of each key was made of; of the latest keys."""
        self._listened_seconds = 0.0

    def group(self, arrivals: Iterable[Arrival | Failure | None]) -> Iterator[Arrival | Failure]:
        """Yield complete series, failures to make one, and the source's own failures.

        Only the time spent waiting for the source counts for time-outs: while whoever takes the series is busy, frames
        may be waiting to be read.

        Args:
            arrivals: What the source yields; None where nothing came for a moment.
        """
        listening_since = monotonic()
        for arrival in arrivals:
            self._listened_seconds += monotonic() - listening_since
            if isinstance(arrival, Failure):
                yield arrival
            elif arrival:
                yield from self.add(arrival)
            yield from self._give_up_overdue()
            self._finish_given_up()
            listening_since = monotonic()

    def add(self, arrival: Arrival) -> Iterator[Arrival | Failure]:
        """Put a frame into its series, and yield what comes of it."""
        frame = frame_of(arrival)
        try:
            membership = self._membership(frame, arrival)
        except FrameError as error:
            self._drops.add(self._source, UNPLACED)
            self._given_up += arrival.frame_ids
            yield _failed(arrival, error)
            return
        key, label = membership.key, content_of(frame) if membership.place is None else membership.place
        if self._ended.get(key, {}).get(label) == identity_of(frame):
            self._drops.add(self._source, DUPLICATE)
            return
        if membership.length is not None and membership.length > LONGEST_SERIES:
            yield from self._refuse(arrival, membership)
            return

        series = self._open.pop(key, None) or OpenSeries(membership.name, FRAMES)
        self._open[key] = series
        series.length = membership.length or series.length
        series.touched_at = self._listened_seconds
        earlier = series.arrivals.get(label)
        series.arrivals[label] = arrival
        if earlier and content_of(frame_of(earlier)) != content_of(frame):
            yield self._retaken(earlier, arrival, series)
        elif earlier and identity_of(frame_of(earlier)) == identity_of(frame):
            self._drops.add(self._source, DUPLICATE)
            if earlier.frame_ids != arrival.frame_ids:
                self._given_up += earlier.frame_ids
        if key[0] == _CYCLE:
            yield from self._cut_cycle(series)
        if series.is_complete:
            yield self._complete(key)
        yield from self._make_room()

    def close(self) -> Iterator[Failure]:
        """Give up what is incomplete: no more frames will come."""
        for key in list(self._open):
            yield self._give_up(key, INCOMPLETE, "nothing more will come")
        self._finish_given_up()

    def _finish_given_up(self) -> None:
        """Finish frames of which the failures were taken, so that a crash before that loses none silently."""
        if self._finish:
            for frame_id in self._given_up:
                self._finish(frame_id)
        self._given_up.clear()

    def _membership(self, frame: Frame, arrival: Arrival) -> Membership:
        told = (rule(frame, arrival.origin) for rule in self._rules)
        membership = next((membership for membership in told if membership), None)
        if membership:
            return membership
        if frame.acquisition.defocus_angstrom is None:
            raise FrameError(
                f"{frame.name} belongs to no series: it has no `series_id`, `series_pattern` does not find one in its "
                "name, and without `defocus_angstrom` it is no part of a defocus cycle; give it one of them."
            )
        # What was there at start comes between new frames and has a cycle of its own.
        key = (_CYCLE, str(Path(arrival.origin).parent), "resumed" if arrival.resumed else "new")
        return Membership(key, "", None, None)

    def _cut_cycle(self, series: OpenSeries) -> Iterator[Failure]:
        """Take out of a defocus cycle what the last frame shows to be no part of it."""
        arrivals = series.in_order()
        defocus = [frame.acquisition.defocus_angstrom or 0.0 for frame in series.frames()]
        if len(arrivals) > 1 and abs(defocus[-1] - defocus[-2]) < LEAST_STEP_ANGSTROM:
            yield self._retaken(arrivals[-2], arrivals[-1], series)
            series.remove(arrivals[-2])
        elif len(arrivals) == FRAMES and (defocus[1] - defocus[0]) * (defocus[2] - defocus[1]) < 0:
            series.remove(arrivals[0])
            first, second, third = (
                f"{arrival.subject.name} ({value:g} Å)" for arrival, value in zip(arrivals, defocus, strict=True)
            )
            sentence = (
                f"The defocus cycle of {first} was cut off: after {second} the defocus turned back to {third} before "
                f"{FRAMES} frames were there, so {arrivals[0].subject.name} is not analysed. Series that are no such "
                "cycles need a `series_id`, or a `series_pattern` in config.toml."
            )
            yield self._failure(arrivals[:1], CUT_OFF, sentence)

    def _complete(self, key: Key) -> Arrival | Failure:
        series = self._open.pop(key)
        self._remember(key, series.identities())
        arrivals = series.in_order()
        members = [frame_id for arrival in arrivals for frame_id in arrival.frame_ids]
        try:
            frames = series.frames()
            subject = focal_series(frames, self._source, series.name, self._ranges(frames[0]))
        except HrtemdError as error:
            self._given_up += members
            return _failed(arrivals[0], error)
        return Arrival(
            source=self._source,
            origin=arrivals[0].origin,
            subject=subject,
            read_ms=sum(arrival.read_ms for arrival in arrivals),
            folder=arrivals[0].folder,
            resumed=any(arrival.resumed for arrival in arrivals),
            described_at=max(arrival.described_at for arrival in arrivals),
            members=tuple(members),
        )

    def _remember(self, key: Key, identities: dict[Label, Hashable]) -> None:
        self._ended.pop(key, None)
        self._ended[key] = identities
        if len(self._ended) > _REMEMBERED_SERIES:
            self._ended.pop(next(iter(self._ended)))

    def _refuse(self, arrival: Arrival, membership: Membership) -> Iterator[Failure]:
        """Say once that a series is too long."""
        self._drops.add(self._source, TOO_LONG)
        self._given_up += arrival.frame_ids
        if membership.key not in self._ended:
            sentence = (
                f"The series {membership.name} has {membership.length} frames, more than the {LONGEST_SERIES} of which "
                f"the best {FRAMES} can be chosen; give fewer."
            )
            yield _failed(arrival, FrameError(sentence))
        self._remember(membership.key, {})

    def _give_up_overdue(self) -> Iterator[Failure]:
        overdue_at = self._listened_seconds - self._timeout_seconds
        for key in [key for key, series in self._open.items() if series.touched_at <= overdue_at]:
            yield self._give_up(key, INCOMPLETE, f"nothing more came for {self._timeout_seconds:g} s")

    def _make_room(self) -> Iterator[Failure]:
        """Give up the series that was added to the longest ago, while they are too many or too large."""
        while len(self._open) > MOST_OPEN or (
            len(self._open) > 1 and sum(series.bytes for series in self._open.values()) > OPEN_BYTES
        ):
            because = f"of {len(self._open)} series that were incomplete at one time it was waited for the longest"
            yield self._give_up(next(iter(self._open)), CROWDED, because)

    def _give_up(self, key: Key, why: str, because: str) -> Failure:
        series = self._open.pop(key)
        arrivals = series.in_order()
        came = ", ".join(arrival.subject.name for arrival in arrivals)
        sentence = (
            f"The series {series.name} is incomplete: of its {series.length} frames {series.missing()}, and {because}. "
            f"Here {'is' if len(arrivals) == 1 else 'are'} {came}."
        )
        if series.given_name and key in self._ended:
            sentence += f" {FRAMES} frames of this series came before; a longer one must give its `series_length`."
        return self._failure(arrivals, why, sentence)

    def _retaken(self, earlier: Arrival, later: Arrival, series: OpenSeries) -> Failure:
        sentence = (
            f"{earlier.subject.name} was taken again before the series {series.name} was complete; "
            f"{later.subject.name} ({Path(later.origin).name}) takes its place."
        )
        return self._failure([earlier], RETAKEN, sentence)

    def _failure(self, arrivals: Sequence[Arrival], why: str, sentence: str) -> Failure:
        self._drops.add(self._source, why, len(arrivals))
        self._given_up += [frame_id for arrival in arrivals for frame_id in arrival.frame_ids]
        return _failed(arrivals[0], FrameError(sentence))


def _failed(arrival: Arrival, error: Exception) -> Failure:
    """What becomes of a frame without a series, or of a series, which the ledger knows by its first frame."""
    return Failure(arrival.source, arrival.origin, error, arrival.subject.frame_id)


class GroupedSource:
    """A source that yields focal series instead of another source's frames.

    What is incomplete when it is stopped is left to the next start.
    """

    def __init__(self, source: Source, grouping: Grouping) -> None:
        self.name = source.name
        self._source = source
        self._grouping = grouping

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure]:
        """Yield series and failures as they come, until `stop` is set."""
        yield from self._grouping.group(self._source.arrivals(stop))
        if not stop.is_set():
            yield from self._grouping.close()
