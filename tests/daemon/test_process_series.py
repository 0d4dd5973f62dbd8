"""`hrtemd process --series`: files in, one result for each focal series, and a row for each that cannot be analysed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from daemon.atoms import header_of, read_parquet
from daemon.cli import main

WriteFrame = Callable[..., Path]
CYCLE_ANGSTROM = (-40.0, -80.0, -120.0)

pytestmark = pytest.mark.usefixtures("no_drift")


@pytest.fixture
def write_series(tmp_path: Path, write_frame: WriteFrame) -> Callable[..., list[Path]]:
    """Write frames with blobs and their sidecars; `keys` are more keys of all their sidecars."""

    def write(
        names: Sequence[str], defocus: Sequence[float | None] = CYCLE_ANGSTROM, blobs: int = 12, **keys: Any
    ) -> list[Path]:
        paths = []
        for index, (name, value) in enumerate(zip(names, defocus, strict=True)):
            path = write_frame(tmp_path / "session" / f"{name}.npy", blobs, seed=len(name) + 100 * index)
            told = {"pixel_size_angstrom": 0.1, "defocus_angstrom": value, **keys}
            if "series_id" in keys:
                told["series_index"] = index
            path.with_suffix(".json").write_text(json.dumps(told))
            paths.append(path)
        return paths

    return write


@pytest.fixture
def process(tmp_path: Path, blob_triplet_model: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        command = ["process", *arguments, "--output", tmp_path / "output", "--model", blob_triplet_model]
        return CliRunner().invoke(main, [str(argument) for argument in command])

    return run


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((tmp_path / "output" / "summary.json").read_text())
    return found


def test_ids_make_series_whose_results_go_by_their_id(
    tmp_path: Path, write_series: Callable[..., list[Path]], process: Callable[..., Result]
) -> None:
    one = write_series(["a", "b", "c"], blobs=7, series_id="sheet", series_length=3)
    other = write_series(["d", "e", "f"], blobs=9, series_id="other", series_length=3)
    files = [file for pair in zip(one, other, strict=True) for file in pair]

    done = process(*files, "--series", "metadata")

    assert done.exit_code == 0, done.stderr
    assert [(row["file"], row["stem"], row["count"]) for row in rows(tmp_path)] == [
        (str(one[0]), "sheet", 7),
        (str(other[0]), "other", 9),
    ]
    output = tmp_path / "output"
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [f"{stem}.{ending}" for stem in ("sheet", "other") for ending in ("atoms.csv", "atoms.parquet", "overlay.png")]
        + ["summary.json"]
    )
    header = header_of(read_parquet(output / "sheet.atoms.parquet"))
    row = rows(tmp_path)[0]
    assert header["name"] == "sheet"
    assert header["frame_id"] == row["frame_id"]
    assert header["origin"] == str(one[0])
    series = header["series"]
    assert series["names"] == ["c", "b", "a"]
    assert series["defocus_angstrom"] == [-120, -80, -40]
    assert series["first"] == 2
    assert series["offered"] == []
    assert len(set(series["members"])) == 3
    assert np.shape(series["drift_angstrom"]) == (3, 2)
    assert series["drift_angstrom"][2] == [0, 0]
    assert "2 series analysed, 0 failed" in done.stderr


def test_a_stack_of_five_is_a_series_of_its_best_three(
    tmp_path: Path, write_series: Callable[..., list[Path]], process: Callable[..., Result]
) -> None:
    paths = write_series("abcde", (-300, -120, -80, -40, 300))
    stack = tmp_path / "stack.npy"
    np.save(stack, np.stack([np.load(path) for path in paths]))
    sidecar = {"pixel_size_angstrom": 0.1, "defocus_angstrom": [-300, -120, -80, -40, 300]}
    stack.with_suffix(".json").write_text(json.dumps(sidecar))

    done = process(stack, "--series", "stack")

    assert done.exit_code == 0, done.stderr
    (row,) = rows(tmp_path)
    assert (row["stem"], row["count"], row["file"]) == ("stack", 12, str(stack))
    assert any("Of the 5 frames" in warning and "stack-0002 (-80 Å)" in warning for warning in row["warnings"])
    series = header_of(read_parquet(tmp_path / "output" / "stack.atoms.parquet"))["series"]
    assert series["names"] == ["stack-0001", "stack-0002", "stack-0003"]
    assert series["offered"] == [f"stack-000{index}" for index in range(5)]


def test_names_by_the_pattern_of_the_configuration_and_else_the_cycle(
    tmp_path: Path, write_series: Callable[..., list[Path]], process: Callable[..., Result]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[[sources]]\nname = "camera"\ntype = "directory"\npath = "session"\n'
        r"series_pattern = '(?P<series>sheet.+)_(?P<index>\d)'"
    )
    write_series(["sheet1_0", "sheet1_1", "sheet1_2"])
    write_series(["plain_0", "plain_1", "plain_2", "plain_3", "plain_4", "plain_5"], CYCLE_ANGSTROM * 2)

    done = process(tmp_path / "session", "--series", "metadata", "--config", config)

    assert done.exit_code == 0, done.stderr
    assert [row["stem"] for row in rows(tmp_path)] == ["plain_0", "plain_3", "sheet1"]


def test_series_that_cannot_be_analysed_have_a_row_with_the_reason_and_no_table(
    tmp_path: Path, write_series: Callable[..., list[Path]], process: Callable[..., Result]
) -> None:
    incomplete = write_series("ab", CYCLE_ANGSTROM[:2], series_id="incomplete")
    equal = write_series("cde", (-40, -40, -40), series_id="equal")
    unknown = write_series("fgh", (-40, None, -120), series_id="unknown")
    blank = write_series("ijk", series_id="blank")
    np.save(blank[1], np.zeros((160, 160), np.float32))
    small = write_series("lmn", series_id="small")
    np.save(small[2], np.load(small[2])[:, :100])
    torn = write_series("opq", series_id="torn")
    torn[0].write_bytes(torn[0].read_bytes()[:300])
    good = write_series("xyz", series_id="good")

    done = process(tmp_path / "session", "--series", "metadata")

    assert done.exit_code == 1
    found = {(Path(row["file"]).name, row["error"] or "") for row in rows(tmp_path)}
    for file, reason in (
        (equal[0], "equal: the frames of the series were not taken at 3 different defocus values"),
        (unknown[0], "unknown: the defocus of g is not known"),
        (blank[0], "blank: j is blank"),
        (small[0], "small: the frames of the series differ in size"),
        (torn[0], "o.npy: the file cannot be read"),
        (torn[1], "The series torn is incomplete: of its 3 frames 1 is missing (index 0"),
        (
            incomplete[0],
            "The series incomplete is incomplete: of its 3 frames 1 is missing (index 2), and nothing more",
        ),
    ):
        assert any(name == file.name and error.startswith(reason) for name, error in found), (file, found)
        assert reason in done.stderr
    assert len(found) == 8
    assert [row["stem"] for row in rows(tmp_path) if row["stem"]] == ["good"]
    assert all(row["count"] is None for row in rows(tmp_path) if row["error"])
    assert {path.name.split(".")[0] for path in (tmp_path / "output").iterdir()} == {"good", "summary"}
    assert good


def test_a_second_run_writes_the_same_stems_and_ids(
    tmp_path: Path, write_series: Callable[..., list[Path]], process: Callable[..., Result]
) -> None:
    files = write_series("abc", series_id="sheet")
    process(*files, "--series", "metadata")
    before = rows(tmp_path)
    process(*files[::-1], "--series", "metadata")
    assert [(row["stem"], row["frame_id"]) for row in rows(tmp_path)] == [
        (row["stem"], row["frame_id"]) for row in before
    ]


def test_a_model_for_series_must_be_told_how_to_group(
    tmp_path: Path, write_frame: WriteFrame, process: Callable[..., Result]
) -> None:
    done = process(write_frame(tmp_path / "frame.npy"))
    assert done.exit_code == 2
    assert "say how they are grouped: --series stack for the images of one file" in " ".join(done.stderr.split())
    assert not (tmp_path / "output").exists()
