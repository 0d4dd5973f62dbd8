"""Frame in, atom table out."""

from dataclasses import dataclass

import pyarrow as pa

from daemon.frames import Calibration, Frame


@dataclass(frozen=True)
class Recognition:
    """What was found in one frame.

    Attributes:
        frame: The frame as acquired.
        calibration: The pixel size used: the frame's own, or one estimated from its lattice.
        table: The atom table (see `daemon.atoms`).
        warnings: Sentences for the operator: why these atoms may deserve less trust than their probabilities say.
        latency_ms: Milliseconds by stage: `prepare`, `infer`, `decode`.
        model: Name of the model.
        model_sha256: Hash of its network.
        backend: Engine, device and precision, such as `openvino CPU bf16`.
    """

    frame: Frame
    calibration: Calibration
    table: pa.Table
    warnings: list[str]
    latency_ms: dict[str, float]
    model: str
    model_sha256: str
    backend: str
