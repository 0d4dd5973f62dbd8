"""A pipeline whose source and stages wait for the test."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Semaphore
from typing import Any

import numpy as np

from daemon.drops import Drops
from daemon.frames import Calibration, CalibrationSource, FocalSeries, Frame, make_frame_id
from daemon.inbox import Policy
from daemon.ledger import Ledger, LedgerLimits
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.choice import ModelChoice, Offer
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Inferred, Prepared, Recogniser, Recognition
from daemon.sources.source import Arrival, Failure

PATIENCE_SECONDS = 60.0


def arrival_of(source: str, index: int, **more: Any) -> Arrival:
    pixels = np.random.default_rng(index).normal(100, 10, (64, 64)).astype(np.float32)
    calibration = Calibration(0.1, CalibrationSource.SIDECAR)
    frame = Frame(pixels, make_frame_id(source, None, index, pixels), f"{source}{index}", calibration)
    return Arrival(source, f"{source}{index}.npy", frame, read_ms=0.0, **more)


def wait_for(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Feed:
    """A source that yields what the test sends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0
        """How many frames the pipeline has taken from it."""
        self._sent: SimpleQueue[Arrival | Failure] = SimpleQueue()

    def send(self, *indices: int) -> None:
        for index in indices:
            self.pass_on(arrival_of(self.name, index))

    def pass_on(self, item: Arrival | Failure) -> None:
        self._sent.put(item)

    def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
        while not stop.is_set():
            try:
                item = self._sent.get(timeout=0.02)
            except Empty:
                yield None
            else:
                self.taken += 1
                yield item


class GatedRecogniser(Recogniser):
    """Notes what each stage begins; a stage that is closed waits for permits."""

    def __init__(self, model: Path, closed: str = "") -> None:
        super().__init__(find_model(str(model)), "onnxruntime")
        self.begun: dict[str, list[str]] = {"prepare": [], "infer": [], "decode": []}
        self.permits = {stage: Semaphore(0) for stage in closed.split()}
        self.before: Callable[[str, str], None] = lambda _stage, _name: None
        """Called in each stage, with its name and the frame's."""

    def _enter(self, stage: str, subject: Frame | FocalSeries) -> None:
        self.begun[stage].append(subject.name)
        if stage in self.permits:
            self.permits[stage].acquire(timeout=PATIENCE_SECONDS)
        self.before(stage, subject.name)

    def prepare(self, subject: Frame | FocalSeries) -> Prepared:
        self._enter("prepare", subject)
        return super().prepare(subject)

    def infer(self, prepared: Prepared) -> Inferred:
        self._enter("infer", prepared.subject)
        return super().infer(prepared)

    def decode(self, inferred: Inferred) -> Recognition:
        self._enter("decode", inferred.prepared.subject)
        return super().decode(inferred)


class Running:
    """A pipeline of some sources, and what came of it."""

    def __init__(self, folder: Path, ledger: Ledger, recogniser: Recogniser, **policies: Policy) -> None:
        self.feeds = {name: Feed(name) for name in policies}
        self.drops = Drops()
        self.ledger = ledger
        self.outlet = Outlet(FilePublisher(folder / "results", overlays=False), ledger)
        self.pipeline = Pipeline(
            list(self.feeds.values()),
            policies,
            dict.fromkeys(policies, ModelChoice(Offer(recogniser))),
            self.outlet,
            self.drops,
            on_end=lambda _: None,
            sent_once=policies,
        )
        self.pipeline.start()

    def published(self, source: str) -> list[str]:
        return [message.header["name"] for message in self.ledger.after(f"atoms/{source}", 0)]

    def stop(self) -> None:
        self.pipeline.stop()
        self.outlet.close()


@contextmanager
def running(folder: Path, recogniser: Recogniser, **policies: Policy) -> Iterator[Running]:
    with closing(Ledger(folder / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        started = Running(folder, ledger, recogniser, **policies)
        try:
            yield started
        finally:
            for permits in getattr(recogniser, "permits", {}).values():
                permits.release(1000)
            started.stop()
