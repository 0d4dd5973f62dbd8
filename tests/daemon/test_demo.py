"""`hrtemd demo` shows the daemon's real findings, succeeds only when they are right, and explains itself when not."""

import json
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from daemon.atoms import atom_table, write_parquet
from daemon.demo import run_demo, trial
from daemon.demo.truth import SHIPPED_SAMPLES, load_truths
from daemon.errors import HrtemdError

# Stands in for `hrtemd run`: a sample is a text that says what to do. It imports little, to start at once.
STAND_IN = dedent("""\
    import json, shutil, signal, sys, time, tomllib
    from pathlib import Path

    assert sys.argv[1:3] == ["run", "--config"]
    config = Path(sys.argv[3])
    configuration = tomllib.loads(config.read_text())
    results = config.parent / configuration["publish"]["files"]["directory"]
    results.mkdir()
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    print("ready; results go to", results, flush=True)
    done = set()
    while not stopping:
        for source in configuration["sources"]:
            for file in (config.parent / source["path"]).glob("*.npy"):
                if file in done:
                    continue
                done.add(file)
                assert file.with_suffix(".json").exists(), "the sidecar comes first"
                order = file.read_text()
                if order == "refuse":
                    event = {"origin": str(file), "error": "This frame is cursed."}
                    (results / "events.jsonl").write_text(json.dumps(event) + "\\n")
                elif order == "die":
                    sys.exit("The engine fell over.")
                elif order == "hang":
                    time.sleep(60)
                else:
                    shutil.copy(order, results / ".part")
                    (results / ".part").rename(results / f"{file.stem}.atoms.parquet")
                    if "no-overlay" not in order:
                        (results / f"{file.stem}.overlay.png").touch()
        time.sleep(0.01)
""")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(trial, "DAEMON_COMMAND", (sys.executable, "-P", str(script)))


def make_samples(folder: Path, *frames: tuple[str, str | int, int], model: str = "graphene") -> Path:
    """Write samples: name, what the stand-in is to find or do, true count."""
    folder.mkdir()
    truths: dict[str, Any] = {}
    for name, order, atoms in frames:
        (folder / f"{name}.npy").write_text(str(make_table(folder, name, order) if isinstance(order, int) else order))
        truths[f"{name}.npy"] = {
            "model": "nanoparticle" if name.startswith("particle") else model,
            "pixel_size_angstrom": 0.1,
            "atoms": atoms,
            "tolerance": 2,
            "description": f"a frame called {name}",
            "dose_per_square_angstrom": 1000.0,
        }
    (folder / "truth.json").write_text(json.dumps(truths))
    return folder


def make_table(folder: Path, name: str, count: int) -> Path:
    path = folder / f"{name}.parquet"
    write_parquet(atom_table(np.ones((count, 2)), 0.1, "atom", np.ones(count), np.ones(count)), path)
    return path


@pytest.mark.usefixtures("stand_in")
def test_right_counts_succeed_and_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = make_samples(tmp_path / "samples", ("sheet-1", 1202, 1200), ("particle-1", 87, 88))
    assert run_demo(tmp_path / "kept", samples) == 0
    shown = capsys.readouterr().out
    for name, expected, found in (("sheet-1.npy", "1,200 ± 2", "1,202"), ("particle-1.npy", "88 ± 2", "87")):
        line = next(line for line in shown.splitlines() if name in line)
        assert expected in line
        assert f" {found} " in line
        assert line.endswith(" ms")
    assert "All 2 frames" in shown
    for pointer in ("atoms.parquet", "overlay.png", "hrtemd process", "hrtemd run --config", "hrtemd check"):
        assert pointer in shown
    assert (tmp_path / "kept" / "results" / "sheet-1.atoms.parquet").exists()


@pytest.mark.usefixtures("stand_in")
def test_the_configuration_left_behind_watches_a_folder_per_model(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", ("sheet-1", 5, 5), ("particle-1", 7, 7))
    run_demo(tmp_path / "kept", samples)
    configuration = tomllib.loads((tmp_path / "kept" / "config.toml").read_text())
    assert [source["model"] for source in configuration["sources"]] == ["graphene", "nanoparticle"]
    for source in configuration["sources"]:
        assert (tmp_path / "kept" / source["path"]).is_dir()
    sidecar = json.loads((tmp_path / "kept" / "incoming" / "graphene" / "sheet-1.json").read_text())
    assert sidecar == {"pixel_size_angstrom": 0.1, "dose_per_square_angstrom": 1000.0}


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "order", "sentence"),
    [
        ("sheet-1", 500, "In sheet-1.npy the daemon found 500 rows instead of 200 ± 2"),
        ("sheet-1", "refuse", "sheet-1.npy was not analysed: This frame is cursed."),
        ("no-overlay", 200, "no-overlay.npy has no overlay"),
    ],
)
def test_a_frame_gone_wrong_fails_the_demo_but_not_the_other_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, order: str | int, sentence: str
) -> None:
    samples = make_samples(tmp_path / "samples", (name, order, 200), ("sheet-2", 300, 300))
    assert run_demo(tmp_path / "kept", samples) == 1
    shown = capsys.readouterr().out
    assert sentence in shown
    assert "The demo failed" in shown
    assert "daemon.log" in shown
    assert (tmp_path / "kept" / "results" / "sheet-2.overlay.png").exists()


@pytest.mark.usefixtures("stand_in")
def test_a_daemon_that_dies_is_quoted(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", ("sheet-1", "die", 99))
    with pytest.raises(HrtemdError, match=r"status 1 while it was analysing sheet-1\.npy: The engine fell over\..*log"):
        run_demo(tmp_path / "kept", samples)


@pytest.mark.usefixtures("stand_in")
def test_a_daemon_that_hangs_is_stopped_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.demo.LIMIT_SECONDS", 3.0)
    monkeypatch.setattr(trial, "_STOP_SECONDS", 0.2)
    samples = make_samples(tmp_path / "samples", ("sheet-1", "hang", 77))
    with pytest.raises(HrtemdError, match=r"longer than 3 s .* analysing sheet-1\.npy"):
        run_demo(tmp_path / "kept", samples)


@pytest.mark.usefixtures("stand_in")
def test_without_a_folder_the_results_stay_in_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_demo(samples=make_samples(tmp_path / "samples", ("sheet-1", 5, 5))) == 0
    (folder,) = tmp_path.glob("hrtemd-demo-*")
    assert (folder / "results" / "sheet-1.atoms.parquet").exists()
    assert str(folder) in capsys.readouterr().out


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", ("sheet-1", 5, 5))
    with pytest.raises(HrtemdError, match="not empty"):
        run_demo(samples, samples)


def test_missing_samples_are_named(tmp_path: Path) -> None:
    with pytest.raises(HrtemdError, match=r"sample frames are not installed: there is no .*truth\.json"):
        load_truths(tmp_path)
    samples = make_samples(tmp_path / "samples", ("sheet-1", 5, 5), ("sheet-2", 5, 5))
    (samples / "sheet-2.npy").unlink()
    with pytest.raises(HrtemdError, match=r"lacks sheet-2\.npy"):
        load_truths(samples)


def test_a_wrong_truth_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('{"a.npy": {"model": "graphene", "atoms": -1}}')
    with pytest.raises(HrtemdError, match=r"a\.npy\.atoms"):
        load_truths(tmp_path)


def test_the_real_daemon_says_why_it_does_not_start(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", ("sheet-1", 5, 5), model="no-such-model")
    with pytest.raises(HrtemdError, match=r"status 2 while it was loading its models: .*no-such-model"):
        run_demo(tmp_path / "kept", samples)


def test_the_shipped_demo_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (SHIPPED_SAMPLES / "truth.json").exists():
        pytest.skip("the shipped samples are not made yet")
    assert run_demo(tmp_path / "kept") == 0, capsys.readouterr().out


def test_the_shipped_samples_are_small_and_cover_every_model() -> None:
    if not (SHIPPED_SAMPLES / "truth.json").exists():
        pytest.skip("the shipped samples are not made yet")
    assert sum(file.stat().st_size for file in SHIPPED_SAMPLES.iterdir()) < 5e6
    assert {truth.model for truth in load_truths(SHIPPED_SAMPLES).values()} == {
        "graphene",
        "nanoparticle",
        "mos2-triplet",
        "nanoparticle-triplet",
    }
