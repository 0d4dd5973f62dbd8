"""What lies between a source and recognition: a source that fails is started again; a bad image is reported alone."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from daemon import pipeline
from daemon.batch import Batch
from daemon.drops import Drops
from daemon.ledger import Ledger, LedgerLimits
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser
from daemon.sources.source import Arrival, Failure

WriteFrame = Callable[..., Path]


class FailingTwice:
    """A source that should never fail, and does."""

    name = "camera"

    def __init__(self) -> None:
        self.starts = 0
        self.works = threading.Event()

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival | Failure]:
        self.starts += 1
        if self.starts < 3:
            raise OSError(107, "Transport endpoint is not connected", "/share")
        self.works.set()
        yield from ()
        stop.wait()


def test_a_source_that_fails_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_SHORTEST_PAUSE_SECONDS", 0.01)
    source, files, ended = FailingTwice(), FilePublisher(tmp_path, overlays=False), list[str]()
    with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        outlet = Outlet(files, ledger)
        running = pipeline.Pipeline([source], {"camera": "lossless"}, {}, outlet, Drops(), ended.append)
        running.start()
        assert source.works.wait(60)
        running.stop()
        assert ledger.newest("event/camera") == 2
    events = [json.loads(line)["error"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(events) == 2
    assert all(event.startswith("/share: Transport endpoint is not connected") for event in events)
    assert not ended


def test_a_bad_image_in_a_stack_is_reported_with_the_others(
    tmp_path: Path, write_frame: WriteFrame, blob_model: Path
) -> None:
    images = np.stack([np.load(write_frame(tmp_path / "image.npy", seed=seed)) for seed in range(3)])
    images[1, 3, 3] = np.nan
    np.save(tmp_path / "movie.npy", images)
    batch = Batch(Recogniser(find_model(str(blob_model))), FilePublisher(tmp_path / "results", overlays=False), 0.1)
    first, bad, last = batch.process([tmp_path / "movie.npy"])
    assert [report.stem for report in (first, bad, last)] == ["movie-0000", None, "movie-0002"]
    assert [report.count for report in (first, bad, last)] == [12, None, 12]
    assert bad.error
    assert bad.error.startswith("movie-0001: 1 pixels are NaN")
