"""What a frame and its atoms say against trusting them: the network is judged by the specimen's own geometry."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.frames import Calibration, Frame
from daemon.recognition.package import Manifest
from daemon.recognition.peaks import Peaks

LEAST_SITES = 10
"""Fewer say nothing about a lattice."""

LEAST_MEAN_PROBABILITY = 0.8

BOND_ANGSTROM = 1.42
BOND_TOLERANCE = 0.04
NEIGHBOUR_REACH_ANGSTROM = 1.85
"""Between graphene's first (1.42 Å) and second (2.46 Å) neighbours."""
SHELL_REACH_ANGSTROM = 3.2
LEAST_IN_SHELL = 10
"""An atom with this many others within `SHELL_REACH_ANGSTROM` (12 in a perfect sheet) stands inside the sheet."""
LEAST_THREE_COORDINATED = 0.85
"""Share of a sheet's inner atoms, however damaged it is."""
LARGEST_BOND_SPREAD_ANGSTROM = 0.115
"""Standard deviation. Sheets that are found rightly stay below 0.09 Å, strained and damaged ones included."""

PARTNER_TOLERANCE_ANGSTROM = 0.4
COLUMN_REACH_ANGSTROM = 3.2
"""The farthest that neighbouring columns of fcc metals stand apart, seen along ⟨100⟩, ⟨110⟩ or ⟨111⟩, is 2.9 Å."""
LEAST_WITH_PARTNER = 0.3
"""Share of columns that stand in line between two neighbours: 0.45 in clusters of a dozen, to 1; in noise 0.1."""


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
    positions = peaks.positions * calibration.pixel_size_angstrom
    if len(positions) < LEAST_SITES:
        return [*warnings, f"No lattice was found: {len(positions)} {manifest.kind}s in the whole frame."]
    mean_probability = float(peaks.probability.mean())
    if mean_probability < LEAST_MEAN_PROBABILITY:
        warnings.append(
            f"The network is unsure: the {manifest.kind}s found have a mean probability of {mean_probability:.2f}. "
            "More dose, or a focus of more contrast, would help."
        )
    geometry = _judge_sheet if manifest.specimen == "graphene" else _judge_columns
    return warnings + geometry(positions, calibration)


def _outside_range(frame: Frame, calibration: Calibration, manifest: Manifest) -> list[str]:
    ranges, acquisition = manifest.ranges, frame.acquisition
    checks = (
        ("pixel size", calibration.pixel_size_angstrom, ranges.pixel_size_angstrom, "Å"),
        ("dose", acquisition.dose_per_square_angstrom, ranges.dose_per_square_angstrom, "e/Å²"),
        ("voltage", acquisition.voltage_kv, ranges.voltage_kv, "kV"),
        ("defocus", acquisition.defocus_angstrom, ranges.defocus_angstrom, "Å"),
    )
    return [
        f"The {name}, {value:g} {unit}, is outside of what the model {manifest.name} was trained for "
        f"({low:g} to {high:g} {unit})."
        for name, value, (low, high), unit in checks
        if value is not None and not low * 0.999 <= value <= high * 1.001
    ]


def _judge_sheet(positions: NDArray[np.floating], calibration: Calibration) -> list[str]:
    tree = cKDTree(positions)
    bonds = tree.query_pairs(NEIGHBOUR_REACH_ANGSTROM, output_type="ndarray")
    if len(bonds) < LEAST_SITES:
        return ["The atoms found are no sheet: hardly any two are as close as a bond. Is the pixel size right?"]
    lengths = np.hypot(*(positions[bonds[:, 0]] - positions[bonds[:, 1]]).T)
    coordination = np.bincount(bonds.ravel(), minlength=len(positions))
    shell = tree.query_ball_point(positions, SHELL_REACH_ANGSTROM, return_length=True) - 1
    inside = shell >= LEAST_IN_SHELL
    bond, spread = float(np.median(lengths)), float(lengths.std())
    share = float(np.mean(coordination[inside] == 3)) if inside.any() else 0.0

    warnings = []
    if abs(bond / BOND_ANGSTROM - 1) > BOND_TOLERANCE:
        fitting = calibration.pixel_size_angstrom * BOND_ANGSTROM / bond
        warnings.append(
            f"Bonds of {bond:.2f} Å are not graphene's {BOND_ANGSTROM} Å; a pixel size of {fitting:.4f} Å would fit."
        )
    if share < LEAST_THREE_COORDINATED or spread > LARGEST_BOND_SPREAD_ANGSTROM:
        warnings.append(
            f"The atoms found contradict graphene's geometry: {share:.0%} of those inside the sheet have three "
            f"neighbours, and bond lengths scatter by {spread:.2f} Å. Do not trust them without looking; "
            "focus, astigmatism or dose may be outside of what the model knows."
        )
    return warnings


def _judge_columns(positions: NDArray[np.floating], calibration: Calibration) -> list[str]:
    tree = cKDTree(positions)
    pairs = tree.query_pairs(COLUMN_REACH_ANGSTROM, output_type="ndarray")
    site, neighbour = np.concatenate([pairs, pairs[:, ::-1]]).T
    distance, _ = tree.query(2 * positions[site] - positions[neighbour])
    in_line = np.zeros(len(positions), bool)
    in_line[site[distance < PARTNER_TOLERANCE_ANGSTROM]] = True
    share = float(in_line.mean())
    if share >= LEAST_WITH_PARTNER:
        return []
    return [
        f"The columns found form no lattice: only {share:.0%} have neighbours on opposite sides. They may be noise, "
        f"film, or a crystal off its zone axis; and is {calibration.pixel_size_angstrom:g} Å per pixel right?"
    ]
