"""Which model analyses a frame is decided by its voltage and pixel size, and a frame for none is told, never empty."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.drops import Drops
from daemon.errors import ModelError
from daemon.frames import Calibration, CalibrationSource, FocalSeries, Frame
from daemon.ledger import Ledger, LedgerLimits
from daemon.pipeline import Pipeline
from daemon.publish.files import FilePublisher
from daemon.publish.outlet import Outlet
from daemon.recognition.choice import ModelChoice, Offer
from daemon.recognition.conditions import Conditions
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser
from tests.daemon.conftest import write_blob_package
from tests.daemon.focal_frames import focal_frame, series_of_ids, with_acquisition
from tests.daemon.staging import Feed, arrival_of, wait_for


@pytest.fixture(scope="module")
def recognisers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recogniser]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: Recogniser(find_model(str(write_blob_package(folder / name, frames=1))), "onnxruntime")
        for name in ("high", "low", "rest")
    }


def frame_of(voltage_kv: float | None, pixel_size_angstrom: float | None) -> Frame:
    frame = with_acquisition(focal_frame("frame", -80.0), voltage_kv=voltage_kv)
    if pixel_size_angstrom is None:
        return replace(frame, calibration=None)
    return replace(frame, calibration=Calibration(pixel_size_angstrom, CalibrationSource.METADATA))


@pytest.fixture
def choose(recognisers: dict[str, Recogniser]) -> Callable[..., str]:
    def choose(subject: Frame | FocalSeries, *, has_default: bool = True) -> str:
        offers = [
            Offer(recognisers["high"], Conditions(voltage_kv=(250, 320), pixel_size_angstrom=(0.05, 0.3))),
            Offer(recognisers["low"], Conditions(voltage_kv=(60, 80))),
        ]
        choice = ModelChoice(*offers, *([Offer(recognisers["rest"])] if has_default else []))
        return choice.recogniser_for(subject).manifest.name

    return choose


@pytest.mark.parametrize(
    ("voltage_kv", "pixel_size_angstrom", "model"),
    [
        (300, 0.1, "high"),
        (300, 0.4, "rest"),
        (300, None, "rest"),
        (80, None, "low"),
        (80.00001, 0.1, "low"),  # as exactly as metadata are rounded
        (120, 0.1, "rest"),
        (None, 0.1, "rest"),
    ],
)
def test_the_first_model_whose_conditions_a_frame_surely_meets_is_taken(
    choose: Callable[..., str], voltage_kv: float | None, pixel_size_angstrom: float | None, model: str
) -> None:
    assert choose(frame_of(voltage_kv, pixel_size_angstrom)) == model


@pytest.mark.parametrize(
    ("voltage_kv", "pixel_size_angstrom", "has"),
    [
        (120, 0.4, "a voltage of 120 kV and a pixel size of 0.4 Å"),
        (None, 0.1, "no known voltage and a pixel size of 0.1 Å"),
        (300, None, "a voltage of 300 kV and no known pixel size"),
    ],
)
def test_a_frame_for_which_no_model_is_left_says_what_it_has_and_what_was_offered(
    choose: Callable[..., str], voltage_kv: float | None, pixel_size_angstrom: float | None, has: str
) -> None:
    with pytest.raises(ModelError) as error:
        choose(frame_of(voltage_kv, pixel_size_angstrom), has_default=False)
    assert str(error.value) == (
        f"frame has {has}, and no model of its source is for that: high is for voltage 250 to 320 kV, pixel size 0.05 "
        "to 0.3 Å; low is for voltage 60 to 80 kV. Change these conditions in config.toml, or name a `model` there for "
        "everything else."
    )


def test_every_frame_of_a_series_must_meet_the_conditions(choose: Callable[..., str]) -> None:
    frames = [with_acquisition(frame, voltage_kv=80.0) for frame in series_of_ids("sheet")]
    assert choose(FocalSeries(tuple(frames), 0, "id", "sheet")) == "low"
    frames[1] = with_acquisition(frames[1], voltage_kv=None)
    assert choose(FocalSeries(tuple(frames), 0, "id", "sheet")) == "rest"


@given(st.none() | st.floats(1, 400), st.none() | st.floats(0.01, 1))
def test_conditions_hold_for_all_that_is_told_and_within(voltage_kv: float | None, pixel_size: float | None) -> None:
    conditions = Conditions(voltage_kv=(80, 300), pixel_size_angstrom=(0.05, 0.3))
    surely = voltage_kv is not None and 80 <= voltage_kv <= 300 and pixel_size is not None and 0.05 <= pixel_size <= 0.3
    if surely:
        assert conditions.are_met_by(frame_of(voltage_kv, pixel_size))
    elif voltage_kv is None or pixel_size is None or voltage_kv > 301 or pixel_size > 0.31:
        assert not conditions.are_met_by(frame_of(voltage_kv, pixel_size))
    assert Conditions().are_met_by(frame_of(voltage_kv, pixel_size))


@pytest.fixture
def run(tmp_path: Path, recognisers: dict[str, Recogniser]) -> Iterator[tuple[Feed, Ledger]]:
    feed = Feed("camera")
    choice = ModelChoice(
        Offer(recognisers["high"], Conditions(voltage_kv=(250, 320))),
        Offer(recognisers["low"], Conditions(voltage_kv=(60, 80))),
    )
    with closing(Ledger(tmp_path / "ledger.sqlite", LedgerLimits(2**30, 30))) as ledger:
        outlet = Outlet(FilePublisher(tmp_path / "results", overlays=False), ledger)
        pipeline = Pipeline([feed], {"camera": "lossless"}, {"camera": choice}, outlet, Drops(), lambda _: None)
        pipeline.start()
        yield feed, ledger
        pipeline.stop()


def test_one_source_s_frames_go_to_their_models_in_order_and_those_for_none_are_events(
    run: tuple[Feed, Ledger],
) -> None:
    feed, ledger = run
    voltages_kv = [300, 80, 300, 120, 80, None, 300]
    for index, voltage_kv in enumerate(voltages_kv):
        arrival = arrival_of("camera", index)
        assert isinstance(arrival.subject, Frame)
        feed.pass_on(replace(arrival, subject=with_acquisition(arrival.subject, voltage_kv=voltage_kv)))
    wait_for(lambda: ledger.newest("atoms/camera") == 5 and ledger.newest("event/camera") == 2)
    published = [(message.header["name"], message.header["model"]) for message in ledger.after("atoms/camera", 0)]
    assert published == [
        ("camera0", "high"),
        ("camera1", "low"),
        ("camera2", "high"),
        ("camera4", "low"),
        ("camera6", "high"),
    ]
    told = [message.header["error"].split(",")[0] for message in ledger.after("event/camera", 0)]
    assert told == [
        "camera3 has a voltage of 120 kV and a pixel size of 0.1 Å",
        "camera5 has no known voltage and a pixel size of 0.1 Å",
    ]
