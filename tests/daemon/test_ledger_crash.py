"""A process that keeps a ledger is killed in the middle, again and again: no number is given twice or left out."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import sleep

from daemon.ledger import Ledger, LedgerLimits, read_history

KILLS = 10

# Says on stdout what it would have sent; as a daemon with a backlog, it begins with the first frame at each start.
WRITER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.ledger import Ledger, LedgerLimits

ledger = Ledger(Path(sys.argv[1]), LedgerLimits(bytes=int(sys.argv[2]), age_days=30))
os.write(1, b"ready\\n")
for index in range(int(sys.argv[3]), 1_000_000):
    frame = ("camera", str(index))
    if ledger.receive(*frame, f"{index}.tif", datetime.now(UTC)) != "received":
        continue
    ledger.begin(*frame)
    if index % 10 == 9:
        message = ledger.post("event/camera", {"error": "is bad."}, b"", frame=frame, state="failed")
    else:
        message = ledger.post("atoms/camera", {"index": index}, os.urandom(3000), frame=frame, state="published")
    os.write(1, f"{message.topic} {message.sequence} {index}\\n".encode())
"""


def run_and_kill(path: Path, limit_bytes: int, first: int, chance: random.Random) -> list[tuple[str, int, int]]:
    """Return topic, number and frame of what was sent before the kill, the last line left out where it is cut."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(limit_bytes), str(first)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
        lines = [writer.stdout.readline() for _ in range(chance.randrange(60))]
        sleep(chance.uniform(0, 0.003))
        writer.kill()
        lines += [line for line in writer.stdout if line.endswith("\n")]
    sent = [line.split() for line in lines]
    return [(topic, int(sequence), int(index)) for topic, sequence, index in sent]


def test_every_frame_has_one_result_and_every_topic_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    chance = random.Random(4)
    sent = [result for _ in range(KILLS) for result in run_and_kill(path, 2**30, 0, chance)]
    ledger = Ledger(path, LedgerLimits(bytes=2**30, age_days=30))
    kept = {
        (topic, message.sequence): message for topic in ledger.topics() for message in ledger.after(topic, 0, 10**6)
    }
    newest = {topic: ledger.newest(topic) for topic in ledger.topics()}
    ledger.close()
    assert newest["atoms/camera"] > KILLS
    assert set(kept) == {(topic, sequence) for topic, last in newest.items() for sequence in range(1, last + 1)}
    assert max(Counter(index for _, _, index in sent).values()) == 1
    entries = read_history(path)
    assert [entry.frame_id for entry in entries] == [str(index) for index in range(len(entries))]
    for topic, sequence, index in sent:
        assert entries[index].state == ("failed" if topic == "event/camera" else "published")
        assert kept[topic, sequence].header.get("index", index) == index
    # Between a commit and its line there is room for a kill, once each time; at the end one frame may be in work.
    states = Counter(entry.state for entry in entries)
    assert (states["published"], states["failed"]) == (newest["atoms/camera"], newest["event/camera"])
    assert states["received"] <= 1
    assert len(sent) <= len(kept) <= len(sent) + KILLS
    assert not any(entry.attempts for entry in entries if entry.state != "received")


def test_numbers_go_on_though_the_oldest_results_were_being_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    chance = random.Random(5)
    last: Counter[str] = Counter()
    first = 0
    for _ in range(KILLS):
        for topic, sequence, index in run_and_kill(path, 2**18, first, chance):
            assert sequence > last[topic]
            last[topic], first = sequence, index + 1
    ledger = Ledger(path, LedgerLimits(bytes=2**18, age_days=30))
    for topic in ("atoms/camera", "event/camera"):
        numbers = [message.sequence for message in ledger.after(topic, 0, 10**6)]
        assert numbers == list(range(numbers[0], ledger.newest(topic) + 1))
        assert last[topic] <= ledger.newest(topic) <= last[topic] + KILLS
    oldest = ledger.oldest("atoms/camera")
    assert oldest is not None
    assert oldest > 1
    ledger.close()
