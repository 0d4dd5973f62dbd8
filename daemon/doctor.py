"""What `hrtemd doctor` looks at, each finding with what to do about it."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from daemon.config import Configuration
from daemon.errors import HrtemdError
from daemon.filesystems import file_system_of, file_systems_within
from daemon.frames import Calibration, CalibrationSource, Frame, make_frame_id
from daemon.recognition.package import ModelPackage, find_model, shipped_models
from daemon.recognition.recogniser import Recogniser

TIMED_SHAPE = (1024, 1024)
_REPEATS = 5


class State(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `FAILED` where hrtemd cannot work because of it."""

    state: State
    subject: str
    detail: str


def examine(
    configuration: Configuration | None, load_recogniser: Callable[[ModelPackage, str], Recogniser] = Recogniser
) -> Iterator[Finding]:
    """Yield findings about this machine, and about the folders and models of a configuration where one is given."""
    yield Finding(State.OK, "hrtemd", f"{version('hrtemd')}, Python {sys.version.split()[0]}, {platform.platform()}")
    yield _processor()
    yield _gpu()
    yield from _engines()
    yield from _models()
    if configuration is not None:
        for source in configuration.sources:
            if source.type == "directory":
                yield from _watched_folder(source.name, source.path)
        yield _results_folder(configuration.publish.files.directory)
    yield _timing(configuration, load_recogniser)


def _processor() -> Finding:
    flags = _processor_flags()
    bf16 = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    precision = f"bf16 ({', '.join(bf16)})" if bf16 else "f32 (neither AMX nor AVX512-BF16)"
    return Finding(State.OK, "processor", f"{os.cpu_count()} cores, precision {precision}")


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux; the engine still finds out for itself
        return set()
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def _gpu() -> Finding:
    if not Path("/proc/driver/nvidia/version").exists():
        return Finding(State.NOTE, "GPU", "no NVIDIA driver; networks run on the processor")
    tensorrt = _installed("tensorrt")
    return Finding(State.NOTE, "GPU", f"NVIDIA driver found, TensorRT {tensorrt or 'not installed'}; not used yet")


def _engines() -> Iterator[Finding]:
    found = {package: _installed(package) for package in ("openvino", "onnxruntime")}
    for package, number in found.items():
        if number:
            yield Finding(State.OK, package, number)
        else:
            yield Finding(State.NOTE, package, f"not installed; pip install {package}")
    if not any(found.values()):
        yield Finding(State.FAILED, "engines", "none is installed; pip install openvino")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _models() -> Iterator[Finding]:
    if not shipped_models():
        yield Finding(State.FAILED, "models", "none are shipped with this installation; install hrtemd again")
    for name in shipped_models():
        try:
            manifest = find_model(name).manifest
        except HrtemdError as error:
            yield Finding(State.FAILED, f"model {name}", str(error))
        else:
            yield Finding(State.OK, f"model {name}", f"{manifest.version}, verified")


def _watched_folder(source: str, folder: Path) -> Iterator[Finding]:
    subject = f"source {source}"
    if not folder.is_dir():
        yield Finding(State.FAILED, subject, f"the folder {folder} does not exist; create it or mount its share")
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield Finding(State.FAILED, subject, f"{folder} may not be read by this user; change its permissions")
        return
    own, *below = file_systems_within(folder)
    yield Finding(State.OK, subject, f"{folder} is on {own.kind} ({own.type} at {own.mount_point})")
    for system in (own, *below):
        if system.needs_polling:
            silent = (
                f"{system.mount_point} ({system.kind}) does not announce new files; all of it is listed every second"
            )
            yield Finding(State.NOTE, subject, silent)


def _results_folder(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(State.FAILED, "results", f"{existing} may not be written by this user; change its permissions")
    file_system = file_system_of(existing)
    return Finding(State.OK, "results", f"{folder} can be written, on {file_system.kind} ({file_system.type})")


def _timing(configuration: Configuration | None, load_recogniser: Callable[[ModelPackage, str], Recogniser]) -> Finding:
    """Time a frame with the first source's model, or the first one shipped."""
    sources = configuration.sources if configuration else []
    name = next(iter([model for source in sources for model in source.all_models] + shipped_models()), None)
    if name is None:
        return Finding(State.FAILED, "a frame", "cannot be timed without a model")
    backend = configuration.recognition.backend if configuration else "auto"
    try:
        package = find_model(name)
        recogniser = load_recogniser(package, backend)
        pixel_size = package.manifest.sampling_angstrom
        recogniser.warm_up(TIMED_SHAPE, pixel_size)
        frame = _synthetic_frame(pixel_size)
        times_ms = [_milliseconds(recogniser, frame) for _ in range(_REPEATS)]
    except HrtemdError as error:
        return Finding(State.FAILED, "a frame", str(error))
    height, width = TIMED_SHAPE
    return Finding(
        State.OK,
        "a frame",
        f"{height} by {width} pixels of {pixel_size:g} Å take {median(times_ms):.0f} ms "
        f"with model {package.manifest.name} on {recogniser.backend}",
    )


def _milliseconds(recogniser: Recogniser, frame: Frame) -> float:
    started = perf_counter()
    recogniser.recognise(frame)
    return 1e3 * (perf_counter() - started)


def _synthetic_frame(pixel_size_angstrom: float) -> Frame:
    """Make a frame of a square lattice of 2.5 Å under noise."""
    height, width = TIMED_SHAPE
    phase_per_pixel = 2 * np.pi * pixel_size_angstrom / 2.5
    rows = np.cos(phase_per_pixel * np.arange(height))[:, None]
    columns = np.cos(phase_per_pixel * np.arange(width))[None, :]
    noise = np.random.default_rng(0).normal(0.0, 0.5, TIMED_SHAPE)
    pixels: NDArray[np.float32] = (10.0 + rows + columns + noise).astype(np.float32)
    calibration = Calibration(pixel_size_angstrom, CalibrationSource.OVERRIDE)
    return Frame(pixels, make_frame_id("doctor", None, 0, pixels), "synthetic", calibration)
