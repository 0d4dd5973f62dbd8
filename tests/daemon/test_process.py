"""`hrtemd process`: files in, tables, overlays and an honest summary out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow.csv
from click.testing import CliRunner
from PIL import Image

from daemon.atoms import SCHEMA, header_of, read_parquet
from daemon.cli import main

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
        assert f"{name}.npy: {count} atoms in" in done.stderr
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
