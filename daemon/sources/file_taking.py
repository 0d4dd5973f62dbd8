"""From a file that is due to its frames: all of them once it is whole, or each as it is added to a stack."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from time import monotonic

from daemon.errors import FrameError
from daemon.readers import Extent, ReadLimits, extent_of, may_grow, parts_of
from daemon.sources.candidates import Candidate
from daemon.sources.growing_stack import STALL_SECONDS, GrowingStack
from daemon.sources.image_file import arrivals_from, changed_at, unreadable
from daemon.sources.source import Arrival, Failure

RETRY_SECONDS = (0.5, 1.0, 2.0)
"""Pauses before a file that stands still but cannot be read is tried again: its writer may only be slow."""

Taking = Generator[Arrival | Failure, None, Candidate | None]
"""Yields what a file gives now; returns what to wait for, None where there is nothing more to come."""


class FileTaking:
    """Takes frames from the files of one source, each once.

    Args:
        source: Name of the source.
        folder: Its folder.
        pixel_size_angstrom: Å per pixel; beats what files and sidecars say.
        has_newer_results: See `DirectorySource`.
        limits: Beyond them a file is refused.
        in_series: Frames are to make series, for which a file must tell how many it will hold.
    """

    def __init__(
        self,
        source: str,
        folder: Path,
        pixel_size_angstrom: float | None,
        has_newer_results: Callable[[Path, PurePosixPath, float], bool],
        limits: ReadLimits,
        *,
        in_series: bool,
    ) -> None:
        self._source = source
        self._folder = folder
        self._pixel_size_angstrom = pixel_size_angstrom
        self._has_newer_results = has_newer_results
        self._limits = limits
        self._in_series = in_series
        self._stacks: dict[Path, GrowingStack] = {}

    def forget(self, path: Path) -> None:
        """Take a file from its beginning the next time."""
        self._stacks.pop(path, None)

    def forget_all_but(self, paths: set[Path]) -> None:
        """Forget files that were taken away."""
        self._stacks = {path: stack for path, stack in self._stacks.items() if path in paths}

    def take(self, path: Path, candidate: Candidate, *, stands_still: bool, in_order: bool) -> Taking:
        """Take what may be taken of a file now.

        Args:
            path: The file.
            candidate: As it stands now.
            stands_still: Whether it has done so for long enough to be whole.
            in_order: Whether bytes come in order, as they do on a local disk.
        """
        if not may_grow(path):
            return (yield from self._take_whole(path, candidate, candidate.delivered))
        stack = self._stacks.setdefault(path, GrowingStack())
        now = monotonic()
        size = candidate.signature.image[0]
        sure_bytes = stack.sure_bytes(size, now, stands_still=stands_still, in_order=in_order)
        extent = extent_of(path, sure_bytes, stack.taken)
        soon = replace(candidate, due=now if stands_still else max(candidate.settled_at, now))
        if extent is None:
            return (yield from self._take_whole(path, candidate, stack.delivered)) if stands_still else soon
        if not stack.is_continued_by(extent):
            return soon
        if stands_still and stack.taken == 0 and extent.is_complete:
            waiting = yield from self._take_whole(path, candidate, candidate.delivered)
            if waiting is None:
                stack.taken = max(extent.whole, len(candidate.delivered))  # it may just have grown
            return waiting
        if self._may_be_taken(stack, extent, stands_still):
            again = yield from self._take_images(path, candidate, stack, extent.whole)
            if again:
                return again
        if not stands_still:
            return soon
        if not (extent.is_torn or (extent.announced or 0) > extent.whole):
            return None
        if now < candidate.settled_at + STALL_SECONDS:
            return replace(candidate, due=candidate.settled_at + STALL_SECONDS)
        yield unreadable(path, self._source, _cut_short(path, extent))
        return None

    def _may_be_taken(self, stack: GrowingStack, extent: Extent, stands_still: bool) -> bool:
        """Whether whole images of a stack may be taken before all of it is there."""
        if self._in_series:
            return stands_still or (extent.announced or 0) >= max(extent.whole, 2)
        # Otherwise it may be a single frame, which is named differently.
        return stack.taken > 0 or extent.whole > 1 or extent.announced not in (None, 1)

    def _take_images(self, path: Path, candidate: Candidate, stack: GrowingStack, whole: int) -> Taking:
        """Take the images of a stack that have become whole; a bad one is tried again before it is given up."""
        try:
            for outcome in self._arrivals_from(path, candidate, range(stack.taken, whole)):
                if isinstance(outcome, Failure) and stack.attempts < len(RETRY_SECONDS):
                    return _again(candidate, stack)
                stack.taken += 1
                stack.attempts = 0
                if isinstance(outcome, Failure) or outcome.subject.frame_id not in candidate.delivered:
                    yield outcome
        except Exception as error:
            if stack.attempts < len(RETRY_SECONDS):
                return _again(candidate, stack)
            if str(error) != stack.complaint:  # the same of every image, while there are more and more of them
                stack.complaint = str(error)
                yield unreadable(path, self._source, error)
        return None

    def _take_whole(self, path: Path, candidate: Candidate, delivered: set[str]) -> Taking:
        """Take all frames of a file; where some are bad it is tried again before they are given up."""
        failures: list[Failure] = []
        try:
            for outcome in self._arrivals_from(path, candidate):
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                elif outcome.subject.frame_id not in delivered:
                    delivered.add(outcome.subject.frame_id)
                    yield outcome
        except Exception as error:
            failures.append(unreadable(path, self._source, error))
        if failures and candidate.attempts < len(RETRY_SECONDS):
            due = monotonic() + RETRY_SECONDS[candidate.attempts]
            return replace(candidate, due=due, attempts=candidate.attempts + 1)
        yield from failures
        return None

    def _arrivals_from(
        self, path: Path, candidate: Candidate, images: range | None = None
    ) -> Iterator[Arrival | Failure]:
        folder = PurePosixPath(path.parent.relative_to(self._folder).as_posix())
        is_one_frame = images is None
        if candidate.resumed and is_one_frame and self._has_newer_results(path, folder, changed_at(*parts_of(path))):
            return
        yield from arrivals_from(
            path,
            source=self._source,
            pixel_size_angstrom=self._pixel_size_angstrom,
            folder=folder,
            resumed=candidate.resumed,
            limits=self._limits,
            images=images,
        )


def _again(candidate: Candidate, stack: GrowingStack) -> Candidate:
    due = monotonic() + RETRY_SECONDS[stack.attempts]
    stack.attempts += 1
    return replace(candidate, due=due)


def _cut_short(path: Path, extent: Extent) -> FrameError:
    last = f"image {extent.whole} (counted from 0) is cut short" if extent.is_torn else "no other image has begun"
    promised = f", of {extent.announced} announced" if (extent.announced or 0) > extent.whole else ""
    return FrameError(
        f"{path.name}: {extent.whole} images are whole{promised}, {last}, and nothing has come for "
        f"{STALL_SECONDS:g} s; was the acquisition aborted? What is still to come is read when it comes."
    )
