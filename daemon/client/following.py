"""What to deliver, what to wait for and what to ask for; knows nothing of sockets.

Results of a topic are delivered in the order of their numbers, each once. One whose predecessor is missing is not kept:
it is asked for again after its predecessors. So a client holds hardly more than one answer in memory, however far it is
behind, and one that is always too slow for the broadcast lives on answers.
"""

from collections import deque
from collections.abc import Collection

from daemon import protocol
from daemon.client.errors import LostResultsError, NoResultsError
from daemon.client.results import Result, Status, read_result
from daemon.errors import HrtemdError
from daemon.protocol import REPLAY_SCHEMA, ProtocolError, decode_header, encode_header, topic_of

ANSWER_SECONDS = 3.0
"""A request without an answer is sent again after this."""

UNANSWERED_SECONDS = 15.0
"""So long a daemon that is heard may leave requests unanswered, before that is an error."""

SILENCE_SECONDS = 3.0
"""A daemon of which nothing was heard for so long is taken for gone."""


class Following:
    """Where a client stands in each topic.

    Times are those of any clock that never goes back, in seconds.

    Args:
        kinds: Kinds of results that are wanted, of `daemon.protocol`.
        sources: Names of the sources that are wanted; None for all.
        from_start: Begin with the oldest results that the daemon keeps, rather than with the next one.
        endpoint: Where results are broadcast, for messages.
        replay_endpoint: Where requests are sent, for messages.
    """

    def __init__(
        self,
        kinds: Collection[str],
        sources: Collection[str] | None,
        from_start: bool,
        endpoint: str,
        replay_endpoint: str,
    ) -> None:
        self.status: Status | None = None
        """The last heartbeat."""
        self._kinds = kinds
        self._sources = sources
        self._from_start = from_start
        self._endpoint = endpoint
        self._replay_endpoint = replay_endpoint
        self._ready: deque[Result | HrtemdError] = deque()
        self._heard_at: float | None = None
        self._ledger: str | None = None
        # By topic: the number delivered last (None: whichever is the oldest comes next), and the newest there is.
        self._delivered: dict[str, int | None] = {}
        self._newest: dict[str, int] = {}
        self._asked_at: dict[str, float] = {}
        self._waiting_since: float | None = None  # for the answer to the last request
        self._unanswered_since: float | None = None

    @property
    def subscriptions(self) -> list[bytes]:
        """Prefixes of topics to subscribe to, `status` first: it says where the others stand."""
        kinds = [kind for kind in self._kinds if kind != protocol.STATUS]
        sources = [""] if self._sources is None else self._sources
        return [protocol.STATUS.encode(), *(topic_of(kind, source).encode() for kind in kinds for source in sources)]

    def next_result(self) -> Result | None:
        """Return what is to be delivered next; None where more must come first.

        Raises:
            HrtemdError: Something is to be told first.
        """
        if not self._ready:
            return None
        result = self._ready.popleft()
        if isinstance(result, HrtemdError):
            raise result
        return result

    def hear(self, parts: list[bytes], now: float) -> None:
        """Take a message of the broadcast.

        Raises:
            ProtocolError: It is none of hrtemd's.
        """
        result = read_result(parts)
        self._heard_at = now
        if isinstance(result, Status):
            self._heed(result)
        elif self.status is not None and self._wants(result.topic):  # before the first heartbeat, it was there before
            self._notice_ledger(result.header["ledger"])
            self._newest[result.topic] = max(result.sequence, self._newest.get(result.topic, 0))
            delivered = self._delivered.get(result.topic, 0)
            if delivered is not None and result.sequence == delivered + 1:
                self._deliver(result)

    def request(self, now: float) -> bytes | None:
        """Return what to ask the daemon for now, if anything."""
        behind = [topic for topic, newest in self._newest.items() if newest > (self._delivered.get(topic, 0) or 0)]
        if not behind or (self._waiting_since is not None and now < self._waiting_since + ANSWER_SECONDS):
            return None
        self._waiting_since = now
        self._unanswered_since = self._unanswered_since or now
        if now > self._unanswered_since + UNANSWERED_SECONDS and self._is_heard(now):
            self._unanswered_since = now
            self._ready.append(self._not_answering())
        topic = min(behind, key=lambda topic: self._asked_at.get(topic, 0.0))  # each has its turn
        self._asked_at[topic] = now
        return encode_header({"topic": topic, "after": self._delivered.get(topic, 0) or 0})

    def take_back(self) -> None:
        """Forget the last request, which could not be sent: it is made again at the next look, not after a wait."""
        self._waiting_since = None
        self._asked_at.pop(max(self._asked_at, key=self._asked_at.__getitem__), None)

    def answered(self, parts: list[bytes]) -> None:
        """Take the answer to a request.

        Raises:
            HrtemdError: The daemon cannot answer; it is asked again later.
        """
        *messages, marker = parts
        end = decode_header(marker)
        if end.get("schema") != REPLAY_SCHEMA or len(messages) % 3:
            raise ProtocolError(
                f"{self._replay_endpoint}: sends no answer that this client knows; is this hrtemd's replay endpoint?"
            )
        self._unanswered_since = None
        if end["error"]:
            raise HrtemdError(f"The daemon does not send what was missed: {end['error']}")
        self._waiting_since = None
        self._notice_ledger(end["ledger"])
        topic, newest = end["topic"], end["newest"]
        if end["after"] > (self._delivered.get(topic, 0) or 0):  # asked before numbers began again
            return
        for start in range(0, len(messages), 3):
            result = read_result(messages[start : start + 3])
            if result.sequence > (self._delivered.get(topic, 0) or 0):
                self._skip_to(result.sequence, topic)
                self._deliver(result)
        if not end["more"]:
            self._skip_to(newest + 1, topic)
        self._newest[topic] = max(newest, self._newest.get(topic, 0))

    def no_results(self, seconds: float, now: float) -> NoResultsError:
        """Say why nothing came for some seconds."""
        if self._heard_at is None:
            return NoResultsError(
                f"Nothing was heard from {self._endpoint} for {seconds:g} s; is `hrtemd run` running there, with "
                "[publish.zeromq] in its config.toml? If that has keys, they must fit this client's: see docs/keys.md."
            )
        if not self._is_heard(now):
            return NoResultsError(
                f"The daemon at {self._endpoint} fell silent {now - self._heard_at:.0f} s ago; "
                "results go on once it runs again."
            )
        return NoResultsError(f"The daemon at {self._endpoint} runs, but had nothing to send for {seconds:g} s.")

    def _heed(self, status: Status) -> None:
        newest = {topic: number for topic, number in status.header["newest"].items() if self._wants(topic)}
        if self.status is None:
            self._delivered = {topic: None if self._from_start else number for topic, number in newest.items()}
        self.status = status
        self._notice_ledger(status.header["ledger"])
        for topic, number in newest.items():
            self._newest[topic] = max(number, self._newest.get(topic, 0))
        if protocol.STATUS in self._kinds:
            self._ready.append(status)

    def _deliver(self, result: Result) -> None:
        self._delivered[result.topic] = result.sequence
        self._ready.append(result)

    def _skip_to(self, number: int, topic: str) -> None:
        """Go on with this number, and tell what is missing before it."""
        delivered = self._delivered.get(topic, 0)
        if delivered is not None and delivered + 1 < number:
            self._ready.append(
                LostResultsError(
                    f"{topic}: results {delivered + 1} to {number - 1} were missed, and the daemon no longer keeps "
                    "them; raise the limits in [ledger] to keep more.",
                    topic, delivered + 1, number - 1,
                )
            )  # fmt: skip
        self._delivered[topic] = max(number - 1, delivered or 0)

    def _notice_ledger(self, identity: str) -> None:
        """Begin anew where the daemon's ledger was lost, since all numbers do."""
        if self._ledger not in (None, identity):
            self._delivered, self._newest = {}, {}
            self._ready.append(
                LostResultsError(
                    "The daemon has begun a new ledger, since the old one was damaged, moved or deleted; results in it "
                    "that did not come until now are lost."
                )
            )
        self._ledger = identity

    def _wants(self, topic: str) -> bool:
        kind, _, source = topic.partition("/")
        return kind in self._kinds and (self._sources is None or source in self._sources)

    def _is_heard(self, now: float) -> bool:
        return self._heard_at is not None and now < self._heard_at + SILENCE_SECONDS

    def _not_answering(self) -> HrtemdError:
        return HrtemdError(
            f"Results were missed, and the daemon at {self._endpoint} does not answer at {self._replay_endpoint}, "
            "where they are asked for; give its replay_endpoint to the client, and forward that port as well."
        )
