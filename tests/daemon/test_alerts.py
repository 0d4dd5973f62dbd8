"""What an acquisition script is told, and that it is told once."""

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.alerts import LOST_FRAMES, Alert, AlertWatch
from daemon.atoms import VACANCY, atom_table
from daemon.config import Alerts
from daemon.frames import Acquisition, Average, Calibration, CalibrationSource, FocalSeries, Frame
from daemon.recognition.package import Manifest
from daemon.recognition.peaks import Peaks
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival

SIDE = 200
PIXEL_SIZE_ANGSTROM = 0.2
CLASSES = ("Mo", "S2", "S", VACANCY)
BOND_ANGSTROM = 3.16 / np.sqrt(3)
STARTED_AT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def manifest(blob_model: Path) -> Manifest:
    blobs = Manifest.model_validate(json.loads((blob_model / "manifest.json").read_text()))
    return blobs.model_copy(update={"specimen": "mos2", "classes": CLASSES, "name": "mos2-blobs"})


def sheet() -> tuple[np.ndarray, np.ndarray]:
    """Positions in Å of a sheet that fills the frame, and its labels."""
    i, j = (index.ravel() for index in np.mgrid[-30:30, -30:30])
    metal = np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=1) * 3.16
    positions = np.concatenate([metal, metal + [0, BOND_ANGSTROM]]) + SIDE * PIXEL_SIZE_ANGSTROM / 2
    labels = np.repeat(["Mo", "S2"], len(metal)).astype("<U8")
    inside = ((positions > 0.2) & (positions < SIDE * PIXEL_SIZE_ANGSTROM - 0.4)).all(axis=1)
    return positions[inside], labels[inside]


def frame_of(index: int, mean: float = 100.0, average: Average | None = None, **acquisition: Any) -> Frame:
    return Frame(
        np.full((SIDE, SIDE), mean, np.float32),
        f"camera/movie/{index}/0",
        f"movie-{index}",
        Calibration(PIXEL_SIZE_ANGSTROM, CalibrationSource.SIDECAR),
        Acquisition(**acquisition),
        acquired_at=STARTED_AT + timedelta(seconds=2 * index),
        average=average,
    )


def result(
    subject: Frame | FocalSeries,
    positions: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    probability: float = 1.0,
) -> tuple[Arrival, Recognition]:
    """What recognition would say; a whole sheet where nothing else is given."""
    if positions is None or labels is None:
        positions, labels = sheet()
    count = len(positions)
    likely = np.full(count, probability)
    names = list(labels)
    table = atom_table(
        positions / PIXEL_SIZE_ANGSTROM,
        PIXEL_SIZE_ANGSTROM,
        [VACANCY if name == VACANCY else "column" for name in names],
        likely,
        np.full(count, 0.1),
        [None if name == VACANCY else name for name in names],
        np.ones(count),
    )
    classes = np.array([[name == label for label in CLASSES] for name in names], np.float32).reshape(-1, len(CLASSES))
    peaks = Peaks((positions / PIXEL_SIZE_ANGSTROM).astype(np.float32), likely.astype(np.float32), likely, classes)
    frame = subject.reference if isinstance(subject, FocalSeries) else subject
    series = subject if isinstance(subject, FocalSeries) else None
    assert frame.calibration
    recognition = Recognition(frame, frame.calibration, table, [], {}, "m", "0", "none", series=series, peaks=peaks)
    return Arrival("camera", "/data/movie.tif", subject, 1.0), recognition


def nothing(subject: Frame) -> tuple[Arrival, Recognition]:
    return result(subject, np.zeros((0, 2)), np.zeros(0, "<U8"))


def kinds(alerts: list[Alert]) -> list[str]:
    return [alert.kind for alert in alerts]


def test_without_limits_there_are_no_events(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(), manifest)
    assert watch.of(*result(frame_of(0, mean=0.0, defocus_angstrom=9999.0))) == []
    assert watch.of(*nothing(frame_of(1))) == []


def test_the_first_lattice_and_the_first_after_it_was_lost(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(lattice_seen=True), manifest)
    seen = "o+++o+" + LOST_FRAMES * "o" + "++"
    told = [bool(watch.of(*(result if here == "+" else nothing)(frame_of(index)))) for index, here in enumerate(seen)]
    assert [index for index, is_told in enumerate(told) if is_told] == [1, seen.rindex("o") + 1]


def test_what_is_no_lattice_is_not_called_one(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(lattice_seen=True), manifest)
    positions, labels = sheet()
    noise = np.random.default_rng(0).random(positions.shape) * SIDE * PIXEL_SIZE_ANGSTROM
    assert watch.of(*result(frame_of(0), noise, labels)) == []
    assert watch.of(*result(frame_of(1), positions[:9], labels[:9])) == []
    assert watch.of(*result(frame_of(2), positions, labels, probability=0.5)) == []
    (alert,) = watch.of(*result(frame_of(3)))
    assert (alert.kind, alert.frame_id, alert.name) == ("lattice_seen", "camera/movie/3/0", "movie-3")


def test_defocus_outside_of_the_models_range(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(focus_outside_range=True), manifest)
    assert watch.of(*result(frame_of(0, defocus_angstrom=200.0))) == []
    (alert,) = watch.of(*result(frame_of(1, defocus_angstrom=230.0)))
    assert (alert.kind, alert.value, alert.limit) == ("focus_outside_range", 230.0, 200.0)
    assert watch.of(*result(frame_of(2, defocus_angstrom=240.0))) == []
    assert watch.of(*result(frame_of(3, defocus_angstrom=100.0))) == []
    (alert,) = watch.of(*result(frame_of(4, defocus_angstrom=-230.0)))
    assert alert.limit == -200.0


def test_a_lattice_that_was_there_and_is_gone_may_be_out_of_focus(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(focus_outside_range=True), manifest)
    for index in range(2 * LOST_FRAMES):
        assert watch.of(*nothing(frame_of(index))) == []  # nobody found the specimen yet
    assert watch.of(*result(frame_of(10))) == []
    told = [watch.of(*nothing(frame_of(20 + index))) for index in range(2 * LOST_FRAMES)]
    assert [bool(alerts) for alerts in told] == [False] * (LOST_FRAMES - 1) + [True] + [False] * LOST_FRAMES
    assert "focus or specimen" in told[LOST_FRAMES - 1][0].sentence


def with_vacancies(count: int) -> tuple[np.ndarray, np.ndarray]:
    positions, labels = sheet()
    inside = ((positions > 5) & (positions < SIDE * PIXEL_SIZE_ANGSTROM - 5)).all(axis=1)
    labels[np.flatnonzero(inside & (labels == "S2"))[:count]] = "S"
    return positions, labels


def test_vacancies_above_a_limit_once_and_again_only_after_they_were_clearly_below(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(vacancy_density_above_per_square_nm=1.0), manifest)
    area = 16.0  # nm²
    counts = [10, 25, 30, int(0.95 * area), 25, 10, 25]
    alerts = [watch.of(*result(frame_of(i), *with_vacancies(count))) for i, count in enumerate(counts)]
    assert [len(each) for each in alerts] == [0, 1, 0, 0, 0, 0, 1]
    assert alerts[1][0].value == pytest.approx(25 / area, rel=0.15)
    assert alerts[1][0].limit == 1.0
    assert "vacancies per nm²" in alerts[1][0].sentence


def test_vacancies_that_are_not_sure_are_no_event(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(vacancy_density_above_per_square_nm=1.0), manifest)
    assert watch.of(*result(frame_of(0), *with_vacancies(40), probability=0.45)) == []


def test_no_sheet_says_nothing_about_its_vacancies(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(vacancy_density_above_per_square_nm=1.0), manifest)
    assert watch.of(*result(frame_of(0), *with_vacancies(40)))
    assert watch.of(*nothing(frame_of(1))) == []
    assert watch.of(*result(frame_of(2), *with_vacancies(40))) == []  # still the same


def test_a_model_that_tells_no_vacancies_is_named(manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        gold = manifest.model_copy(update={"specimen": "nanoparticle", "name": "gold"})
        watch = AlertWatch(Alerts(vacancy_density_above_per_square_nm=1.0), gold)
    assert "gold tells no vacancies" in caplog.text
    assert watch.of(*nothing(frame_of(0))) == []


def test_atoms_lost_for_each_dose(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(atoms_lost_per_dose_above=0.01), manifest)
    dose = {"dose_per_square_angstrom": 1000.0}
    told = [
        watch.of(*result(frame_of(i, **dose), *with_vacancies(count))) for i, count in enumerate([0, 5, 45, 85, 86])
    ]
    assert [kinds(alerts) for alerts in told] == [[], [], ["atoms_lost"], [], []]
    assert told[2][0].value == pytest.approx(0.04)
    unknown = AlertWatch(Alerts(atoms_lost_per_dose_above=0.01), manifest)
    assert not any(unknown.of(*result(frame_of(i), *with_vacancies(40 * i))) for i in range(3))


def test_averages_are_compared_where_they_share_no_frame(manifest: Manifest) -> None:
    """Two averages of 4 frames of 250 e/Å², 4 frames apart, are 1000 e/Å² apart."""
    watch = AlertWatch(Alerts(atoms_lost_per_dose_above=0.01), manifest)
    told = []
    for index in range(9):
        ids = tuple(f"camera/movie/{member}/0" for member in range(max(0, index - 3), index + 1))
        average = Average(ids, np.zeros((len(ids), 2)), 6.0, 250.0 * len(ids))
        frame = frame_of(index, average=average, dose_per_square_angstrom=250.0 * len(ids))
        told.append(watch.of(*result(frame, *with_vacancies(10 * index))))
    # The first of one frame alone; then 4 frames on, 40 atoms less; the same goes on, so nothing more is told.
    assert [index for index, alerts in enumerate(told) if alerts] == [4]
    assert told[4][0].value == pytest.approx(40 / 625)


def test_another_area_is_not_compared(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(atoms_lost_per_dose_above=1e-6), manifest)
    dose = {"dose_per_square_angstrom": 10.0}
    positions, labels = sheet()
    noise = np.random.default_rng(0).random((30, 2)) * SIDE * PIXEL_SIZE_ANGSTROM
    assert watch.of(*result(frame_of(0, **dose), positions, labels)) == []
    assert watch.of(*result(frame_of(1, **dose), noise, labels[:30])) == []


def test_drift_of_an_average(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(drift_above_angstrom_per_second=1.0, drift_above_angstrom_per_frame=1.5), manifest)

    def drifting(index: int, step: float, seconds: float | None) -> list[Alert]:
        average = Average(("a", "b"), np.array([[-step, 0.0], [0.0, 0.0]]), seconds, None)
        return watch.of(*result(frame_of(index, average=average)))

    assert drifting(0, 0.5, 2.0) == []
    (alert,) = drifting(1, 3.2, 2.0)
    assert (alert.kind, alert.limit) == ("drift", 1.5)
    assert alert.value == pytest.approx(3.2)
    assert drifting(2, 3.2, 2.0) == []
    assert drifting(3, 0.5, 2.0) == []
    (alert,) = drifting(4, 1.2, 0.5)
    assert alert.value == pytest.approx(2.4)
    assert "Å/s" in alert.sentence
    assert drifting(5, 0.2, None) == []
    (alert,) = drifting(6, 2.0, None)  # without times, by frame
    assert "a frame" in alert.sentence


def test_drift_between_results_and_within_series(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(drift_above_angstrom_per_second=0.4), manifest)
    positions, labels = with_vacancies(0)
    broken = np.random.default_rng(1).random(len(labels)) < 0.1
    labels[broken & (labels == "S2")] = "S"
    assert watch.of(*result(frame_of(0), positions, labels)) == []
    (alert,) = watch.of(*result(frame_of(1), positions + [1.0, 0.0], labels))  # 2 s later
    assert alert.value == pytest.approx(0.5, abs=0.02)

    watch = AlertWatch(Alerts(drift_above_angstrom_per_second=0.9), manifest)
    frames = [frame_of(index, defocus_angstrom=40.0 * index) for index in (2, 1, 0)]  # refocused backwards
    drift = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    series = FocalSeries((frames[0], frames[1], frames[2]), 2, "id", "series", drift)
    (alert,) = watch.of(*result(series))
    assert alert.value == pytest.approx(1.0)
    untimed = [replace(frame, acquired_at=None) for frame in frames]
    series = FocalSeries((untimed[0], untimed[1], untimed[2]), 2, "id", "series", drift)
    assert watch.of(*result(series)) == []


def test_a_signal_that_is_too_low(manifest: Manifest) -> None:
    watch = AlertWatch(Alerts(signal_below=10.0), manifest)
    told = [watch.of(*result(frame_of(i, mean=mean))) for i, mean in enumerate([12, 9, 8, 10.5, 9, 12, 9])]
    assert [len(alerts) for alerts in told] == [0, 1, 0, 0, 0, 0, 1]
    assert told[1][0].as_event() == {
        "alert": "signal",
        "message": "The signal is too low: 9 counts a pixel, the limit is 10. Is the beam on the specimen?",
        "value": 9.0,
        "limit": 10.0,
        "frame_id": "camera/movie/1/0",
        "name": "movie-1",
    }


@settings(max_examples=50, deadline=None)
@given(means=st.lists(st.integers(0, 30), max_size=20))
def test_events_and_returns_take_turns(means: list[int]) -> None:
    """Between two events of one kind, the value was clearly on the good side."""
    watch = AlertWatch(Alerts(signal_below=10.0), MANIFEST)
    told = [index for index, mean in enumerate(means) if watch.of(*nothing(frame_of(index, mean=mean)))]
    for first, second in pairwise(told):
        assert max(means[first:second]) > 11
    assert bool(told) == any(mean < 10 for mean in means)


MANIFEST = Manifest.model_construct(specimen="mos2", name="made up")
