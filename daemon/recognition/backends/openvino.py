"""OpenVINO: the fastest engine on CPUs; bf16 where the processor computes in it."""

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
        compiled = openvino.Core().compile_model(str(onnx_path), "CPU", settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile {onnx_path}: {error}") from error
    return OpenVINOSession(compiled, precision)


def computes_in_bf16() -> bool:
    """Whether this processor does; on others bf16 is emulated, many times slower than f32."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


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
