"""Which files a source takes: patterns on the path below its folder."""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.selection import Selection, problem_with
from tests.daemon.watching import Watching

WriteFrame = Callable[..., Path]


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.mrc", ["a.mrc", "deep/er/a.mrc"], ["a.mrcs", "a.MRC", "a.mrc.tif"]),
        ("raw", ["raw/a.mrc", "day/raw/deep/a.mrc"], ["raw.mrc", "rawer/a.mrc"]),
        ("raw/", ["raw/a.mrc", "day/raw/a.mrc"], ["raw.mrc"]),
        ("raw/*.mrc", ["raw/a.mrc"], ["day/raw/a.mrc", "raw/deep/a.mrc"]),
        ("**/raw/*.mrc", ["raw/a.mrc", "day/raw/a.mrc", "day/1/raw/a.mrc"], ["raw/deep/a.mrc"]),
        ("day */**", ["day 1/a.mrc", "day 2/deep/er/a.mrc"], ["a.mrc", "other/day 1/a.mrc"]),
        ("day/**/a.mrc", ["day/a.mrc", "day/1/a.mrc", "day/1/2/a.mrc"], ["a.mrc", "day/1/b.mrc"]),
        ("a[12].mrc", ["a1.mrc", "deep/a2.mrc"], ["a3.mrc", "a12.mrc"]),
        ("a[!12].mrc", ["a3.mrc"], ["a1.mrc", "a/.mrc"]),
        ("a?.mrc", ["a1.mrc", "aö.mrc"], ["a.mrc", "a12.mrc"]),
        ("**", ["a.mrc", "deep/a.mrc"], []),
        ("a+(b).mrc", ["a+(b).mrc"], ["aab.mrc"]),
    ],
)
def test_patterns(pattern: str, taken: list[str], left: list[str]) -> None:
    assert problem_with(pattern) is None
    included, excluded = Selection(include=[pattern]), Selection(exclude=[pattern])
    for path in taken + left:
        assert included.takes(PurePosixPath(path)) == (path in taken), path
        assert excluded.takes(PurePosixPath(path)) == (path in left), path


def test_exclude_beats_include() -> None:
    selection = Selection(include=["*.mrc", "day/*.tif"], exclude=["raw", "*_dark.*"])
    paths = ["a.mrc", "day/a.tif", "a.tif", "raw/a.mrc", "day/a_dark.tif"]
    assert [path for path in paths if selection.takes(PurePosixPath(path))] == ["a.mrc", "day/a.tif"]


@pytest.mark.parametrize("pattern", ["", "/", "/data/*.mrc", r"raw\*.mrc", "../*.mrc", "./a.mrc", "raw//a.mrc"])
def test_patterns_that_can_never_match_are_told(pattern: str) -> None:
    assert problem_with(pattern)


names = st.text("ab*?", min_size=1, max_size=3)
paths = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)
patterns = st.lists(st.one_of(st.just("**"), names), min_size=2, max_size=4)


@given(patterns, paths)
def test_patterns_mean_the_same_as_a_regular_expression(pattern: list[str], path: str) -> None:
    expression = ""
    for name in pattern[:-1]:
        expression += "(?:[^/]+/)*" if name == "**" else name.replace("*", "[^/]*").replace("?", "[^/]") + "/"
    last = pattern[-1]
    expression += ".+" if last == "**" else last.replace("*", "[^/]*").replace("?", "[^/]") + "(?:/.+)?"
    assert Selection(include=["/".join(pattern)]).takes(PurePosixPath(path)) == bool(re.fullmatch(expression, path))


@given(st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1))
def test_any_name_is_matched_by_itself_and_by_everything(name: str) -> None:
    path = PurePosixPath("day", name)
    escaped = re.sub(r"([*?[])", r"[\1]", name)
    assert Selection(include=["*"]).takes(path)
    if name not in (".", ".."):
        assert Selection(include=["day/" + escaped]).takes(path)
        assert not Selection(exclude=["day/" + escaped]).takes(path)


# --- in a running source ----------------------------------------------------------------------------------------------

_opened: list[str] | None = None


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else "")


@contextmanager
def openings() -> Iterator[list[str]]:
    global _opened  # noqa: PLW0603 (an audit hook stays for the life of the process)
    sys.addaudithook(_note_opening)
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def test_a_file_that_is_left_out_is_never_opened(watching: Watching, write_frame: WriteFrame) -> None:
    write_frame(watching.folder / "raw" / "old.npy", seed=1)
    write_frame(watching.folder / "keep" / "old.npy", seed=2)
    with openings() as opened:
        watching.start(include=["keep", "raw", "*.npz"], exclude=["raw/**", "*_dark.*"])
        assert watching.names(1) == ["old"]
        for name in ("raw/new.npy", "keep/a_dark.npy", "other/new.npy", "keep/new.npy"):
            write_frame(watching.folder / name, seed=3)
            (watching.folder / name).with_suffix(".json").write_text("{}")
        assert watching.names(1) == ["new"]
    names = Counter(Path(path).relative_to(watching.folder).as_posix() for path in opened if path.endswith(".npy"))
    left_out = {name: number for name, number in names.items() if name not in ("keep/old.npy", "keep/new.npy")}
    assert names["keep/new.npy"] > 1
    # The test itself opens each of these once, to write it.
    assert left_out == {"raw/new.npy": 1, "keep/a_dark.npy": 1, "other/new.npy": 1}


def test_hidden_folders_are_left_out_however_their_files_are_found(watching: Watching, write_frame: WriteFrame) -> None:
    write_frame(watching.folder / ".trash" / "old.npy")
    watching.start()
    write_frame(watching.folder / ".trash" / "new.npy", seed=1)
    write_frame(watching.folder / "seen.npy", seed=2)
    assert watching.names(1) == ["seen"]
