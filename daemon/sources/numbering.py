"""Which of a series' images have come, and which never did."""

from collections import deque

from daemon.errors import FrameError

_REMEMBERED_SERIES = 8
"""Messages of the last so many series are known as stale; a camera that starts anew counts its series from 1 again."""


class MissingFramesError(FrameError):
    """Frames were sent that never came.

    Attributes:
        number: How many.
    """

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.number = number


class SuperfluousFrameError(FrameError):
    """A frame that must not be analysed: it came before, or belongs to a series that is over."""


class SeriesNumbers:
    """Follows the series of a camera that numbers them, and the images in each from 0."""

    def __init__(self) -> None:
        self._series: str | None = None
        self._length: int | None = None
        self._next: int | None = None
        self._over: deque[str] = deque(maxlen=_REMEMBERED_SERIES)

    def start(self, series: str, length: int | None) -> list[FrameError]:
        """Begin a series; return what is wrong with the one before it, which may never have been ended.

        Args:
            series: Its id. One used before is used anew.
            length: How many images it will have, where the camera tells.
        """
        problems = self._close("a new series began") if self._series not in (None, series) else []
        if series in self._over:
            self._over.remove(series)
        self._series, self._length, self._next = series, length, 0
        return problems

    def forget_position(self) -> None:
        """Let the next image of this series have any number: those before it are not looked at again."""
        self._next = None

    def image(self, series: str, number: int) -> list[FrameError]:
        """Take note of an image; return what is missing before it.

        Raises:
            SuperfluousFrameError: It came before, or its series is over.
        """
        if series in self._over:
            raise SuperfluousFrameError("its series was over")
        problems: list[FrameError] = []
        if series != self._series:
            # Its start was missed: the daemon connected late, or the message was lost. What came before is not known.
            problems = self.start(series, None)
            self.forget_position()
        expected = number if self._next is None else self._next
        if number < expected:
            raise SuperfluousFrameError("it came before")
        if number > expected:
            problems.append(missing(expected, number, f" of series {series}"))
        self._next = number + 1
        return problems

    def end(self, series: str) -> list[FrameError]:
        """End a series; return what is missing at its end."""
        if series != self._series:
            return []
        return self._close("its end was announced")

    def _close(self, reason: str) -> list[FrameError]:
        series, length, came = self._series, self._length, self._next
        assert series is not None  # only an open series is closed
        self._over.append(series)
        self._series = None
        if length is None or came is None or came >= length:
            return []
        sentence = (
            f"Series {series} stopped at {came} of its {length} frames, then {reason}; "
            "the acquisition was aborted, or the rest was lost on the way."
        )
        return [MissingFramesError(sentence, length - came)]


def missing(first: int, beyond: int, of_series: str = "") -> MissingFramesError:
    """Say that the frames from `first` to before `beyond` never came."""
    number = beyond - first
    which = f"Frame {first}" if number == 1 else f"Frames {first} to {beyond - 1}"
    return MissingFramesError(
        f"{which}{of_series} never came; another program may be pulling from the same socket, which gives each a part, "
        "or the sender gave up waiting.",
        number,
    )
