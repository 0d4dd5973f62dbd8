"""OpenVINO: the fastest engine on CPUs; bf16 where the processor computes in it."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from daemon.errors import BackendError


def load(onnx_path: Path) -> "OpenVINOSession":
    """Compile a network for this CPU.

    Raises:
        BackendError: OpenVINO cannot read or compile it.
    """
    # Asked for by name: OpenVINO's own default may fall back to f32 on processors with AVX512-BF16 but no AMX.
    precision = "bf16" if computes_in_bf16() else "f32"
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = _core().compile_model(str(onnx_path), "CPU", settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile {onnx_path}: {error}") from error
    return OpenVINOSession(compiled, precision)


def computes_in_bf16() -> bool:
    """Whether this processor does; on others bf16 is emulated, many times slower than f32."""
    return "BF16" in _capabilities(_core())


@lru_cache(maxsize=1)
def _core() -> openvino.Core:
    """Return the process's one engine, whose plugin for CPUs was loaded in a thread of its own.

    The plugin gives the thread that loads it another stack for signals, and frees that stack with itself (OpenVINO
    2022.2 to 2026, `SigAltStackSetup`). In the main thread, the next signal after that would end the process.
    """

    def load_plugin() -> openvino.Core:
        core = openvino.Core()
        _capabilities(core)
        return core

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(load_plugin).result()


def _capabilities(core: openvino.Core) -> list[str]:
    found: list[str] = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


class OpenVINOSession:
    """A network compiled by OpenVINO. Not to be used by two threads at once."""

    def __init__(self, compiled: openvino.CompiledModel, precision: str) -> None:
        self._request = compiled.create_infer_request()
        self.description = f"openvino CPU {precision}"

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `daemon.recognition.backends.Session`."""
        try:
            results = self._request.infer([images])
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on input of shape {images.shape}: {error}") from error
        heads: NDArray[np.float32] = results[0].astype(np.float32)
        return heads
