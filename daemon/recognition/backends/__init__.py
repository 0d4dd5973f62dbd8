"""Inference engines, one module each, and the choice between them."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.errors import BackendError

ENGINES = ("openvino", "onnxruntime")
"""Modules of this package, preferred first. Each has `load(onnx_path) -> Session`."""


class Session(Protocol):
    """A network, compiled for one device."""

    @property
    def description(self) -> str:
        """Engine, device and precision, such as `openvino CPU bf16`."""

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (batch, frames, height, width) to the heads (batch, channels, rows, columns).

        Raises:
            BackendError: The engine failed, for want of memory for example.
        """


def open_session(onnx_path: Path, engine: str = "auto") -> Session:
    """Compile a network with the engine named, or with the first one that works here.

    Raises:
        BackendError: The engine named, or every engine, cannot run it; the message says why for each.
    """
    failures = []
    for name in _candidates(engine):
        try:
            module: Any = importlib.import_module(f"{__name__}.{name}")
            session: Session = module.load(onnx_path)
        except (ImportError, BackendError) as error:
            failures.append(f"{name}: {error}")
        else:
            return session
    raise BackendError(f"No inference engine can run {onnx_path}. " + "; ".join(failures))


def _candidates(engine: str) -> Sequence[str]:
    if engine == "auto":
        return ENGINES
    if engine not in ENGINES:
        raise BackendError(f"There is no backend {engine!r}; choose one of auto, {', '.join(ENGINES)}.")
    return (engine,)
