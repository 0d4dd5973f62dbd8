"""What comes through ZeroMQ, format by format: pixels as they were sent, and series however they begin and end."""

import json
import struct
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

import cbor2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import FrameError
from daemon.frames import CalibrationSource, Frame
from daemon.readers import DEFAULT_LIMITS, ReadLimits
from daemon.sources.array_1_0_simulator import Array10Simulator
from daemon.sources.dectris_stream2_simulator import DectrisStream2Simulator
from daemon.sources.dectris_v1_simulator import DectrisV1Simulator
from daemon.sources.fields import Buffer
from daemon.sources.formats import FORMATS
from daemon.sources.numbering import MissingFramesError, SuperfluousFrameError
from daemon.sources.simulator import Outgoing, Shot, Simulator, damaged
from daemon.sources.wire_image import Decoder, WireImage

NOW = datetime(2026, 11, 24, 15, 54, 13, 250_000, tzinfo=UTC)
DECTRIS = ["dectris-v1", "dectris-stream2"]


def shots(number: int, keys: dict[str, Any] | None = None, dtype: str = "uint16") -> list[Shot]:
    """Different images of 40 rows and 48 columns."""
    random = np.random.default_rng(number)
    images = random.poisson(20.0, (number, 40, 48)).astype(dtype)
    return [Shot(image, keys or {}) for image in images]


def frame_of(item: WireImage | FrameError, limits: ReadLimits = DEFAULT_LIMITS, override: float | None = None) -> Frame:
    assert isinstance(item, WireImage), item
    return item.frame("camera", NOW, limits, override)


def parts_of(message: Outgoing) -> list[Buffer]:
    return [memoryview(part) for part in message.parts]


def taken_in(decoder: Decoder, messages: Iterable[Outgoing]) -> list[WireImage | FrameError]:
    """Give every message to a decoder; what it refuses is among what it tells."""
    found: list[WireImage | FrameError] = []
    for message in messages:
        try:
            found += decoder.accept(parts_of(message))
        except FrameError as error:
            found.append(error)
    return found


def numbers_in(found: list[WireImage | FrameError]) -> list[int]:
    return [item.number for item in found if isinstance(item, WireImage)]


def sentences_in(found: list[WireImage | FrameError]) -> list[str]:
    return [str(item) for item in found if isinstance(item, FrameError)]


def a_series(format_name: str, number: int) -> list[Outgoing]:
    return list(FORMATS[format_name].simulator().series(shots(number), number))


class TestPixels:
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32"])
    @pytest.mark.parametrize(
        ("format_name", "simulator"),
        [
            ("array-1.0", Array10Simulator()),
            *[("dectris-v1", DectrisV1Simulator(packing)) for packing in ("none", "lz4", "bslz4")],
            *[("dectris-stream2", DectrisStream2Simulator(packing)) for packing in ("none", "lz4", "bslz4")],
        ],
    )
    def test_arrive_as_they_were_sent(self, format_name: str, simulator: Simulator, dtype: str) -> None:
        sent = shots(2, dtype=dtype)
        found = taken_in(FORMATS[format_name].decoder(), simulator.series(sent, 2))
        for shot, item in zip(sent, found, strict=True):
            frame = frame_of(item)
            np.testing.assert_array_equal(frame.pixels, shot.pixels)
            assert frame.pixels.dtype == shot.pixels.dtype
            assert not frame.pixels.flags.writeable

    @pytest.mark.parametrize("shape", [(40, 48), (33, 37), (129, 65)])
    def test_of_a_real_lz4h5_frame(self, shape: tuple[int, int]) -> None:
        """As another library frames it, with a block size of its own and one that does not divide the image."""
        pixels = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape)
        payload = imagecodecs.lz4h5_encode(pixels.tobytes(), blocksize=1000)
        found = WireImage(0, shape, np.dtype("<u4"), payload, "lz4")
        np.testing.assert_array_equal(frame_of(found).pixels, pixels)

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_of_the_other_byte_order(self, format_name: str) -> None:
        pixels = shots(1)[0].pixels.astype(">u2")
        message = {
            "array-1.0": [
                json.dumps(
                    {"htype": ["array-1.0"], "shape": [40, 48], "type": "uint16", "frame": 1, "endianness": "big"}
                ).encode(),
                pixels.tobytes(),
            ],
            "dectris-v1": [
                b'{"htype": "dimage-1.0", "series": 1, "frame": 0}',
                b'{"htype": "dimage_d-1.0", "shape": [48, 40], "type": "uint16", "encoding": ">"}',
                pixels.tobytes(),
            ],
            "dectris-stream2": [
                cbor2.dumps(
                    {
                        "type": "image",
                        "series_id": 1,
                        "image_id": 0,
                        "data": {"a": cbor2.CBORTag(40, [[40, 48], cbor2.CBORTag(65, pixels.tobytes())])},
                    }
                )
            ],
        }[format_name]
        (found,) = FORMATS[format_name].decoder().accept([*message])
        np.testing.assert_array_equal(frame_of(found).pixels, shots(1)[0].pixels)

    def test_of_several_channels_are_frames_of_their_own(self) -> None:
        simulator = DectrisStream2Simulator(channels=("threshold_1", "threshold_2"))
        found = taken_in(FORMATS["dectris-stream2"].decoder(), simulator.series(shots(1)))
        first, second = map(frame_of, found)
        assert first.name.endswith("s1-000000-threshold_1")
        assert second.name.endswith("s1-000000-threshold_2")
        assert first.frame_id != second.frame_id


class TestKeys:
    KEYS = {  # noqa: RUF012
        "pixel_size_angstrom": 0.12,
        "defocus_angstrom": -40,
        "voltage_kv": 80,
        "dose_per_square_angstrom": 30.5,
        "series_id": "../../etc/passwd",
        "series_index": 2,
        "series_length": 3,
    }

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_ride_along(self, format_name: str) -> None:
        simulator = FORMATS[format_name].simulator()
        (found,) = taken_in(FORMATS[format_name].decoder(), simulator.series(shots(1, self.KEYS)))
        frame = frame_of(found)
        assert frame.calibration is not None
        assert (frame.calibration.pixel_size_angstrom, frame.calibration.source) == (0.12, CalibrationSource.METADATA)
        for key in self.KEYS.keys() - {"pixel_size_angstrom"}:
            assert getattr(frame.acquisition, key) == self.KEYS[key]
        override = frame_of(found, override=0.2).calibration
        assert override is not None
        assert (override.pixel_size_angstrom, override.source) == (0.2, CalibrationSource.OVERRIDE)

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"pixel_size_angstrom": -1}, "`pixel_size_angstrom` must be a number above 0"),
            ({"pixel_size_angstrom": 1.2e-11}, "not an atomic-resolution frame"),
            ({"colour": "blue"}, "the key 'colour' is unknown"),
            ({"defocus_angstrom": [1.0, 2.0]}, "lists 2 values"),
        ],
    )
    @pytest.mark.parametrize("format_name", FORMATS)
    def test_that_are_wrong_refuse_the_frame(self, format_name: str, keys: dict[str, Any], said: str) -> None:
        simulator = FORMATS[format_name].simulator()
        (found,) = taken_in(FORMATS[format_name].decoder(), simulator.series(shots(1, keys)))
        if isinstance(found, WireImage):
            with pytest.raises(FrameError, match=said):
                frame_of(found)
        else:
            assert said in str(found)

    def test_of_a_series_hold_for_its_images(self) -> None:
        v1, stream2 = (FORMATS[name].decoder() for name in DECTRIS)
        v1.accept(
            [
                b'{"htype": "dheader-1.0", "series": 4, "header_detail": "all"}',
                b'{"nimages": 1, "ntrigger": 2, "incident_energy": 80000.0, "count_time": 0.01}',
                b'{"htype": "dflatfield-1.0", "shape": [48, 40], "type": "float32"}',
                b'{"a flat field may begin like JSON',
                b'{"hrtem": {"pixel_size_angstrom": 0.12}}',
            ]
        )
        stream2.accept(
            [
                cbor2.dumps(
                    {
                        "type": "start", "series_id": 4, "incident_energy": 80000, "count_time": 0.01,
                        "number_of_images": 2, "arm_date": NOW, "user_data": '{"hrtem": {"pixel_size_angstrom": 0.12}}',
                    }
                )
            ]
        )  # fmt: skip
        for decoder, name in ((v1, "dectris-v1"), (stream2, "dectris-stream2")):
            simulator = FORMATS[name].simulator()
            for _ in range(3):
                list(simulator.series([]))
            _, image, end = simulator.series(shots(1))
            (found,) = decoder.accept(parts_of(image))
            frame = frame_of(found)
            assert frame.calibration is not None
            assert frame.calibration.pixel_size_angstrom == 0.12
            assert (frame.acquisition.voltage_kv, frame.acquisition.exposure_seconds) == (80.0, 0.01)
            (missing,) = decoder.accept(parts_of(end))
            assert "Series 4 stopped at 1 of its 2 frames, then its end was announced" in str(missing)
        assert frame.acquired_at == NOW

    def test_of_a_header_that_comes_in_two_messages(self) -> None:
        """As LiberTEM-live's simulator sends it."""
        decoder = FORMATS["dectris-v1"].decoder()
        assert decoder.accept([b'{"htype": "dheader-1.0", "series": 1, "header_detail": "basic"}']) == []
        assert decoder.accept([b'{"nimages": 1, "ntrigger": 3, "incident_energy": 80000.0}']) == []
        found = taken_in(decoder, a_series("dectris-v1", 2)[1:])
        assert frame_of(found[0]).acquisition.voltage_kv == 80.0
        assert sentences_in(found)[0].startswith("Series 1 stopped at 2 of its 3 frames")
        with pytest.raises(FrameError, match="htype is None"):
            decoder.accept([b'{"nimages": 1}'])


class TestNames:
    def test_tell_frames_of_one_number_apart_by_their_time(self) -> None:
        (found,) = taken_in(FORMATS["array-1.0"].decoder(), Array10Simulator().series(shots(1)))
        assert frame_of(found).name == "20261124T155413250Z-000000"
        assert frame_of(found).frame_id.startswith("camera/-/0/")

    def test_never_hold_more_than_a_word_of_what_came(self) -> None:
        message = cbor2.dumps(
            {
                "type": "image",
                "series_id": 1,
                "image_id": 5,
                "data": {
                    name: cbor2.CBORTag(40, [[40, 48], cbor2.CBORTag(64, bytes(40 * 48))])
                    for name in ("../../up", "/etc/passwd\0", "x" * 5000)
                },
            }
        )
        for found in FORMATS["dectris-stream2"].decoder().accept([message]):
            frame = frame_of(found)
            assert not set(frame.name) & set("/\\.\0")
            assert len(frame.name) < 100
            assert frame.frame_id.count("/") == 3


class TestSeries:
    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_whose_start_was_missed(self, format_name: str) -> None:
        found = taken_in(FORMATS[format_name].decoder(), a_series(format_name, 6)[3:])
        assert numbers_in(found) == [2, 3, 4, 5]
        assert sentences_in(found) == []

    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_that_is_aborted_ends_where_the_next_begins(self, format_name: str) -> None:
        simulator = FORMATS[format_name].simulator()
        aborted = list(simulator.series(shots(6), 6))[:4]
        found = taken_in(FORMATS[format_name].decoder(), [*aborted, *simulator.series(shots(2), 2)])
        assert numbers_in(found) == [0, 1, 2, 0, 1]
        assert sentences_in(found) == [
            "Series 1 stopped at 3 of its 6 frames, then a new series began; "
            "the acquisition was aborted, or the rest was lost on the way."
        ]

    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_that_is_over_takes_no_more_images(self, format_name: str) -> None:
        simulator = FORMATS[format_name].simulator()
        first, second = (list(simulator.series(shots(3), 3)) for _ in range(2))
        decoder = FORMATS[format_name].decoder()
        found = taken_in(decoder, [*first[:3], second[0], second[1], first[3], second[2]])
        assert numbers_in(found) == [0, 1, 0, 1]
        (aborted, stale) = sentences_in(found)
        assert "Series 1 stopped at 2 of its 3 frames" in aborted
        assert stale == "its series was over"
        with pytest.raises(SuperfluousFrameError):
            decoder.accept(parts_of(first[3]))

    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_counted_anew_by_a_restarted_camera(self, format_name: str) -> None:
        decoder = FORMATS[format_name].decoder()
        for _ in range(3):
            assert numbers_in(taken_in(decoder, a_series(format_name, 2))) == [0, 1]

    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_without_start_and_end_follow_each_other(self, format_name: str) -> None:
        simulator = FORMATS[format_name].simulator()
        images = [list(simulator.series(shots(2)))[1:-1] for _ in range(3)]
        found = taken_in(FORMATS[format_name].decoder(), [*images[0], *images[1], *images[2]])
        assert numbers_in(found) == [0, 1] * 3
        assert sentences_in(found) == []

    @pytest.mark.parametrize("format_name", DECTRIS)
    def test_that_goes_on_after_a_restart_of_the_daemon(self, format_name: str) -> None:
        start, *images, _ = a_series(format_name, 6)
        decoder = FORMATS[format_name].decoder()
        decoder.reopen(parts_of(start))
        found = taken_in(decoder, [images[3], images[5]])
        assert numbers_in(found) == [3, 5]
        assert [sentence.split(";")[0] for sentence in sentences_in(found)] == ["Frame 4 of series 1 never came"]
        assert decoder.opening is not None
        assert list(decoder.opening.message) == start.parts

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_with_gaps_and_repetitions(self, format_name: str) -> None:
        messages = [message for message in a_series(format_name, 9) if message.kind == "image"]
        chosen = [messages[number] for number in (0, 1, 1, 3, 8)]
        found = taken_in(FORMATS[format_name].decoder(), chosen)
        assert numbers_in(found) == [0, 1, 3, 8]
        repeated, one, several = (item for item in found if isinstance(item, FrameError))
        assert isinstance(repeated, SuperfluousFrameError)
        assert isinstance(one, MissingFramesError)
        assert isinstance(several, MissingFramesError)
        assert (one.number, several.number) == (1, 4)
        assert str(one).startswith("Frame 2")
        assert str(several).startswith("Frames 4 to 7")

    def test_of_array_1_0_begin_anew_with_a_smaller_number(self) -> None:
        first, second = list(Array10Simulator().series(shots(4))), list(Array10Simulator().series(shots(2)))
        found = taken_in(FORMATS["array-1.0"].decoder(), [*first, *second])
        assert numbers_in(found) == [0, 1, 2, 3, 0, 1]
        assert sentences_in(found) == []

    def test_of_array_1_0_with_two_images_of_one_number(self) -> None:
        messages = [next(Array10Simulator().series([shot])) for shot in shots(2)]
        assert numbers_in(taken_in(FORMATS["array-1.0"].decoder(), messages)) == [0, 0]


class TestRefusals:
    LIMITS = ReadLimits(frame_pixels=2000, decompressed_bytes=3000)

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_of_images_beyond_the_limits(self, format_name: str) -> None:
        found = [
            item
            for item in taken_in(FORMATS[format_name].decoder(), a_series(format_name, 1))
            if isinstance(item, WireImage)
        ]
        with pytest.raises(FrameError, match=r"raise `limits.decompressed_bytes`"):
            frame_of(found[0], self.LIMITS)
        with pytest.raises(FrameError, match=r"more than the 1,000 that a frame may have"):
            frame_of(found[0], ReadLimits(frame_pixels=1000))

    @pytest.mark.parametrize("packing", ["lz4", "bslz4"])
    def test_of_what_unpacks_to_something_else_takes_no_memory(self, packing: Any) -> None:
        bomb = struct.pack(">QI", 2**60, 2**31) + bytes(64)
        with pytest.raises(FrameError, match="unpacks to 1,152,921,504,606,846,976 bytes where"):
            frame_of(WireImage(0, (40, 48), np.dtype("<u2"), bomb, packing))

    @pytest.mark.parametrize("packing", ["lz4", "bslz4", "lz4-block"])
    @pytest.mark.parametrize("payload", [b"", b"\0" * 11, struct.pack(">QI", 3840, 0), bytes(64)])
    def test_of_what_is_cut_off(self, packing: Any, payload: bytes) -> None:
        with pytest.raises(FrameError):
            frame_of(WireImage(0, (40, 48), np.dtype("<u2"), payload, packing))

    def test_of_pixels_that_are_too_few_for_their_shape(self) -> None:
        with pytest.raises(FrameError, match="has 3,838 bytes where its shape and type make 3,840"):
            frame_of(WireImage(0, (40, 48), np.dtype("<u2"), bytes(3838)))

    @pytest.mark.parametrize(
        ("header", "said"),
        [
            (b"", "is not JSON"),
            (b"\x80\x04\x95", "is not JSON"),
            (b"[]", "no object"),
            (b"[" * 100_000, "is not JSON"),
            (b'{"frame": ' + b"9" * 5000 + b"}", "is not JSON"),
            (b'{"x": "' + b"x" * 2**20 + b'"}', "too many for JSON"),
            (b'{"htype": "dimage-1.0"}', "not 'array-1.0'"),
            (b'{"htype": "array-1.0", "frame": -1}', "`frame` of the header of array-1.0 must be a whole number"),
            (b'{"htype": "array-1.0", "frame": true}', "must be a whole number"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [40]}', "two whole numbers, not [40]"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [40, 1e9]}', "two whole numbers above 0"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [40, 48], "type": "O"}', "Pixels of type 'O'"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [4, 4], "type": "<U1"}', "Pixels of type '<U1'"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [4, 4], "endianess": "middle"}', "'little' or 'big'"),
            (b'{"htype": "array-1.0", "frame": 1, "shape": [4, 4], "type": "uint8", "hrtem": 7}', "expected an object"),
        ],
    )
    def test_of_headers_say_what_is_wrong(self, header: bytes, said: str) -> None:
        with pytest.raises(FrameError) as caught:
            FORMATS["array-1.0"].decoder().accept([header, b""])
        assert said in str(caught.value)

    def test_of_encodings_that_nobody_packs(self) -> None:
        for encoding in ("bs16<", "gzip<", "bs12-lz4<", 5, None):
            described = json.dumps({"shape": [48, 40], "type": "uint16", "encoding": encoding}).encode()
            with pytest.raises(FrameError, match="set the detector to lz4 or bslz4"):
                FORMATS["dectris-v1"].decoder().accept(
                    [b'{"htype": "dimage-1.0", "series": 1, "frame": 0}', described, b""]
                )

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_of_messages_of_other_formats(self, format_name: str) -> None:
        for other in FORMATS.keys() - {format_name}:
            for message in a_series(other, 1):
                with pytest.raises(FrameError, match="check the source's `type`"):
                    FORMATS[format_name].decoder().accept(parts_of(message))


def frames_or_refusal(decoder: Decoder, parts: list[Buffer]) -> None:
    """Do all that a source does with a message; anything but a FrameError is a fault."""
    with suppress(FrameError):
        for item in decoder.accept(parts):
            if isinstance(item, WireImage):
                item.frame("camera", NOW, ReadLimits(2**16, 2**18), None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["htype", "type", "shape", "frame", "series", "series_id", "image_id", "data", "encoding", "hrtem", "user_data",
     "endianess", "nimages", "ntrigger", "number_of_images", "arm_date", "start_time", "incident_energy"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["array-1.0", "dheader-1.0", "dimage-1.0", "dimage_d-1.0", "dseries_end-1.0", "start", "image", "end", "uint16",
     "lz4<", "bs16-lz4<"]
)  # fmt: skip
HEADERS = st.dictionaries(KEYS, JSON | NAMES, max_size=6)
TAGGED = st.recursive(
    JSON | st.binary(max_size=40) | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.builds(cbor2.CBORTag, st.sampled_from([40, 56500, 64, 69, 82, 83]), inner | st.lists(inner)),
    max_leaves=6,
)


class TestFuzz:
    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_any_bytes(self, parts: list[bytes]) -> None:
        for format_ in FORMATS.values():
            frames_or_refusal(format_.decoder(), [*parts])

    @settings(deadline=None, max_examples=60)
    @given(st.lists(HEADERS.map(lambda header: json.dumps(header).encode()) | st.binary(max_size=40), max_size=5))
    def test_any_json(self, parts: list[bytes]) -> None:
        for name in ("array-1.0", "dectris-v1"):
            frames_or_refusal(FORMATS[name].decoder(), [*parts])

    @settings(deadline=None, max_examples=60)
    @given(st.dictionaries(KEYS | st.integers() | st.binary(max_size=4), TAGGED | NAMES | HEADERS, max_size=7))
    def test_any_cbor(self, message: dict[Any, Any]) -> None:
        frames_or_refusal(FORMATS["dectris-stream2"].decoder(), [cbor2.dumps(message)])

    @pytest.mark.parametrize("format_name", FORMATS)
    def test_damaged_series(self, format_name: str) -> None:
        """Thousands, without hypothesis, which would take a minute for them."""
        messages, chance = a_series(format_name, 2), Random(0)
        for _ in range(700):
            decoder = FORMATS[format_name].decoder()
            for message in messages:
                parts = message.parts if chance.random() < 0.3 else damaged(message.parts, chance)
                frames_or_refusal(decoder, [*parts])
