"""The real daemon, in a process of its own, on a folder of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic, perf_counter, sleep
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from daemon.atoms import counts_by_species, read_parquet
from daemon.demo.truth import Truth
from daemon.errors import FrameError, HrtemdError

# Relative paths are taken from the folder of config.toml.
_SOURCE = """\
[[sources]]
name = "{name}"
type = "directory"
path = "incoming/{name}"
model = "{model}"

"""
_PUBLISH = """\
[publish.files]
directory = "results"
"""

DAEMON_COMMAND = (sys.executable, "-P", "-c", "from daemon.cli import main; main()")

_POLL_SECONDS = 0.005
_STOP_SECONDS = 10.0


class Finding(NamedTuple):
    """What the daemon made of a frame or series; latency is from the file being there to its table being there."""

    rows: int
    counts: dict[str, int]
    latency_ms: float


class Trial:
    """Runs the daemon while it is open.

    Args:
        folder: Holds `config.toml`, `incoming/`, `results/` and `daemon.log`.
        models: A source is set up for each.
        limit_seconds: How long all of it may take.
    """

    def __init__(self, folder: Path, models: set[str], limit_seconds: float) -> None:
        self.config = folder / "config.toml"
        self.incoming = folder / "incoming"
        self.results = folder / "results"
        self.log = folder / "daemon.log"
        self._models = sorted(models)
        self._limit_seconds = limit_seconds
        self._deadline = monotonic() + limit_seconds

    def __enter__(self) -> Self:
        """Start the daemon and wait until it is warm.

        Raises:
            HrtemdError: It did not start; the message says why.
        """
        sources = [_SOURCE.format(name=_source_of(model), model=Path(model).as_posix()) for model in self._models]
        self.config.write_text("".join([*sources, _PUBLISH]), encoding="utf-8")
        for model in self._models:
            self.folder_of(model).mkdir(parents=True)
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*DAEMON_COMMAND, "run", "--config", str(self.config)],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(),
            )  # fmt: skip
        try:
            while not re.search(r"\bready\b", self._log_text()):
                self._pause("it was loading its models")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Ask the daemon to stop, which finishes its overlays."""
        status = self._stop()
        if error is None and status != 0:
            raise HrtemdError(f"The daemon did not end as asked, but with status {status}; its log is {self.log}.")

    def analyse(self, file: Path, truth: Truth) -> Finding:
        """Drop a frame into its source's folder and wait for its atoms.

        Raises:
            FrameError: The daemon could not analyse it.
            HrtemdError: The daemon ended, or takes too long.
        """
        self._drop(file, truth)
        dropped = perf_counter()
        table = self.results / f"{file.stem}.atoms.parquet"
        while not table.exists():
            if error := self._reported_error(file.name):
                raise FrameError(error)
            self._pause(f"it was analysing {file.name}")
        latency_ms = 1e3 * (perf_counter() - dropped)
        atoms = read_parquet(table)
        return Finding(atoms.num_rows, _counts_in(atoms), latency_ms)

    def folder_of(self, model: str) -> Path:
        """Where a model's frames come in."""
        return self.incoming / _source_of(model)

    def overlay_of(self, file: Path) -> Path:
        """Where a frame's overlay is."""
        return self.results / f"{file.stem}.overlay.png"

    def _drop(self, file: Path, truth: Truth) -> None:
        """Put a frame in place as acquisition software does: written elsewhere, renamed when complete."""
        folder = self.folder_of(truth.model)
        sidecar = truth.model_dump(
            include={"pixel_size_angstrom", "dose_per_square_angstrom", "defocus_angstrom"}, exclude_none=True
        )
        (folder / f"{file.stem}.json").write_text(json.dumps(sidecar), encoding="utf-8")
        partial = self.incoming / f"{file.name}.part"
        shutil.copyfile(file, partial)
        partial.rename(folder / file.name)

    def _reported_error(self, name: str) -> str | None:
        """Return why the daemon could not analyse a frame, if it said so."""
        events = self.results / "events.jsonl"
        # The last line may be half written.
        lines = events.read_text(encoding="utf-8").split("\n")[:-1] if events.exists() else []
        errors = (event["error"] for event in map(json.loads, lines) if Path(event["origin"]).name == name)
        return next(errors, None)

    def _pause(self, meanwhile: str) -> None:
        """Wait a moment, unless the daemon is gone or out of time."""
        status = self._process.poll()
        if status is not None:
            lines = self._log_text().strip().splitlines() or ["it wrote nothing"]
            raise HrtemdError(f"The daemon ended with status {status} while {meanwhile}: {lines[-1]} (log: {self.log})")
        if monotonic() > self._deadline:
            raise HrtemdError(
                f"The daemon took longer than {self._limit_seconds:.0f} s and was stopped while {meanwhile}; "
                f"is the machine busy? See its log, {self.log}, and `hrtemd doctor`."
            )
        sleep(_POLL_SECONDS)

    def _stop(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def _counts_in(table: pa.Table) -> dict[str, int]:
    """Rows by what stands there, and the atoms of all columns where they are counted."""
    atoms = pc.sum(table["n_atoms"]).as_py()
    return counts_by_species(table) | ({"atoms": atoms} if atoms is not None else {})


def _source_of(model: str) -> str:
    return Path(model).name


def _environment() -> dict[str, str]:
    """Let the daemon import what we import, and keep its folders where we look for results."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HRTEMD_SOURCES", "HRTEMD_PUBLISH"))}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
