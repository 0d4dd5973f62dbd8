"""ONNX Runtime: runs wherever Python runs, the fallback where OpenVINO does not."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from daemon.errors import BackendError


def load(onnx_path: Path) -> "OnnxRuntimeSession":
    """Open a network on the CPU.

    Raises:
        BackendError: ONNX Runtime cannot read or run it.
    """
    try:
        session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot open {onnx_path}: {error}") from error
    return OnnxRuntimeSession(session)


class OnnxRuntimeSession:
    """A network run by ONNX Runtime in f32."""

    description = "onnxruntime CPU f32"

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `daemon.recognition.backends.Session`."""
        try:
            heads: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        except Exception as error:  # its exceptions share no base class
            raise BackendError(f"ONNX Runtime failed on input of shape {images.shape}: {error}") from error
        return heads
