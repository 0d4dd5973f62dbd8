"""What a client tells by raising it; iteration may go on after each."""

from daemon.errors import HrtemdError


class LostResultsError(HrtemdError):
    """Results that were missed and that the daemon no longer keeps. The next result is the first after them.

    Attributes:
        topic: Such as `atoms/camera`; None where the daemon lost its ledger, so that nobody knows what was in it.
        first: Number of the first one; None as above.
        last: Number of the last one; None as above.
    """

    def __init__(
        self, sentence: str, topic: str | None = None, first: int | None = None, last: int | None = None
    ) -> None:
        super().__init__(sentence)
        self.topic = topic
        self.first = first
        self.last = last


class NoResultsError(HrtemdError, TimeoutError):
    """Nothing came within the time that the client was given; says whether the daemon is alive."""
