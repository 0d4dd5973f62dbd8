"""What has been taken from a stack while a camera adds to it, and what may be taken next."""

from dataclasses import dataclass, field

from daemon.readers import Extent
from daemon.sources.candidates import SETTLE_SECONDS

STALL_SECONDS = 10.0
"""After as long without a change, images that were announced or begun count as cut short.

A writer that buffers what it writes may hold back the end of an image until the next exposure.
"""


@dataclass(slots=True)
class GrowingStack:
    """How far a stack has been taken.

    Attributes:
        taken: Images yielded, or reported as bad.
        attempts: How often reading has failed since it last succeeded.
        complaint: What was last reported of the file as a whole, so as not to repeat it at every image.
        delivered: Ids of frames, where the file has to be read as a whole.
    """

    taken: int = 0
    attempts: int = 0
    complaint: str = ""
    delivered: set[str] = field(default_factory=set)
    _beginning: int | None = None
    _size: int | None = None
    _seen_at: float = 0.0

    def sure_bytes(self, size: int, now: float, *, stands_still: bool, in_order: bool) -> int:
        """Return how many bytes of the file are surely what they will stay.

        Of a file that changes without growing nothing is sure: it may be being written anew. Of one that grows, what
        was there a while ago is sure, or all but the last byte where bytes come in order, as they do on a local disk;
        a client of a network share may write the end of a file before its middle.

        Args:
            size: Of the file, in bytes.
            now: On the monotonic clock.
            stands_still: Whether it has not changed for `SETTLE_SECONDS`.
            in_order: Whether whoever writes does so on this computer.
        """
        before, seen_at = self._size, self._seen_at
        if before is None or size < before or now >= seen_at + SETTLE_SECONDS:
            self._size, self._seen_at = size, now
        if stands_still:
            return size
        if before is None or size <= before:
            return 0
        if in_order:
            return size - 1
        return before if now >= seen_at + SETTLE_SECONDS else 0

    def is_continued_by(self, extent: Extent) -> bool:
        """Whether the file holds what was taken of it, and perhaps more; where it was written anew, all starts over."""
        if self._beginning == extent.beginning:
            return True
        is_new = self.taken == 0
        self.taken = self.attempts = 0
        self.complaint = ""
        self._beginning = extent.beginning
        return is_new
