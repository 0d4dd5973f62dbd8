"""Three frames make a focal series, or one sentence says why they do not."""

from dataclasses import replace

import numpy as np
import pytest

from daemon.errors import FrameError
from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.series.triplets import choice_made, focal_series
from tests.daemon.focal_frames import RANGES, focal_frame


def frames_at(*defocus: float | None) -> list[Frame]:
    return [focal_frame(f"f{index}", value, seed=index) for index, value in enumerate(defocus)]


def test_frames_are_put_in_order_of_defocus_and_the_first_in_time_is_kept_in_mind() -> None:
    frames = frames_at(-40, -120, -80)
    series = focal_series(frames, "camera", "sheet", RANGES)
    assert [frame.name for frame in series.frames] == ["f1", "f2", "f0"]
    assert series.reference is frames[0]
    assert series.name == "sheet"
    assert series.offered == ()
    assert choice_made(series) == []


def test_the_same_images_have_the_same_id_whatever_order_they_came_in() -> None:
    frames = frames_at(-120, -80, -40)
    id_ = focal_series(frames, "camera", "sheet", RANGES).frame_id
    assert focal_series(frames[::-1], "camera", "sheet", RANGES).frame_id == id_
    others = [*frames[:2], focal_frame("f2", -40, seed=7)]
    assert focal_series(others, "camera", "sheet", RANGES).frame_id != id_
    assert id_.startswith("camera/sheet/")


def test_of_more_than_three_frames_those_that_suit_the_model_are_chosen_and_named() -> None:
    frames = frames_at(-200, -160, -120, -100, -80, -60, -40, 0)
    series = focal_series(frames, "camera", "through focus", RANGES)
    assert series.defocus_angstrom == (-120, -80, -40), "steps of 40 Å around -80 Å are what the model knows best"
    assert series.first == 0
    assert series.offered == tuple(f"f{index}" for index in range(8))
    (sentence,) = choice_made(series)
    assert "Of the 8 frames" in sentence
    assert "f2 (-120 Å), f4 (-80 Å), f6 (-40 Å)" in sentence


def test_a_series_far_from_what_the_model_knows_is_chosen_all_the_same() -> None:
    series = focal_series(frames_at(500, 600, 1000, 700, 500), "camera", "far", RANGES)
    assert series.defocus_angstrom == (500, 600, 700)


def _coarser(frame: Frame) -> Frame:
    return replace(frame, calibration=Calibration(0.11, CalibrationSource.METADATA))


def _blank(frame: Frame) -> Frame:
    return replace(frame, pixels=np.full_like(frame.pixels, 7))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (frames_at(-120, -80), "this one has 2"),
        (
            [*frames_at(-120, -80), focal_frame("small", -40, side=40)],
            r"differ in size \(f0: 32 × 32, .*small: 40 × 40",
        ),
        (
            [*frames_at(-120, -80), _coarser(focal_frame("odd", -40))],
            r"differ in pixel size \(f0: 0.1 Å, .*odd: 0.11 Å",
        ),
        ([*frames_at(-120, -80), replace(focal_frame("odd", -40), calibration=None)], "odd: unknown"),
        ([*frames_at(-120, -80), _blank(focal_frame("dark", -40))], "dark is blank"),
        (frames_at(-120, None, None), "the defocus of f1, f2 is not known"),
        (frames_at(-120, -80, -80), r"not taken at 3 different defocus values.*f1 \(-80 Å\), f2 \(-80 Å\)"),
        (frames_at(-120, -80, -79, -118, -83), "not taken at 3 different defocus values"),
    ],
)
def test_frames_that_cannot_be_analysed_together_say_why(frames: list[Frame], complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint) as caught:
        focal_series(frames, "camera", "sheet", RANGES)
    assert str(caught.value).startswith("sheet: ")


def test_frames_without_any_pixel_size_are_left_to_recognition() -> None:
    frames = [replace(frame, calibration=None) for frame in frames_at(-120, -80, -40)]
    assert focal_series(frames, "camera", "sheet", RANGES).reference.calibration is None
