"""Averages of frames of 10 e/Å² that drift."""

from dataclasses import replace
from pathlib import PurePosixPath
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from daemon.averaging import AveragedSource
from daemon.averaging.registration import find_shift
from daemon.averaging.source import LEFT_OUT, MISFITS_IN_A_ROW
from daemon.averaging.sums import EqualSum, FadingSum
from daemon.drops import Drops
from daemon.errors import FrameError
from daemon.frames import Average, FocalSeries, Frame
from daemon.sources.source import Arrival, Failure
from tests.daemon.drifting import DOSE_PER_SQUARE_ANGSTROM, LATTICE_ANGSTROM, PIXEL_SIZE_ANGSTROM, Feed, Sheet, frame_of


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return Sheet()


def walk(steps: int, seed: int = 0) -> NDArray[np.float64]:
    """Drift in Å: a random walk with a steady part, less than half a period of the lattice from frame to frame."""
    rng = np.random.default_rng(seed)
    moves = np.array([0.5, -0.3]) + rng.normal(0, 0.2, (steps, 2))
    moves[0] = 0
    return np.cumsum(moves, axis=0)


def movie(sheet: Sheet, drift: NDArray[np.float64]) -> list[Frame]:
    return [frame_of(sheet.counts(place, seed), seed) for seed, place in enumerate(drift)]


def averages_of(items, frames=8, weights="equal", drops=None):
    source = AveragedSource(Feed(items), frames, weights, drops or Drops())
    assert source.name == "camera"
    return list(source.arrivals(Event()))


def average_of(arrival: Arrival) -> Average:
    assert isinstance(arrival.subject, Frame)
    assert arrival.subject.average
    return arrival.subject.average


def likeness(one: NDArray[np.floating], other: NDArray[np.floating], border: int = 0) -> float:
    inner = slice(border, len(one) - border)
    return float(np.corrcoef(one[inner, inner].ravel(), other[inner, inner].ravel())[0, 1])


@pytest.mark.parametrize("weights", ["equal", "exponential"])
def test_drift_is_followed_and_the_average_is_as_good_as_its_dose(sheet: Sheet, weights: str) -> None:
    drift = walk(20)
    arrivals = averages_of(movie(sheet, drift), 8, weights)

    for index, arrival in enumerate(arrivals):
        members = len(average_of(arrival).members)
        expected = drift[index + 1 - members : index + 1] - drift[index]
        np.testing.assert_allclose(average_of(arrival).drift_angstrom, expected, atol=0.25)
        assert average_of(arrival).warnings == ()
    last = arrivals[-1].subject
    dose = average_of(arrivals[-1]).dose_per_square_angstrom
    assert dose == last.acquisition.dose_per_square_angstrom
    assert dose == pytest.approx(8 * DOSE_PER_SQUARE_ANGSTROM, rel=0.05)
    # As like to what is really there, where the newest frame sees it, as a single frame of that dose would be.
    truth = sheet.seen(drift[-1])
    assert likeness(last.pixels, truth, 40) > 0.97 * likeness(sheet.counts(drift[-1], 99, dose), truth, 40)
    assert likeness(last.pixels, truth, 40) > 2.2 * likeness(sheet.counts(drift[-1], 99), truth, 40)


def test_what_travels_with_an_average(sheet: Sheet) -> None:
    drift = np.array([[0.0, 0.0], [0.9, 0.0], [0.9, 0.6]])
    frames = movie(sheet, drift)
    arrivals = averages_of(frames, 2)

    assert [arrival.subject.frame_id for arrival in arrivals] == [frame.frame_id for frame in frames]
    assert [arrival.subject.name for arrival in arrivals] == [frame.name for frame in frames]
    assert [average_of(arrival).members for arrival in arrivals] == [
        (frames[0].frame_id,),
        (frames[0].frame_id, frames[1].frame_id),
        (frames[1].frame_id, frames[2].frame_id),
    ]
    first, second, third = (average_of(arrival) for arrival in arrivals)
    assert first.drift_angstrom_per_second is None
    assert first.last_step_angstrom is None
    assert second.drift_angstrom_per_second == pytest.approx(0.9, abs=0.15)
    assert third.drift_angstrom_per_second == third.last_step_angstrom == pytest.approx(0.6, abs=0.15)
    assert third.dose_per_square_angstrom == 20
    for arrival in arrivals:
        pixels = arrival.subject.pixels
        assert pixels.dtype == np.float32
        assert not pixels.flags.writeable
    np.testing.assert_array_equal(arrivals[0].subject.pixels, frames[0].pixels)


def test_unknown_doses_and_times_stay_unknown(sheet: Sheet) -> None:
    frames = movie(sheet, walk(2))
    frames[0] = replace(frame_of(frames[0].pixels, 0, dose_per_square_angstrom=None), acquired_at=None)
    average = average_of(averages_of(frames)[1])

    assert average.dose_per_square_angstrom is None
    assert average.seconds is None
    assert average.drift_angstrom_per_second is None


def test_a_frame_of_noise_is_left_out_and_the_average_goes_on(sheet: Sheet) -> None:
    drift = walk(6)
    frames = movie(sheet, drift)
    frames[3] = frame_of(np.random.default_rng(7).poisson(0.4, frames[3].pixels.shape).astype(np.uint16), 3)
    drops = Drops()
    arrivals = averages_of(frames, drops=drops)

    assert average_of(arrivals[3]).members == (frames[3].frame_id,)
    assert "stands alone" in average_of(arrivals[3]).warnings[0]
    assert frames[3].frame_id not in average_of(arrivals[5]).members
    assert len(average_of(arrivals[5]).members) == 5
    assert average_of(arrivals[5]).warnings == ()
    np.testing.assert_allclose(average_of(arrivals[5]).drift_angstrom[0], drift[0] - drift[5], atol=0.25)
    assert drops.counts == {("camera", LEFT_OUT): 1}


def test_a_frame_without_any_contrast_is_left_out(sheet: Sheet) -> None:
    frames = movie(sheet, walk(3))
    frames[1] = frame_of(np.full_like(frames[1].pixels, 7), 1)
    arrivals = averages_of(frames)

    assert average_of(arrivals[1]).warnings
    assert average_of(arrivals[2]).members == (frames[0].frame_id, frames[2].frame_id)


def test_after_a_stage_move_the_second_frame_joins_the_first(sheet: Sheet) -> None:
    other = Sheet(missing=0.3, seed=3)
    turned = [frame_of(np.ascontiguousarray(other.counts([0.0, 0.0], 50 + index).T), 4 + index) for index in range(3)]
    drops = Drops()
    arrivals = averages_of([*movie(sheet, walk(4)), *turned], drops=drops)

    assert [len(average_of(arrival).members) for arrival in arrivals] == [1, 2, 3, 4, 1, 2, 3]
    assert [bool(average_of(arrival).warnings) for arrival in arrivals] == [False] * 4 + [True] + [False] * 2
    assert drops.counts == {("camera", LEFT_OUT): 1}


def test_frames_of_noise_alone_are_never_averaged() -> None:
    rng = np.random.default_rng(0)
    drops = Drops()
    frames = [frame_of(rng.poisson(0.4, (320, 320)).astype(np.uint16), index) for index in range(8)]
    arrivals = averages_of(frames, drops=drops)

    assert all(len(average_of(arrival).members) == 1 for arrival in arrivals)
    assert drops.counts == {("camera", LEFT_OUT): 7}


def test_an_average_that_nothing_fits_any_more_is_given_up(sheet: Sheet) -> None:
    rng = np.random.default_rng(0)
    frames = movie(sheet, walk(3 + MISFITS_IN_A_ROW))
    for index in range(2, 2 + MISFITS_IN_A_ROW):
        frames[index] = frame_of(rng.poisson(0.4, (320, 320)).astype(np.uint16), index)
    assert len(average_of(averages_of(frames)[-1]).members) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"series_id": "other"},
        {"defocus_angstrom": 40.0},
        {"voltage_kv": 80.0},
        {"shape": 300},
        {"pixel_size_angstrom": 0.21},
        {"folder": "day2"},
        {"resumed": True},
    ],
    ids=str,
)
def test_frames_taken_in_another_way_are_not_mixed(sheet: Sheet, change: dict[str, object]) -> None:
    one, two, three = (Arrival("camera", "x", frame, 0.0) for frame in movie(sheet, walk(3)))
    frame = two.subject
    assert isinstance(frame, Frame)
    if side := change.pop("shape", None):
        frame = replace(frame, pixels=frame.pixels[:side])
    if size := change.pop("pixel_size_angstrom", None):
        frame = replace(frame, calibration=replace(frame.calibration, pixel_size_angstrom=size))
    if "folder" in change:
        two = replace(two, folder=PurePosixPath("day2"))
    elif "resumed" in change:
        two = replace(two, resumed=True)
    else:
        frame = replace(frame, acquisition=replace(frame.acquisition, **change))
    arrivals = averages_of([one, replace(two, subject=frame), three])

    assert len(average_of(arrivals[1]).members) == 1
    assert average_of(arrivals[1]).warnings == ()  # nothing is wrong with that
    # Frames that were there at start come between new ones and must not end their average.
    assert len(average_of(arrivals[2]).members) == (2 if "resumed" in change else 1)


def test_a_little_defocus_jitter_is_no_other_focus(sheet: Sheet) -> None:
    frames = [frame_of(frame.pixels, i, defocus_angstrom=80.0 + i) for i, frame in enumerate(movie(sheet, walk(3)))]
    assert len(average_of(averages_of(frames)[2]).members) == 3


def test_without_a_pixel_size_nothing_is_averaged_and_it_says_so(sheet: Sheet) -> None:
    frames = [replace(frame, calibration=None) for frame in movie(sheet, walk(2))]
    arrivals = averages_of(frames)
    assert all("no pixel size" in average_of(arrival).warnings[0] for arrival in arrivals)
    assert arrivals[1].subject.pixels is frames[1].pixels


def test_failures_silence_and_series_pass_unchanged(sheet: Sheet) -> None:
    frame = movie(sheet, walk(1))[0]
    series = Arrival("camera", "x", FocalSeries((frame, frame, frame), 0, "series", "series"), 0.0)
    items = [None, Failure("camera", "x", FrameError("broken")), series]
    assert averages_of(items) == items


def test_it_stops_when_it_is_told_to(sheet: Sheet) -> None:
    stop = Event()
    source = AveragedSource(Feed(movie(sheet, walk(3))), 2, "equal", Drops())
    arrivals = source.arrivals(stop)
    next(arrivals)
    stop.set()
    assert list(arrivals) == []


@settings(max_examples=15, deadline=None)
@given(x=st.floats(-1.4, 1.4), y=st.floats(-0.5, 0.5), dose=st.sampled_from([10.0, 50.0]), seed=st.integers(0, 1000))
def test_any_step_below_half_a_period_is_found_in_a_single_frame(x: float, y: float, dose: float, seed: int) -> None:
    before = SHEET.counts([0.0, 0.0], seed, 8 * dose).astype(np.float32)
    after = SHEET.counts([x, y], seed + 1, dose).astype(np.float32)
    shift = find_shift(before, after, PIXEL_SIZE_ANGSTROM)
    assert shift.is_significant
    away = shift.pixels * PIXEL_SIZE_ANGSTROM - [x, y]
    # At 10 e/Å² nothing but the lattice is seen, and near half a period the wrong side may win.
    assert np.hypot(*away) < 0.3 or np.hypot(x, y) > 0.4 * LATTICE_ANGSTROM


SHEET = Sheet()


def test_a_larger_step_is_found_where_something_breaks_the_lattice() -> None:
    broken = Sheet(missing=0.3)
    before = broken.counts([0.0, 0.0], 0, 800).astype(np.float32)
    shift = find_shift(before, broken.counts([5.2, -4.4], 1, 200).astype(np.float32), PIXEL_SIZE_ANGSTROM)
    np.testing.assert_allclose(shift.pixels * PIXEL_SIZE_ANGSTROM, [5.2, -4.4], atol=0.15)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(-7, 7), st.integers(-7, 7)), min_size=1, max_size=9),
    kept=st.integers(1, 5),
    fading=st.booleans(),
)
def test_sums_are_means_of_what_each_image_shows(steps: list[tuple[int, int]], kept: int, fading: bool) -> None:
    """Against the plainest way to do it: all images on one large canvas."""
    rng = np.random.default_rng(0)
    side, far = 6, 60
    total = FadingSum(kept) if fading else EqualSum(kept)
    fraction = (kept - 1) / (kept + 1)
    canvases = np.zeros((len(steps), 2 * far, 2 * far))
    weights = np.zeros_like(canvases)
    left, top = far, far
    for index, (x, y) in enumerate(steps):
        if index:  # what moved to the right on the image is seen by one that moved to the left
            left, top = left - x, top - y
        here = slice(top, top + side), slice(left, left + side)
        image = rng.random((side, side)).astype(np.float32)
        total.add(image, (x, y))
        age = len(steps) - 1 - index
        weights[index][here] = fraction**age if fading else float(age < kept)
        canvases[index][here] = image
        if fading:  # what went out of view is forgotten
            seen = np.zeros_like(weights[0])
            seen[here] = 1
            weights *= seen
    mean = (canvases * weights).sum(0)[here] / weights.sum(0)[here]
    np.testing.assert_allclose(total.mean(), mean, rtol=1e-4)
    assert total.weights()[-1] == 1


@pytest.mark.parametrize("frames", [2, 8, 50])
def test_a_fading_average_is_as_noisy_as_an_equal_one_of_so_many(frames: int) -> None:
    total = FadingSum(frames)
    for _ in range(20 * frames):
        total.add(np.zeros((2, 2), np.float32), (0, 0))
    weights = np.array(total.weights())
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(frames, rel=0.03)
    assert len(weights) < 3 * frames
