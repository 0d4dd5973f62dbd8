"""The command line: help at once, statuses that mean something, and the small commands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest
from click.testing import CliRunner, Result

from daemon import doctor
from daemon.atoms import atom_table, write_parquet
from daemon.cli import main
from daemon.filesystems import file_systems_within

Run = Callable[..., "CompletedProcess[str]"]
HEAVY = {"cv2", "numpy", "onnxruntime", "openvino", "pyarrow", "pydantic", "rsciio", "scipy", "watchdog"}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def commands() -> dict[str, click.Command]:
    group = main.commands["models"]
    assert isinstance(group, click.Group)
    return main.commands | {f"models {name}": command for name, command in group.commands.items()}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, daemon.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY.intersection(loaded)


def test_the_installed_command_knows_its_version(hrtemd: Run) -> None:
    assert hrtemd("--version").stdout.startswith("hrtemd, version 0.")


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help(name: str) -> None:
    shown = invoke(*name.split(), "--help")
    assert shown.exit_code == 0
    summary = commands()[name].get_short_help_str(limit=200)
    assert len(summary) <= 66, "it must fit beside the command's name"
    if " " not in name:
        assert "Example:\n    hrtemd" in shown.output
        assert "Exit statuses: 0" in shown.output


def test_check_says_what_would_run(tmp_path: Path, blob_model: Path) -> None:
    (tmp_path / "incoming").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{blob_model}"\n'
        "pixel_size_angstrom = 0.1\n"
    )
    shown = invoke("check", "--config", config)
    assert shown.exit_code == 0
    said_of_all = (
        str(tmp_path / "incoming"),
        str(blob_model),
        "lossless",
        "openvino",
        "0.1 Å",
        str(tmp_path / "results"),
    )
    for said in said_of_all:
        assert said in shown.output
    assert not (tmp_path / "results").exists()


def test_check_says_how_cameras_are_reached(tmp_path: Path, blob_model: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f"""\
        [[sources]]
        name = "camera"
        type = "dectris-stream2"
        endpoint = "tcp://dcu:31001"
        spool = "spool"
        average_frames = 4
        model = "{blob_model}"
        [[sources]]
        name = "script"
        type = "array-1.0"
        endpoint = "tcp://127.0.0.1:9999"
        socket = "sub"
        bind = true
        model = "{blob_model}"
        [publish.zeromq]
        """
    )
    shown = invoke("check", "--config", config)
    assert shown.exit_code == 0
    assert f"camera: pulls dectris-stream2 frames, connected to tcp://dcu:31001, spooled in {tmp_path}/spool\n" in (
        shown.output
    )
    assert "  averages 4 frames, weights equal\n" in shown.output
    assert "script: subscribes to array-1.0 frames, bound to tcp://127.0.0.1:9999\n" in shown.output
    assert "listens at tcp://127.0.0.1:5600, again at tcp://127.0.0.1:5601\n" in shown.output


def test_check_and_run_refuse_the_same_mistakes(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[[sources]]\nname = "camera"\ntype = "array-1.0"\npath = "nowhere"\n')
    for command in ("check", "run"):
        shown = invoke(command, "--config", config)
        assert shown.exit_code == 2
        assert "line 1: sources[0].endpoint: is required and missing" in shown.stderr
        assert "line 4: sources[0].path" in shown.stderr


def test_check_refuses_an_engine_that_does_not_run_the_model(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "."\nmodel = "{blob_model}"\n'
        '[recognition]\nbackend = "onnxruntime"\n'
    )
    assert "backend onnxruntime" in invoke("check", "--config", config).output
    monkeypatch.setitem(sys.modules, "daemon.recognition.backends.onnxruntime", None)
    shown = invoke("check", "--config", config)
    assert shown.exit_code == 2
    assert "recognition.backend: No inference engine can run" in shown.stderr


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    import numpy as np

    table = tmp_path / "frame.atoms.parquet"
    write_parquet(atom_table(np.ones((1, 2)), 0.1, "atom", np.ones(1), np.ones(1)), table)
    missing = tmp_path / "missing" / "atoms.csv"
    for arguments in (["export", table, "--format", "csv", "--output", missing], ["demo", "--keep", table / "below"]):
        shown = invoke(*arguments)
        assert shown.exit_code == 1
        assert shown.stderr.startswith("Error: ")
        assert "check that the folder is there" in shown.stderr
        assert shown.stderr.count("\n") == 1


def test_models_are_shown_and_verified(blob_model: Path, tmp_path: Path) -> None:
    assert '"name": "blobs"' in invoke("models", "show", blob_model).output
    assert "verified" in invoke("models", "verify", blob_model).output
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes((blob_model / "manifest.json").read_bytes())
    (damaged / "model.onnx").write_bytes((blob_model / "model.onnx").read_bytes()[:-1])
    shown = invoke("models", "verify", damaged)
    assert shown.exit_code == 2
    assert "copy the package again" in shown.stderr
    assert invoke("models", "show", "unobtainium").exit_code == 2
    assert invoke("models", "list").exit_code == 0


def test_export_writes_a_file_or_to_standard_output(tmp_path: Path) -> None:
    import numpy as np

    atoms = atom_table(np.array([[1.0, 2.0]]), 0.1, "atom", np.ones(1), np.full(1, 0.1), ["C"])
    table, output = tmp_path / "frame.atoms.parquet", tmp_path / "frame.out"
    write_parquet(atoms, table)
    for format_ in ("csv", "extxyz", "imagej-roi"):
        to_file = invoke("export", table, "--format", format_, "--output", output)
        to_stdout = invoke("export", table, "--format", format_)
        assert (to_file.exit_code, to_stdout.exit_code) == (0, 0)
        assert output.read_bytes() == to_stdout.stdout_bytes != b""
    unknown = invoke("export", table, "--format", "xls")
    assert (unknown.exit_code, "choose one of csv, extxyz, imagej-roi" in unknown.stderr) == (2, True)
    assert invoke("export", output, "--format", "csv").exit_code == 1
    assert "name a STEM.atoms.parquet" in invoke("export", output, "--format", "csv").stderr


def test_doctor_finds_shares_mounted_in_a_watched_folder(
    tmp_path: Path, blob_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "incoming" / "archive"
    archive.mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n"
        f"42 22 0:46 / {archive} rw,relatime - nfs4 server:/archive rw,vers=4.2\n"
    )
    monkeypatch.setattr(doctor, "file_systems_within", lambda folder: file_systems_within(folder, mounts))
    config = tmp_path / "config.toml"
    config.write_text(f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{blob_model}"\n')
    shown = invoke("doctor", "--config", config)
    assert f"ok      source camera: {tmp_path}/incoming is on local (ext4 at /)" in shown.output
    assert f"note    source camera: {archive} (NFS) does not announce new files; all of it is listed" in shown.output


def test_doctor_looks_at_folders_and_times_a_frame(tmp_path: Path, blob_model: Path) -> None:
    (tmp_path / "incoming").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'[[sources]]\nname = "camera"\ntype = "directory"\npath = "incoming"\nmodel = "{blob_model}"\n')
    shown = invoke("doctor", "--config", config)
    assert "source camera: " in shown.output
    assert "ok      openvino: 20" in shown.output
    assert "1024 by 1024 pixels of 0.1 Å take" in shown.output
    (tmp_path / "incoming").rmdir()
    shown = invoke("doctor", "--config", config)
    assert shown.exit_code == 1
    assert "FAILED  source camera: the folder" in shown.output


def test_check_says_which_model_analyses_which_frames(tmp_path: Path, blob_model: Path) -> None:
    config = tmp_path / "config.toml"
    source = '[[sources]]\nname = "camera"\ntype = "array-1.0"\nendpoint = "tcp://127.0.0.1:9999"\n{}'
    models = f'[[sources.models]]\nmodel = "{blob_model}"\nvoltage_kv = [250, 320]\npixel_size_angstrom = [0.05, 0.3]\n'
    for default, said in (
        (f'model = "{blob_model}"\n', f"  model {blob_model} for everything else, and where a frame does not tell\n"),
        ("", "  no model for everything else, or where a frame does not tell: such a frame is an event\n"),
    ):
        config.write_text(source.format(default) + models)
        shown = invoke("check", "--config", config)
        assert shown.exit_code == 0
        assert f"  model {blob_model} where voltage 250 to 320 kV, pixel size 0.05 to 0.3 Å\n{said}" in shown.output
