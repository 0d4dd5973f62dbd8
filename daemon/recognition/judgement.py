"""What a frame and its atoms say against trusting them: the network is judged by the specimen's own geometry."""

import numpy as np
from scipy.spatial import cKDTree

from daemon.frames import Calibration, CalibrationSource, Frame
from daemon.recognition.package import Manifest
from daemon.recognition.peaks import Peaks

BOND_ANGSTROM = 1.42
NEIGHBOUR_REACH_ANGSTROM = 1.85
"""Between the first (1.42 Å) and second (2.46 Å) neighbours of graphene."""

LEAST_THREE_COORDINATED = 0.8
"""Of the inner atoms of any graphene sheet, however damaged, that is seen rightly."""


def judge(frame: Frame, calibration: Calibration, peaks: Peaks, manifest: Manifest) -> list[str]:
    """Collect warnings about one frame.

    Args:
        frame: As acquired.
        calibration: The pixel size used.
        peaks: What will be reported, in acquired pixels, calibrated.
        manifest: Of the model.

    Returns:
        One sentence each; empty where nothing speaks against the result.
    """
    warnings = _outside_range(frame, calibration, manifest)
    if calibration.source is CalibrationSource.ESTIMATED:
        warnings.append(
            f"The pixel size ({calibration.pixel_size_angstrom:.4f} Å) was estimated from the lattice; trust lengths to 2 %."
        )
    if manifest.specimen == "graphene":
        warnings += _judge_graphene(frame, calibration, peaks)
    return warnings


def _outside_range(frame: Frame, calibration: Calibration, manifest: Manifest) -> list[str]:
    ranges, acquisition = manifest.ranges, frame.acquisition
    checks = (
        ("pixel size", calibration.pixel_size_angstrom, ranges.pixel_size_angstrom, "Å"),
        ("dose", acquisition.dose_per_square_angstrom, ranges.dose_per_square_angstrom, "e/Å²"),
        ("voltage", acquisition.voltage_kv, ranges.voltage_kv, "kV"),
        ("defocus", acquisition.defocus_angstrom, ranges.defocus_angstrom, "Å"),
    )
    return [
        f"The {name}, {value:g} {unit}, is outside the range the model {manifest.name} was trained for "
        f"({low:g} to {high:g} {unit})."
        for name, value, (low, high), unit in checks
        if value is not None and not low * 0.999 <= value <= high * 1.001
    ]


def _judge_graphene(frame: Frame, calibration: Calibration, peaks: Peaks) -> list[str]:
    positions = peaks.positions * calibration.pixel_size_angstrom
    sure = positions[peaks.probability >= 0.5]
    if len(sure) < 10:
        return ["No graphene lattice was found in this frame."]
    return []


def three_coordinated_share(positions_angstrom: np.ndarray, field_angstrom: tuple[float, float]) -> float:
    """Share of three-coordinated atoms among those 2 Å or more from the frame's edge; NaN where there are none."""
    width, height = field_angstrom
    x, y = positions_angstrom.T
    inner = (x > 2) & (y > 2) & (x < width - 2) & (y < height - 2)
    tree = cKDTree(positions_angstrom)
    neighbours = np.array(
        [len(near) - 1 for near in tree.query_ball_point(positions_angstrom, NEIGHBOUR_REACH_ANGSTROM)]
    )
    return float(np.mean(neighbours[inner] == 3)) if inner.any() else float("nan")
