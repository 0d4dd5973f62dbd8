"""However results are lost, doubled or forgotten on the way: each is delivered once, in order, or told to be lost."""

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.client.errors import LostResultsError
from daemon.client.following import ANSWER_SECONDS, UNANSWERED_SECONDS, Following
from daemon.ledger import Message
from daemon.protocol import encode_header
from daemon.publish.replay import Replay

TOPICS = ("atoms/one", "atoms/two")


class MemoryLedger:
    """What `Replay` needs of a ledger."""

    identity = "this one"

    def __init__(self) -> None:
        self.kept: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self.counts = dict.fromkeys(TOPICS, 0)

    def post(self, topic: str) -> list[bytes]:
        self.counts[topic] += 1
        self.kept[topic].append(self.counts[topic])
        return self._parts(topic, self.counts[topic])

    def after(self, topic: str, sequence: int, limit: int, _: int) -> list[Message]:
        numbers = [number for number in self.kept[topic] if number > sequence][: min(limit, 3)]
        return [Message(topic, number, self._header(number), b"") for number in numbers]

    def oldest(self, topic: str) -> int | None:
        return min(self.kept[topic], default=None)

    def newest(self, topic: str) -> int:
        return self.counts[topic]

    def heartbeat(self) -> list[bytes]:
        newest = {topic: count for topic, count in self.counts.items() if count}
        header = {"schema": "hrtemd.status.v1", "sequence": 1, "newest": newest, "ledger": self.identity}
        return [b"status", encode_header(header), b""]

    def _parts(self, topic: str, number: int) -> list[bytes]:
        return [topic.encode(), encode_header(self._header(number)), b""]

    def _header(self, number: int) -> dict[str, Any]:
        return {"schema": "hrtemd.atoms.v1", "sequence": number, "ledger": self.identity}


TOPIC = st.sampled_from(TOPICS)
HAPPENINGS = st.lists(
    st.tuples(st.just("post"), TOPIC)
    | st.tuples(st.sampled_from(["lose", "deliver", "double", "last first"]), st.integers(0, 3))
    | st.tuples(st.just("prune"), TOPIC)
    | st.tuples(st.sampled_from(["heartbeat", "ask", "ask in vain", "ask nobody", "wait"]), st.none()),
    max_size=60,
)


@given(HAPPENINGS, st.booleans(), st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_each_result_is_delivered_once_in_order_or_told_to_be_lost(
    happenings: list[tuple[str, Any]], from_start: bool, earlier: int
) -> None:
    ledger = MemoryLedger()
    replay = Replay(ledger, Path())  # type: ignore[arg-type]
    following = Following(["atoms"], None, from_start, "tcp://daemon:1", "tcp://daemon:2")
    for _ in range(earlier):
        ledger.post("atoms/one")
    begun_with = {"atoms/one": 0 if from_start else earlier, "atoms/two": 0}
    pruned: dict[str, set[int]] = {topic: set() for topic in TOPICS}
    on_the_way: list[list[bytes]] = []
    delivered: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    lost: dict[str, set[int]] = {topic: set() for topic in TOPICS}
    now = 0.0

    def give_up(error: LostResultsError) -> None:
        assert error.topic
        assert error.first
        assert error.last
        missing = set(range(error.first, error.last + 1))
        assert missing <= pruned[error.topic], "only what is gone is given up"
        assert not missing & lost[error.topic]
        lost[error.topic] |= missing

    def take() -> None:
        while True:
            try:
                result = following.next_result()
            except LostResultsError as error:
                give_up(error)
                continue
            if result is None:
                return
            delivered[result.topic].append(result.sequence)

    def ask() -> None:
        request = following.request(now)
        if request:
            following.answered(replay.answer([request]))

    following.hear(ledger.heartbeat(), now)
    for what, argument in happenings:
        now += 0.1
        match what:
            case "post":
                on_the_way.append(ledger.post(argument))
            case "lose":
                del on_the_way[argument : argument + 1]
            case "deliver" | "double" if on_the_way:
                message = on_the_way[0] if what == "double" else on_the_way.pop(0)
                following.hear(message, now)
            case "last first" if on_the_way:
                following.hear(on_the_way.pop(), now)
            case "prune":
                pruned[argument] |= set(ledger.kept[argument])
                ledger.kept[argument] = []
            case "heartbeat":
                following.hear(ledger.heartbeat(), now)
            case "ask":
                ask()
            case "ask in vain":
                following.request(now)
            case "ask nobody":
                if following.request(now):
                    following.take_back()
            case "wait":
                now += min(ANSWER_SECONDS, UNANSWERED_SECONDS / 10)
        take()
    following.hear(ledger.heartbeat(), now)
    for _ in range(100):
        now += ANSWER_SECONDS
        following._unanswered_since = None  # that nobody answers is another test's matter
        ask()
        take()

    for topic in TOPICS:
        assert delivered[topic] == sorted(set(delivered[topic])), "once and in order"
        assert not lost[topic] & set(delivered[topic])
        told = lost[topic] | set(delivered[topic])
        expected = set(range(begun_with[topic] + 1, ledger.counts[topic] + 1))
        untold = expected - told
        assert told <= expected
        if from_start:  # what was forgotten before the first result is not missed
            assert untold <= pruned[topic]
            assert not told or not untold or max(untold) < min(told)
        else:
            assert not untold


def test_a_request_that_could_not_be_sent_is_made_again_at_once_and_before_others() -> None:
    ledger = MemoryLedger()
    for topic in TOPICS:
        ledger.post(topic)
    following = Following(["atoms"], None, True, "tcp://daemon:1", "tcp://daemon:2")
    following.hear(ledger.heartbeat(), 0.0)
    unsent = following.request(0.1)
    following.take_back()
    assert following.request(0.2) == unsent
    assert following.request(0.3) is None, "one at a time"
    assert following.request(0.3 + ANSWER_SECONDS) != unsent, "each has its turn"
