"""Frames as they come, in whatever order and however often, become each complete series once; the rest is explained."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.drops import Drops
from daemon.frames import FocalSeries, Frame
from daemon.series import grouping
from daemon.series.grouping import (
    CROWDED,
    CUT_OFF,
    DUPLICATE,
    INCOMPLETE,
    MOST_OPEN,
    RETAKEN,
    TOO_LONG,
    UNPLACED,
    GroupedSource,
    Grouping,
)
from daemon.series.membership import check_pattern, rules_for
from daemon.sources.source import Arrival, Failure
from tests.daemon.focal_frames import (
    CYCLE_ANGSTROM,
    RANGES,
    arriving,
    focal_frame,
    series_of_ids,
    with_acquisition,
)


class Groups:
    """A grouping, what it made of what it was given, and what it counted."""

    def __init__(self, rules: str = "live", pattern: str | None = None) -> None:
        self.drops = Drops()
        self.finished: list[str] = []
        self.grouping = Grouping(
            "camera", rules_for(rules, pattern), lambda _: RANGES, self.drops, finish=self.finished.append
        )
        self.outcomes: list[Arrival | Failure] = []

    def add(self, *frames: Frame, folder: str = "/data", resumed: bool = False) -> "Groups":
        for frame in frames:
            self.outcomes += self.grouping.add(arriving(frame, folder, resumed))
        return self

    def close(self) -> "Groups":
        self.outcomes += self.grouping.close()
        return self

    @property
    def series(self) -> list[FocalSeries]:
        subjects = (outcome.subject for outcome in self.outcomes if isinstance(outcome, Arrival))
        return [subject for subject in subjects if isinstance(subject, FocalSeries)]

    @property
    def members(self) -> list[list[str]]:
        return [[frame.name for frame in series.frames] for series in self.series]

    @property
    def sentences(self) -> list[str]:
        return [str(outcome.error) for outcome in self.outcomes if isinstance(outcome, Failure)]

    @property
    def counts(self) -> dict[str, int]:
        return {reason: number for (_, reason), number in self.drops.counts.items()}


# --- by ids ----------------------------------------------------------------------------------------------------------


def test_frames_of_one_id_are_a_series_named_by_it() -> None:
    groups = Groups().add(*series_of_ids("sheet"))
    (series,) = groups.series
    assert (series.name, series.first) == ("sheet", 0)
    (arrival,) = groups.outcomes
    assert isinstance(arrival, Arrival)
    assert arrival.origin == "/data/sheet-0.tif"
    assert arrival.read_ms == 3.0
    assert not arrival.resumed
    assert groups.counts == {}


@settings(deadline=None)
@given(st.data())
def test_any_order_and_repetition_gives_each_complete_series_once(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(3, 5), min_size=1, max_size=4), label="lengths")
    offered = [
        series_of_ids(f"s{number}", length, [-160 + 40 * index for index in range(length)])
        for number, length in enumerate(lengths)
    ]
    lost = data.draw(st.sets(st.sampled_from([(n, i) for n, frames in enumerate(offered) for i in range(len(frames))])))
    there = [frame for n, frames in enumerate(offered) for i, frame in enumerate(frames) if (n, i) not in lost]
    again = data.draw(st.lists(st.sampled_from(there), max_size=6), label="again") if there else []
    groups = Groups().add(*data.draw(st.permutations(there + again), label="order")).close()

    complete = {f"s{n}" for n, frames in enumerate(offered) if not any((n, i) in lost for i in range(len(frames)))}
    begun = {f"s{n}" for n, frames in enumerate(offered) if any((n, i) not in lost for i in range(len(frames)))}
    assert Counter(series.name for series in groups.series) == Counter(complete)
    assert all(series.defocus_angstrom in ((-160, -120, -80), (-120, -80, -40)) for series in groups.series)
    assert len(groups.sentences) == len(begun - complete)
    assert all("is incomplete" in sentence for sentence in groups.sentences)
    assert groups.counts.get(DUPLICATE, 0) == len(again)
    taken = [frame_id for outcome in groups.outcomes if isinstance(outcome, Arrival) for frame_id in outcome.frame_ids]
    assert sorted(taken + groups.finished) == sorted(frame.frame_id for frame in there), "each frame is finished once"


def test_what_is_missing_is_named() -> None:
    zero, one, two = series_of_ids("sheet")
    from_one = [with_acquisition(frame, series_index=index) for index, frame in enumerate((zero, one, two), start=1)]
    for frames, missing in (
        ([zero, two], "1 is missing (index 1)"),
        ([one], "2 are missing (index 0, 2 or 2, 3)"),
        ([one, two], "1 is missing (index 0 or 3)"),
        ([from_one[0], from_one[2]], "1 is missing (index 2)"),
        ([with_acquisition(zero, series_index=17)], "of its 3 frames 2 are missing, and"),
    ):
        groups = Groups().add(*frames).close()
        (sentence,) = groups.sentences
        assert missing in sentence
        assert all(frame.name in sentence for frame in frames)
        assert groups.counts == {INCOMPLETE: len(frames)}


def test_a_frame_taken_again_takes_the_place_of_the_earlier_one() -> None:
    zero, one, two = series_of_ids("sheet")
    better = replace(focal_frame("better", one.acquisition.defocus_angstrom), acquisition=one.acquisition)
    groups = Groups().add(zero, one, better, two)
    assert groups.members == [["sheet-0", "better", "sheet-2"]]
    (sentence,) = groups.sentences
    assert sentence.startswith("sheet-1 was taken again before the series sheet was complete; better (better.tif)")
    assert groups.counts == {RETAKEN: 1}


def test_a_series_taken_again_under_its_old_id_is_another_series() -> None:
    first, second = series_of_ids("sheet"), [replace(f, frame_id=f"{f.frame_id}x") for f in series_of_ids("sheet")]
    groups = Groups().add(*first, *second)
    assert [series.name for series in groups.series] == ["sheet", "sheet"]
    assert groups.series[0].frame_id != groups.series[1].frame_id


def test_a_sidecar_that_comes_late_completes_what_is_known_of_a_frame() -> None:
    zero, one, two = series_of_ids("sheet")
    groups = Groups().add(zero, with_acquisition(one, defocus_angstrom=None), one, two)
    assert groups.members == [["sheet-0", "sheet-1", "sheet-2"]]
    assert groups.sentences == []


def test_a_longer_series_is_waited_for_and_its_best_three_are_analysed() -> None:
    frames = series_of_ids("long", 5, (-200, -120, -80, -40, 40))
    groups = Groups().add(*frames[1:4])
    assert groups.outcomes == []
    groups.add(frames[0], frames[4])
    assert groups.members == [["long-1", "long-2", "long-3"]]
    assert groups.series[0].offered == tuple(frame.name for frame in frames)


def test_frames_beyond_the_third_of_a_series_of_no_known_length_are_explained() -> None:
    groups = Groups().add(*series_of_ids("long", None, (-120, -80, -40, 0))).close()
    assert groups.members == [["long-0", "long-1", "long-2"]]
    (sentence,) = groups.sentences
    assert "a longer one must give its `series_length`" in sentence


def test_ids_without_an_index_go_by_the_order_of_coming() -> None:
    frames = [with_acquisition(frame, series_index=None, series_length=None) for frame in series_of_ids("sheet")]
    groups = Groups().add(frames[2], frames[2], frames[0], frames[1], frames[0])
    assert groups.series[0].reference is frames[2]
    assert len(groups.series) == 1
    assert groups.counts == {DUPLICATE: 2}


def test_one_id_in_two_folders_is_two_series() -> None:
    frames = series_of_ids("001")
    groups = Groups().add(*frames[:2], folder="/day1").add(*frames, folder="/day2").close()
    assert len(groups.series) == 1
    assert "/day1/001-0.tif" in [outcome.origin for outcome in groups.outcomes if isinstance(outcome, Failure)]


def test_a_series_that_is_too_long_to_hold_is_refused_once() -> None:
    groups = Groups().add(*series_of_ids("movie", 1000)).close()
    (sentence,) = groups.sentences
    assert "has 1000 frames, more than the 32" in sentence
    assert groups.counts == {TOO_LONG: 3}


def test_frames_unfit_for_each_other_are_a_failure_and_no_series() -> None:
    *frames, last = series_of_ids("sheet")
    groups = Groups().add(*frames, with_acquisition(last, defocus_angstrom=None))
    assert groups.sentences == [
        "sheet: the defocus of sheet-2 is not known; give it as `defocus_angstrom` in the metadata or in a sidecar of "
        "each frame."
    ]
    assert groups.series == []


# --- by file and by name ---------------------------------------------------------------------------------------------


def images(number: int, defocus: tuple[float, ...]) -> list[Frame]:
    return [focal_frame(f"stack-{i:04d}", defocus[i], images_in_file=number) for i in range(len(defocus))]


@pytest.mark.parametrize("rules", ["live", "stack"])
def test_the_images_of_a_file_are_a_series(rules: str) -> None:
    groups = Groups(rules)
    for frame in images(4, (-40, -80, -120, 0)):
        groups.outcomes += groups.grouping.add(Arrival("camera", "/data/stack.tif", frame, 0.0))
    assert groups.members == [["stack-0002", "stack-0001", "stack-0000"]]
    assert groups.series[0].name == "stack"
    assert groups.series[0].first == 2, "the first image is the one taken first"


def test_a_file_of_too_few_images_is_explained_once() -> None:
    groups = Groups("stack")
    for frame in images(2, (-40, -80)):
        groups.outcomes += groups.grouping.add(Arrival("camera", "/data/stack.tif", frame, 0.0))
    groups.add(focal_frame("single", -40)).close()
    assert groups.sentences == [
        "stack: a focal series has 3 frames at different defocus, or more; this one has 2.",
        "single: a focal series has 3 frames at different defocus, or more; this one has 1.",
    ]


@pytest.mark.parametrize(
    "pattern",
    [r"(?P<series>.+)_(?P<index>\d+)", r"^(?P<series>.+)_(?P<index>\d+)$", r"(?P<series>.+)_(?P<index>\d)\.tif"],
)
def test_file_names_tell_the_series_two_of_which_may_be_interleaved(pattern: str) -> None:
    frames = {f"{series}_{i}": focal_frame(f"{series}_{i}", CYCLE_ANGSTROM[i]) for series in "ab" for i in range(3)}
    groups = Groups(pattern=pattern).add(*(frames[name] for name in ("a_1", "b_0", "a_0", "b_2", "a_2", "b_1")))
    assert [(series.name, series.first) for series in groups.series] == [("a", 0), ("b", 0)]
    assert groups.members == [["a_0", "a_1", "a_2"], ["b_0", "b_1", "b_2"]]


def test_ids_beat_names_and_names_beat_the_cycle() -> None:
    pattern = r"(?P<series>.+)_(?P<index>\d+)"
    with_ids = [focal_frame(f"n_{i}", d, series=("id", i, 3)) for i, d in enumerate(CYCLE_ANGSTROM)]
    named = [focal_frame(f"m_{i}", d) for i, d in enumerate(CYCLE_ANGSTROM)]
    unnamed = [focal_frame(letter, d) for letter, d in zip("xyz", CYCLE_ANGSTROM, strict=True)]
    mixed = [frame for three in zip(with_ids, named, unnamed, strict=True) for frame in three]
    groups = Groups(pattern=pattern).add(*mixed)
    assert [series.name for series in groups.series] == ["id", "m", "x"]


def test_an_index_that_is_no_number_is_explained() -> None:
    groups = Groups(pattern="(?P<series>.+)_(?P<index>[a-z]+)").add(focal_frame("sheet_under", -40))
    assert "finds the index 'under' in its name, which is no number" in groups.sentences[0]
    assert groups.counts == {UNPLACED: 1}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "is not a regular expression"),
        ("(?P<series>.+)", "has no group named index; name both"),
        ("series_index", "has no group named series and none named index"),
        (r"(?P<series>.+)_(?P<index>\d+)", None),
    ],
)
def test_patterns_are_checked_before_they_are_used(pattern: str, problem: str | None) -> None:
    found = check_pattern(pattern)
    assert found == problem if problem is None else problem in str(found)


# --- by defocus cycle ------------------------------------------------------------------------------------------------


def cycle(names: str, *defocus: float) -> list[Frame]:
    return [focal_frame(name, value) for name, value in zip(names, defocus, strict=True)]


def test_a_repeating_cycle_is_cut_where_the_defocus_turns_back() -> None:
    frames = cycle("abcdef", -40, -80, -120, -42, -79, -121)
    groups = Groups("metadata").add(*frames).close()
    assert groups.members == [["c", "b", "a"], ["f", "e", "d"]]
    assert [series.name for series in groups.series] == ["a", "d"]
    assert [series.reference.name for series in groups.series] == ["a", "d"]
    assert groups.sentences == []


@pytest.mark.parametrize(
    ("names", "defocus", "complete", "lost"),
    [
        ("abcde", (-40, -80, -40, -80, -120), ["c"], ["a", "b"]),  # an abort after two frames
        ("abcd", (-120, -40, -80, -120), ["b"], ["a"]),  # the daemon was started in the middle
        ("abcdefgh", (-40, -80, -120, -40, -120, -40, -80, -120), ["a", "f"], ["d", "e"]),  # a frame is missing
        ("abcdef", (-120, -80, -40, -120, -80, -40), ["a", "d"], []),  # the other way through focus
    ],
)
def test_a_cycle_that_is_cut_off_costs_its_own_frames_only(
    names: str, defocus: tuple[float, ...], complete: list[str], lost: list[str]
) -> None:
    groups = Groups("metadata").add(*cycle(names, *defocus)).close()
    assert [series.reference.name for series in groups.series] == complete
    assert [sentence.split()[4] for sentence in groups.sentences] == lost
    assert all("the defocus turned back to" in sentence for sentence in groups.sentences)
    assert groups.counts == ({CUT_OFF: len(lost)} if lost else {})


def test_a_cycle_without_its_end_is_incomplete() -> None:
    groups = Groups("metadata").add(*cycle("ab", -40, -80)).close()
    (sentence,) = groups.sentences
    assert sentence.startswith("The series a is incomplete: of its 3 frames 1 is missing, and nothing more will come.")
    assert groups.counts == {INCOMPLETE: 2}


def test_in_a_cycle_too_frames_come_again_and_are_taken_again() -> None:
    a, b, c, d = cycle("abcd", -40, -80, -81, -120)
    groups = Groups("metadata").add(a, a, b, a, c, d, d, b.__class__(**vars(a)))
    assert groups.members == [["d", "c", "a"]]
    assert [sentence.split(" before")[0] for sentence in groups.sentences] == ["b was taken again"]
    assert groups.counts == {DUPLICATE: 4, RETAKEN: 1}


def test_what_was_there_at_start_does_not_disturb_the_cycle_of_new_frames() -> None:
    old, new = cycle("abc", -40, -80, -120), cycle("xyz", -40, -80, -120)
    groups = Groups("live")
    for before, after in zip(old, new, strict=True):
        groups.add(before, resumed=True).add(after)
    assert groups.members == [["c", "b", "a"], ["z", "y", "x"]]


def test_a_frame_that_tells_nothing_is_explained() -> None:
    groups = Groups().add(focal_frame("lone", None))
    assert "lone belongs to no series: it has no `series_id`" in groups.sentences[0]
    assert groups.counts == {UNPLACED: 1}


# --- limits ----------------------------------------------------------------------------------------------------------


def test_of_too_many_open_series_the_one_waited_for_longest_is_given_up() -> None:
    begun = [series_of_ids(f"s{number}") for number in range(MOST_OPEN + 1)]
    groups = Groups().add(*(frames[0] for frames in begun[:MOST_OPEN]))
    groups.add(begun[0][1], begun[MOST_OPEN][0])
    (sentence,) = groups.sentences
    assert sentence.startswith("The series s1 is incomplete")
    assert groups.counts == {CROWDED: 1}
    assert groups.add(begun[0][2]).members == [["s0-0", "s0-1", "s0-2"]]


def test_memory_for_open_series_is_bounded_but_suffices_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "OPEN_BYTES", 5000)  # a frame has 4096
    one, other = series_of_ids("one"), series_of_ids("other")
    groups = Groups().add(*one[:2], *other)
    assert groups.members == [["other-0", "other-1", "other-2"]]
    assert groups.counts == {CROWDED: 2}


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(grouping, "monotonic", lambda: self.now)


def test_a_series_is_given_up_though_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drops, stop = Clock(monkeypatch), Drops(), Event()
    (zero, one, two), (late, *_) = series_of_ids("sheet"), series_of_ids("late")

    class Slow:
        name = "camera"

        def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
            yield arriving(zero)
            clock.now += 25
            yield arriving(one)
            clock.now += 25  # 25 s since the last frame, 50 s since the first
            yield None
            yield arriving(two)
            yield arriving(late)
            clock.now += 29
            yield None
            clock.now += 2
            yield None
            stop.wait()

    grouping_ = Grouping("camera", rules_for("live", None), lambda _: RANGES, drops, timeout_seconds=30)
    outcomes = GroupedSource(Slow(), grouping_).arrivals(stop)
    series = next(outcomes)
    assert isinstance(series, Arrival)
    assert clock.now == 50
    failure = next(outcomes)
    assert isinstance(failure, Failure)
    assert "nothing more came for 30 s" in str(failure.error)
    assert clock.now == 81
    assert drops.counts == {("camera", INCOMPLETE): 1}
    stop.set()
    assert list(outcomes) == []


def test_time_in_which_nobody_listened_gives_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    (zero, *rest), other = series_of_ids("sheet"), series_of_ids("other")
    arrivals = (arriving(frame) for frame in [zero, *other, *rest])
    grouping_ = Grouping("camera", rules_for("live", None), lambda _: RANGES, Drops(), timeout_seconds=30)
    names = []
    for outcome in grouping_.group(arrivals):
        assert isinstance(outcome, Arrival)
        names.append(outcome.subject.name)
        clock.now += 1000  # recognition is busy
    assert names == ["other", "sheet"]


def test_a_source_that_ends_by_itself_leaves_no_series_unexplained() -> None:
    class Ending:
        name = "camera"

        def arrivals(self, stop: Event) -> Iterator[Arrival | Failure | None]:
            yield Failure("camera", "torn.tif", ValueError("torn"))
            yield arriving(series_of_ids("sheet")[0])

    source = GroupedSource(Ending(), Grouping("camera", rules_for("live", None), lambda _: RANGES, Drops()))
    torn, incomplete = source.arrivals(Event())
    assert isinstance(torn, Failure)
    assert torn.origin == "torn.tif"
    assert isinstance(incomplete, Failure)
    assert "sheet is incomplete" in str(incomplete.error)


def test_frames_that_end_in_no_series_are_finished_once_it_was_said_why() -> None:
    first, second, third = series_of_ids("sheet")
    unplaced = focal_frame("lonely", defocus_angstrom=None)
    too_long = series_of_ids("long", 40, [-160 + 4 * index for index in range(40)])[0]
    retaken = replace(first, frame_id=first.frame_id + "0")
    finished = list[str]()
    grouping_ = Grouping("camera", rules_for("live", None), lambda _: RANGES, Drops(), finish=finished.append)
    outcomes = grouping_.group(map(arriving, (first, retaken, unplaced, too_long, second, third)))
    for frame in (first, unplaced, too_long):
        assert isinstance(next(outcomes), Failure)
        assert frame.frame_id not in finished
    (series,) = outcomes
    assert isinstance(series, Arrival)
    assert finished == [frame.frame_id for frame in (first, unplaced, too_long)]
    assert series.frame_ids == tuple(frame.frame_id for frame in (retaken, second, third))
