"""Messages that are damaged or meant to harm: each is taken or refused, counted, and nothing else happens.

Messages mutated at random go through the decoders as a source uses them. Then the faults that `hrtemd replay` makes on
request, in each format, and some of the mutated messages go through real sockets into a real daemon, whose accounts are
compared with those of the decoders alone.
"""

import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, count, islice
from math import inf
from pathlib import Path
from random import Random
from time import monotonic, perf_counter

import zmq

from daemon.client import Atoms
from daemon.errors import FrameError
from daemon.event_limit import WITHHELD
from daemon.ledger import read_history
from daemon.readers import ReadLimits
from daemon.sources.formats import FORMATS
from daemon.sources.numbering import SuperfluousFrameError
from daemon.sources.simulator import Faults, Shot, with_faults
from daemon.sources.wire_image import Decoder, WireImage
from tests.torture.fuzzing import MESSAGES_A_CHUNK, SIDE, chunk_of, messages
from tests.torture.outcome import Circumstances, Outcome
from tests.torture.running import DaemonProcess, Listener, Pictures, free_endpoint

ASKED = 1_000_000
SHARE_THROUGH_A_DAEMON = 0.03
SEED = 4

_LIMITS = ReadLimits(frame_pixels=2**16, decompressed_bytes=2**18)
_PIXEL_ANGSTROM = 0.16
_LONGEST_SECONDS = 2.0
"""A message that takes longer hangs a source; the machine may be busy."""

_MOST_MEMORY_BYTES = 200 * 2**20
_NOW = datetime(2026, 11, 25, tzinfo=UTC)

SOURCE = """
[[sources]]
name = "{name}"
type = "{format_name}"
endpoint = "{endpoint}"
bind = true
model = "{model}"
pixel_size_angstrom = 0.16
"""
LIMITS = """
[limits]
frame_pixels = 65536
decompressed_bytes = 262144
message_bytes = 8388608
"""

_FAULTS = {
    "--drop 0.2": Faults(drop=0.2),
    "--corrupt 0.2": Faults(corrupt=0.2),
    "--abort-after 3": Faults(abort_after=3),
    "--no-start": Faults(no_start=True),
    "all of them": Faults(drop=0.2, corrupt=0.2, abort_after=4, no_start=True),
}
_SERIES_OF_A_FAULT, _SHOTS_OF_A_SERIES = 4, 6


@dataclass
class Account:
    """What became of some messages: each image, each refusal, each repetition."""

    decoder: Decoder
    frames: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    superfluous: int = 0
    unforeseen: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    @property
    def all(self) -> int:
        return self.frames.total() + self.refused + self.superfluous

    def take(self, source: str, parts: list[bytes], where: str) -> None:
        """Do all that a source does with a message."""
        started = perf_counter()
        try:
            for item in self.decoder.accept(list(map(memoryview, parts))):
                if isinstance(item, WireImage):
                    self._unpack(item, source)
                else:
                    self.refused += 1
        except SuperfluousFrameError:
            self.superfluous += 1
        except FrameError:
            self.refused += 1
        except Exception as error:
            self.refused += 1
            self.unforeseen.append(f"{where}: {type(error).__name__}: {error}"[:300])
        self.slowest_seconds = max(self.slowest_seconds, perf_counter() - started)

    def _unpack(self, image: WireImage, source: str) -> None:
        try:
            frame = image.frame(source, _NOW, _LIMITS, _PIXEL_ANGSTROM)
            self.frames[frame.frame_id] += 1
        except FrameError:
            self.refused += 1


def _source(format_name: str) -> str:
    """Name the source of a format."""
    return format_name.replace(".", "-")


def hostile(folder: Path, model: Path, number: int = ASKED, seed: int = SEED, minutes: float = inf) -> Outcome:
    """Send every fault, and so many fuzzed messages, or as many as there is time for."""
    circumstances = Circumstances()
    outcome = Outcome("hostile", "every fault of every format, and 1,000,000 fuzzed messages", "")
    number = _fuzz_decoders(outcome, number, seed, monotonic() + 60 * minutes)
    through_a_daemon = round(SHARE_THROUGH_A_DAEMON * number / len(FORMATS))
    outcome.run = (
        f"every fault; {number:,} fuzzed messages, {len(FORMATS) * through_a_daemon:,} of them also through a daemon; "
        f"seed {seed}"
    )
    faulty = {format_name: list(_faulty(format_name, seed)) for format_name in FORMATS}
    _through_a_daemon(
        outcome,
        folder,
        model,
        {name: chain(faulty[name], messages(name, seed, through_a_daemon)) for name in FORMATS},
    )
    outcome.numbers["faults"] = {name: f"{len(faulty[name])} messages with {', '.join(_FAULTS)}" for name in FORMATS}
    outcome.notes.append(
        f"Message n of a format is `tests.torture.fuzzing.chunk_of(FORMAT, {seed}, n // {MESSAGES_A_CHUNK})"
        f"[n % {MESSAGES_A_CHUNK}]`."
    )
    return circumstances.end(outcome)


def _fuzz_decoders(outcome: Outcome, number: int, seed: int, until: float) -> int:
    """Give messages to the decoders; return how many it were."""
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accounts = {name: Account(FORMATS[name].decoder()) for name in FORMATS}
    given = frames = 0
    for chunk in range(-(-number // (len(FORMATS) * MESSAGES_A_CHUNK))):
        if monotonic() > until:
            break
        for name, account in accounts.items():
            account.decoder = FORMATS[name].decoder()
            for place, parts in enumerate(chunk_of(name, seed, chunk)):
                account.take(_source(name), parts, f"{name}, chunk {chunk}, message {place}")
                given += 1
            frames += account.frames.total()
            account.frames.clear()  # only their number is of interest
    for name, account in accounts.items():
        outcome.check(
            f"{name}: every message is taken or refused with a sentence",
            not account.unforeseen,
            f"{len(account.unforeseen)} unforeseen errors {account.unforeseen[:3]}",
        )
        outcome.check(
            f"{name}: no message takes longer than {_LONGEST_SECONDS:g} s",
            account.slowest_seconds < _LONGEST_SECONDS,
            f"the slowest took {1e3 * account.slowest_seconds:.0f} ms",
            is_timing=True,
        )
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before)
    outcome.check("the decoders' memory is bounded", grown < _MOST_MEMORY_BYTES, f"{grown / 1e6:+.0f} MB at most")
    outcome.numbers["decoders"] = {
        "messages": given,
        "frames": frames,
        "refused": sum(account.refused for account in accounts.values()),
        "superfluous": sum(account.superfluous for account in accounts.values()),
    }
    return given


def _faulty(format_name: str, seed: int) -> Iterator[list[bytes]]:
    """Yield series of frames with each fault, without what was lost on the way."""
    chance, pictures, numbers = Random(f"{format_name}/{seed}"), Pictures(SIDE), count()
    simulator = FORMATS[format_name].simulator()
    for faults in _FAULTS.values():
        for _ in range(_SERIES_OF_A_FAULT):
            shots = [Shot(pictures[number], {}) for number in islice(numbers, _SHOTS_OF_A_SERIES)]
            for message in with_faults(simulator.series(shots, len(shots)), faults, chance):
                if message.parts:
                    yield message.parts


def _through_a_daemon(outcome: Outcome, folder: Path, model: Path, feeds: dict[str, Iterator[list[bytes]]]) -> None:
    """Send messages to a daemon, and compare its accounts with those of the decoders alone."""
    sources = {_source(format_name): format_name for format_name in FORMATS}
    endpoints = {name: free_endpoint() for name in sources}
    config = LIMITS + "".join(
        SOURCE.format(name=name, format_name=sources[name], endpoint=endpoints[name], model=model) for name in sources
    )
    # The daemon's folder is all it may write to, deep enough for ids that climb.
    outside = folder / "a" / "b"
    inside = outside / "daemon"
    inside.mkdir(parents=True)
    accounts = {name: Account(FORMATS[sources[name]].decoder()) for name in sources}
    with DaemonProcess(inside, config, overlays=False) as daemon:
        daemon.start()
        before = daemon.usage().memory_bytes
        with Listener(daemon, Atoms) as listener:
            sent = _send(daemon, endpoints, {_source(name): feed for name, feed in feeds.items()}, accounts)
            outcome.numbers["through_a_daemon"] = dict(sent)
            came = daemon.wait_until(lambda: _are_all_in(daemon, accounts), 300.0, 1.0)
            alive = daemon.is_alive
            grown = daemon.usage().memory_bytes - before
            last = _goes_on(daemon, endpoints, listener)
        status = daemon.stop()
        said = daemon.said()
        drops = {name: daemon.dropped(name) for name in sources}
    for name, account in accounts.items():
        entries = read_history(daemon.ledger, source=name)
        found = {entry.frame_id for entry in entries}
        missing = set(account.frames) - found
        outcome.check(
            f"{name}: each frame is published, or failed with an event",
            came and not missing and all(entry.state in ("published", "failed") for entry in entries),
            f"{len(account.frames)} frames, {sum(entry.state == 'published' for entry in entries)} published, "
            f"{sum(entry.state == 'failed' for entry in entries)} failed, {len(missing)} missing",
        )
        outcome.check(
            f"{name}: what came before or too late is counted",
            sum(drops[name].values()) - drops[name].get(WITHHELD, 0) == account.superfluous,
            f"{account.superfluous} superfluous, {drops[name]}",
        )
    failed_frames = len(read_history(daemon.ledger, state="failed"))
    refused = sum(account.refused for account in accounts.values())
    counted = _number_before(said, " failed")
    outcome.check(
        "every rejection is counted",
        counted == refused + failed_frames,
        f"{refused} refused by the decoders, {failed_frames} by recognition; the daemon counted {counted}",
    )
    outcome.check("the daemon goes on and analyses the next good frame", alive and last)
    outcome.check("it stops when asked to", status == 0, f"exit status {status}")
    outcome.check("the daemon's memory is bounded", grown < _MOST_MEMORY_BYTES, f"{grown / 1e6:+.0f} MB")
    strangers = [path for path in folder.rglob("*") if inside not in (path, *path.parents) and not path.is_dir()]
    allowed = {"config.toml", "log", "results", "results.socket", "replay.socket"}
    strangers += [path for path in inside.iterdir() if path.name not in allowed]
    strangers += [path for path in (Path("/tmp/hrtemd-was-here"), folder.parent / "x") if path.exists()]
    outcome.check("nothing is written outside of the output folder", not strangers, f"{strangers[:3]}")
    outcome.check("the log shows no fault in hrtemd", "Traceback" not in said, _first_fault(said))


def _send(
    daemon: DaemonProcess,
    endpoints: dict[str, str],
    feeds: dict[str, Iterator[list[bytes]]],
    accounts: dict[str, Account],
) -> Counter[str]:
    """Send everything, each format through its own socket; take account of it on the way."""
    sent: Counter[str] = Counter()
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        cameras: dict[str, zmq.Socket[bytes]] = {}
        for name in feeds:
            cameras[name] = stack.enter_context(context.socket(zmq.PUSH))
            cameras[name].linger = 60_000
            cameras[name].connect(endpoints[name])
        open_feeds = dict(feeds)
        while open_feeds:
            for name in list(open_feeds):
                parts = next(open_feeds[name], None)
                if parts is None:
                    del open_feeds[name]
                    continue
                while not cameras[name].poll(1000, zmq.POLLOUT):
                    assert daemon.is_alive
                cameras[name].send_multipart(parts)
                accounts[name].take(name, parts, name)
                sent[name] += 1
    return sent


def _are_all_in(daemon: DaemonProcess, accounts: dict[str, Account]) -> bool:
    entries = read_history(daemon.ledger)
    done = {entry.frame_id for entry in entries if entry.state != "received"}
    return all(done.issuperset(account.frames) for account in accounts.values())


def _goes_on(daemon: DaemonProcess, endpoints: dict[str, str], listener: Listener) -> bool:
    """Send one good frame of each format as a new camera would, and wait for its atoms."""
    for format_name in FORMATS:
        name = _source(format_name)
        before = len(listener.of(Atoms, name))
        with zmq.Context() as context, context.socket(zmq.PUSH) as camera:
            camera.linger = 60_000
            camera.connect(endpoints[name])
            simulator = FORMATS[format_name].simulator()
            for message in simulator.series([Shot(Pictures(160)[10**6], {})], 1):
                camera.send_multipart(message.parts)
        if not daemon.wait_until(lambda: len(listener.of(Atoms, name)) > before, 60.0):  # noqa: B023
            return False
    return True


def _number_before(said: str, word: str) -> int:
    ending = said.rpartition("stopped: ")[2]
    return int(ending.partition(word)[0].split()[-1]) if word in ending else -1


def _first_fault(said: str) -> str:
    return said.partition("Traceback")[2][-600:] if "Traceback" in said else ""
