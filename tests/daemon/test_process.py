"""`hrtemd process`: files in, tables, overlays and an honest summary out."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
from click.testing import CliRunner
from PIL import Image

from daemon.atoms import SCHEMA, header_of, read_parquet
from daemon.batch import Batch
from daemon.cli import main
from daemon.publish.files import FilePublisher
from daemon.recognition.package import find_model
from daemon.recognition.recogniser import Recogniser

Run = Callable[..., "CompletedProcess[str]"]
WriteFrame = Callable[..., Path]

SUMMARY_KEYS = {
    "file",
    "frame_id",
    "model",
    "pixel_size_angstrom",
    "calibration_source",
    "count",
    "counts_by_species",
    "latency_ms",
    "warnings",
    "error",
}


def summary(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return rows


def test_good_frames_and_a_bad_one(tmp_path: Path, hrtemd: Run, write_frame: WriteFrame, blob_model: Path) -> None:
    session, output = tmp_path / "session", tmp_path / "output"
    write_frame(session / "sparse.npy", blobs=5)
    write_frame(session / "dense.npy", blobs=36)
    (session / "sparse.json").write_text('{"pixel_size_angstrom": 0.11}')
    (session / "torn.npy").write_bytes((session / "dense.npy").read_bytes()[:5000])

    done = hrtemd("process", session, "--output", output, "--model", blob_model, "--pixel-size", "0.1")

    assert done.returncode == 1
    assert done.stdout == ""
    rows = {Path(row["file"]).name: row for row in summary(output)}
    assert rows.keys() == {"sparse.npy", "dense.npy", "torn.npy"}
    assert all(row.keys() >= SUMMARY_KEYS for row in rows.values())
    for name, count in (("sparse", 5), ("dense", 36)):
        row = rows[f"{name}.npy"]
        table = read_parquet(output / f"{name}.atoms.parquet")
        assert table.schema.names == SCHEMA.names
        assert table.num_rows == pyarrow.csv.read_csv(output / f"{name}.atoms.csv").num_rows == row["count"] == count
        assert row["counts_by_species"] == {"column": count}
        assert row["model"] == "blobs"
        assert row["error"] is None
        assert (row["pixel_size_angstrom"], row["calibration_source"]) == (0.1, "override")
        assert row["frame_id"] == header_of(table)["frame_id"]
        assert row["latency_ms_by_stage"].keys() == {"read", "prepare", "infer", "decode", "write", "draw"}
        stages = row["latency_ms_by_stage"]
        assert row["latency_ms"] >= stages["prepare"] + stages["infer"] + stages["decode"]
        Image.open(output / f"{name}.overlay.png").verify()
        assert f"{name}.npy: {count} column{'s' * (count != 1)} in" in done.stderr
    torn = rows["torn.npy"]
    assert torn["count"] is None
    assert torn["counts_by_species"] is None
    assert torn["error"].startswith("torn.npy: the file cannot be read")
    assert torn["error"] in done.stderr
    assert not list(output.glob("torn*"))
    assert not list(output.glob(".*"))

    # A second run over the same files, results among them, finds the same and adds nothing.
    before = sorted(path.name for path in output.iterdir())
    shutil.copy(output / "dense.overlay.png", session)
    again = hrtemd("process", session / "sparse.npy", session, "--output", output, "--model", blob_model)
    assert sorted(path.name for path in output.iterdir()) == before
    by_name = {Path(row["file"]).name: row for row in summary(output)}
    assert by_name["sparse.npy"]["calibration_source"] == "sidecar"
    assert "no pixel size" in by_name["dense.npy"]["error"]
    assert again.returncode == 1


def test_stacks_namesakes_and_the_configuration(
    tmp_path: Path, hrtemd: Run, write_frame: WriteFrame, blob_model: Path
) -> None:
    one, other = write_frame(tmp_path / "a" / "x.npy", blobs=3), write_frame(tmp_path / "b" / "x.npy", blobs=4)
    movie = tmp_path / "movie.npy"
    np.save(movie, np.stack([np.load(one), np.load(other)]))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "not needed here"\nmodel = "{blob_model}"\n'
        "pixel_size_angstrom = 0.1\n[publish.files]\noverlays = false\n"
    )

    done = hrtemd("process", one, other, movie, "--output", tmp_path / "output", "--config", config)

    assert done.returncode == 0, done.stderr
    assert [(row["stem"], row["count"]) for row in summary(tmp_path / "output")] == [
        ("x", 3),
        ("x-2", 4),
        ("movie-0000", 3),
        ("movie-0001", 4),
    ]
    assert "-> x-2" in done.stderr
    assert not list((tmp_path / "output").glob("*.png"))


def test_a_name_that_is_not_unicode_and_frames_beyond_the_limits(
    tmp_path: Path, hrtemd: Run, write_frame: WriteFrame, blob_model: Path
) -> None:
    odd = write_frame(tmp_path / "session" / os.fsdecode(b"bad\xff.npy"), blobs=3)
    np.savez_compressed(tmp_path / "session" / "bomb.npz", np.zeros((8, 2000, 2000)))
    config = tmp_path / "config.toml"
    config.write_text("[limits]\nframe_pixels = 5_000_000\ndecompressed_bytes = 200_000_000\n")

    done = hrtemd(
        "process", odd.parent, "--output", tmp_path / "output", "--model", blob_model, "--pixel-size", 0.1,
        "--config", config,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    frame, bomb = summary(tmp_path / "output")
    assert "more than the 0.2 GB that a file may take" in bomb["error"]
    assert (frame["count"], frame["stem"]) == (3, "bad_")
    Image.open(tmp_path / "output" / "bad_.overlay.png").verify()


def test_an_overlay_that_fails_spoils_no_result(
    tmp_path: Path, write_frame: WriteFrame, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "frame.overlay.png")

    monkeypatch.setattr(FilePublisher, "write_overlay", fail)
    frame, output = write_frame(tmp_path / "frame.npy", blobs=5), tmp_path / "output"
    arguments = ["process", frame, "--output", output, "--model", blob_model, "--pixel-size", "0.1"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 1
    (row,) = summary(output)
    assert (row["count"], row["stem"], row["error"], row["complete"]) == (5, "frame", None, False)
    assert "There is no overlay: frame.overlay.png: No space left on device" in row["warnings"][-1]


def test_frames_that_look_alike_to_the_network_are_warmed_up_once(
    tmp_path: Path, write_frame: WriteFrame, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognised: list[float] = []
    recogniser = Recogniser(find_model(str(blob_model)), "onnxruntime")
    recognise = recogniser.recognise
    monkeypatch.setattr(recogniser, "recognise", lambda frame: recognised.append(0.0) or recognise(frame))
    paths = [write_frame(tmp_path / f"frame{index}.npy", seed=index) for index in range(3)]
    for path, size in zip(paths, (0.1, 0.10001, 0.09999), strict=True):
        path.with_suffix(".json").write_text(json.dumps({"pixel_size_angstrom": size}))
    reports = list(Batch(recogniser, FilePublisher(tmp_path / "output", overlays=False)).process(paths))
    assert [report.count for report in reports] == [12, 12, 12]
    assert len(recognised) == 4


def test_a_summary_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, write_frame: WriteFrame, blob_model: Path
) -> None:
    (tmp_path / "output" / "summary.json").mkdir(parents=True)
    arguments = ["process", write_frame(tmp_path / "frame.npy"), "--output", tmp_path / "output"]
    arguments += ["--model", blob_model, "--pixel-size", "0.1"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 1
    assert "summary.json: Is a directory; check that" in done.stderr.splitlines()[-1]


def test_what_cannot_be_used_is_status_2_and_writes_nothing(
    tmp_path: Path, write_frame: WriteFrame, blob_model: Path
) -> None:
    frame, output = write_frame(tmp_path / "frame.npy"), tmp_path / "output"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("colour = 1\n")
    refusals: dict[str, list[Any]] = {
        "Give --model NAME, or --config FILE": [frame],
        "There is no model 'unobtainium'": [frame, "--model", "unobtainium"],
        "takes single frames; leave --series out": [frame, "--model", blob_model, "--series", "stack"],
        "is not a number above 0": [frame, "--model", blob_model, "--pixel-size", "nan"],
        "There is no image file in": [tmp_path / "empty", "--model", blob_model],
        "does not exist": [tmp_path / "missing.tif", "--model", blob_model],
        "line 1: colour: there is no such key": [frame, "--config", tmp_path / "bad.toml"],
    }
    for message, arguments in refusals.items():
        done = CliRunner().invoke(main, ["process", *map(str, arguments), "--output", str(output)])
        assert (done.exit_code, message in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert not output.exists()
