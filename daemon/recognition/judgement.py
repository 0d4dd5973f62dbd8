"""What a frame or series and its atoms say against trusting them.

The network is judged by the specimen's own geometry.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.errors import CalibrationError
from daemon.frames import Calibration, FocalSeries, Frame
from daemon.recognition.package import Manifest, Range, StatedRanges, is_within
from daemon.recognition.peaks import Peaks
from daemon.recognition.scale import estimate_graphene_pixel_size

LEAST_SITES = 10
"""Fewer say nothing about a lattice."""

SITES_ASKED = 1000
"""Or fewer, all over the frame: of more, each would cost time and tell nothing new."""

LEAST_MEAN_PROBABILITY = 0.8

BOND_TOLERANCE = 0.04
NEIGHBOUR_REACH_BONDS = 1.3
"""Between the first (1) and second (1.73) neighbours of a honeycomb."""
SHELL_REACH_BONDS = 2.25
SITES_IN_SHELL = 12
"""In a perfect sheet, within `SHELL_REACH_BONDS`."""
LEAST_IN_SHELL = 10
"""A site with this many others there stands inside the sheet."""
LEAST_THREE_COORDINATED = 0.85
"""Share of a sheet's inner sites, however damaged it is."""
LEAST_UNLIKE = 0.85
"""Share of bonds between a metal and sulphur, in sheets with antisites and grain boundaries too; by chance 0.5."""


@dataclass(frozen=True)
class _Honeycomb:
    """A sheet whose sites, seen along the beam, have three neighbours each.

    Attributes:
        name: Of the material.
        bond_angstrom: Between neighbours, as seen.
        largest_bond_spread_angstrom: Standard deviation that only wrong sites exceed.
    """

    name: str
    bond_angstrom: float
    largest_bond_spread_angstrom: float


# Sheets that are found rightly stay below 0.09 Å, strained and damaged ones included.
GRAPHENE = _Honeycomb("graphene", 1.42, 0.115)
# Sites of a lower dose lie 0.1 Å off along each axis; sites at random give 0.3 Å.
MOS2 = _Honeycomb("MoS2", 1.824, 0.22)
MOS2_METALS, MOS2_SULPHURS = ("Mo",), ("S2", "S")

_Check = tuple[str, float | None, Range, str]
"""What is checked, its value where it is known, what the model was trained for, and the unit."""

PARTNER_TOLERANCE_ANGSTROM = 0.4
COLUMN_REACH_ANGSTROM = 3.2
"""The farthest that neighbouring columns of fcc metals stand apart, seen along ⟨100⟩, ⟨110⟩ or ⟨111⟩, is 2.9 Å."""
LEAST_WITH_PARTNER = 0.3
"""Share of columns that stand in line between two neighbours: 0.45 in clusters of a dozen, to 1; in noise 0.1."""


def judge(subject: Frame | FocalSeries, calibration: Calibration, peaks: Peaks, manifest: Manifest) -> list[str]:
    """Collect warnings about one frame or series.

    Args:
        subject: As acquired.
        calibration: The pixel size used.
        peaks: What will be reported, in acquired pixels, calibrated.
        manifest: Of the model.

    Returns:
        One sentence each; empty where nothing speaks against the result.
    """
    warnings = _outside_range(subject, calibration, manifest)
    positions = peaks.positions * calibration.pixel_size_angstrom
    if len(positions) < LEAST_SITES:
        nothing = f"No lattice was found: {len(positions)} {manifest.kind}s in the whole frame."
        return [*warnings, nothing + _scale_hint(subject, calibration, manifest)]
    mean_probability = float(peaks.probability.mean())
    if mean_probability < LEAST_MEAN_PROBABILITY:
        warnings.append(
            f"The network is unsure: the {manifest.kind}s found have a mean probability of {mean_probability:.2f}. "
            "More dose, or a focus of more contrast, would help."
        )
    return warnings + _judge_geometry(positions, calibration, peaks, manifest)


def shows_lattice(calibration: Calibration, peaks: Peaks, manifest: Manifest) -> bool:
    """Whether what was found surely is the specimen's lattice; arguments as of `judge`."""
    return (
        len(peaks.positions) >= LEAST_SITES
        and float(peaks.probability.mean()) >= LEAST_MEAN_PROBABILITY
        and not _judge_geometry(peaks.positions * calibration.pixel_size_angstrom, calibration, peaks, manifest)
    )


def _judge_geometry(
    positions: NDArray[np.floating], calibration: Calibration, peaks: Peaks, manifest: Manifest
) -> list[str]:
    if manifest.specimen == "graphene":
        return _judge_sheet(_Neighbours.of(positions, GRAPHENE), calibration, GRAPHENE)
    if manifest.specimen == "mos2":
        neighbours = _Neighbours.of(positions, MOS2)
        return _judge_sheet(neighbours, calibration, MOS2) + _judge_elements(neighbours, peaks, manifest)
    return _judge_columns(positions, calibration)


def _outside_range(subject: Frame | FocalSeries, calibration: Calibration, manifest: Manifest) -> list[str]:
    ranges = manifest.ranges
    checks: list[_Check] = [("pixel size", calibration.pixel_size_angstrom, ranges.pixel_size_angstrom, "Å")]
    for frame in subject.frames:
        checks += [
            ("dose", frame.acquisition.dose_per_square_angstrom, ranges.dose_per_square_angstrom, "e/Å²"),
            ("voltage", frame.acquisition.voltage_kv, ranges.voltage_kv, "kV"),
        ]
    checks += _defocus_checks(subject, ranges)
    # The frames of a series may all say the same: once is enough.
    return [
        f"The {name}, {value:g} {unit}, is outside of what the model {manifest.name} was trained for "
        f"({low:g} to {high:g} {unit}).{_sign_hint(name, value, (low, high))}"
        for name, value, (low, high), unit in dict.fromkeys(checks)
        if value is not None and not is_within(value, low, high)
    ]


def _sign_hint(name: str, value: float, within: Range) -> str:
    """Programs differ in the sign they give to underfocus."""
    if not name.startswith("defocus") or not is_within(-value, *within):
        return ""
    return f" {-value:g} Å is inside: here defocus is positive for underfocus; does your program mean the opposite?"


def _defocus_checks(subject: Frame | FocalSeries, ranges: StatedRanges) -> list[_Check]:
    if isinstance(subject, Frame):
        return [("defocus", subject.acquisition.defocus_angstrom, ranges.defocus_angstrom, "Å")]
    over, middle, under = subject.defocus_angstrom
    checks: list[_Check] = [("defocus of the middle frame", middle, ranges.defocus_angstrom, "Å")]
    if ranges.defocus_step_angstrom is not None:
        steps = (middle - over, under - middle)
        checks += [("defocus step", step, ranges.defocus_step_angstrom, "Å") for step in steps]
    return checks


def _scale_hint(subject: Frame | FocalSeries, calibration: Calibration, manifest: Manifest) -> str:
    """Say so where the frame shows a lattice that only another pixel size makes graphene's."""
    if manifest.specimen != "graphene" or not isinstance(subject, Frame):
        return ""
    try:
        fitting = estimate_graphene_pixel_size(subject.pixels)
    except CalibrationError:
        return ""
    used = calibration.pixel_size_angstrom
    if abs(fitting / used - 1) <= BOND_TOLERANCE:
        return ""
    return f" But graphene's rings fit a pixel size of {fitting:.4f} Å; is {used:g} Å right?"


@dataclass(frozen=True)
class _Neighbours:
    """Sites of a sheet, `SITES_ASKED` of them or fewer, and what stands close to each.

    Attributes:
        coordination: Shape (asked,), how many are as close as a bond.
        is_inside: Shape (asked,), whether it stands inside the sheet.
        bonds: Shape (bonds, 2), the sites at both ends.
        lengths: Shape (bonds,), in Å.
    """

    coordination: NDArray[np.intp]
    is_inside: NDArray[np.bool_]
    bonds: NDArray[np.intp]
    lengths: NDArray[np.floating]

    @classmethod
    def of(cls, positions: NDArray[np.floating], sheet: _Honeycomb) -> "_Neighbours":
        asked = _asked(len(positions))
        # A tree that is not balanced is built in half of the time, and here no slower to ask.
        tree = cKDTree(positions, compact_nodes=False, balanced_tree=False)
        distances, neighbours = tree.query(
            positions[asked], k=1 + SITES_IN_SHELL, distance_upper_bound=SHELL_REACH_BONDS * sheet.bond_angstrom
        )
        distances, neighbours = distances[:, 1:], neighbours[:, 1:]  # the nearest to a site is the site itself
        are_bonds = distances <= NEIGHBOUR_REACH_BONDS * sheet.bond_angstrom
        coordination = are_bonds.sum(axis=1)
        return cls(
            coordination=coordination,
            is_inside=np.isfinite(distances).sum(axis=1) >= LEAST_IN_SHELL,
            bonds=np.stack([np.repeat(asked, coordination), neighbours[are_bonds]], axis=1),
            lengths=distances[are_bonds],
        )


def _asked(sites: int) -> NDArray[np.intp]:
    """Shape (asked,): indices of so many sites, all over the frame, that more would tell nothing new."""
    return np.arange(0, sites, 1 + sites // SITES_ASKED)


def _judge_sheet(neighbours: _Neighbours, calibration: Calibration, sheet: _Honeycomb) -> list[str]:
    lengths, inside = neighbours.lengths, neighbours.is_inside
    if len(lengths) < 2 * LEAST_SITES:  # each is seen from both of its ends
        return ["The atoms found are no sheet: hardly any two are as close as a bond. Is the pixel size right?"]
    bond, spread = float(np.median(lengths)), float(lengths.std())
    share = float(np.mean(neighbours.coordination[inside] == 3)) if inside.any() else 0.0

    warnings = []
    if abs(bond / sheet.bond_angstrom - 1) > BOND_TOLERANCE:
        fitting = calibration.pixel_size_angstrom * sheet.bond_angstrom / bond
        warnings.append(
            f"Bonds of {bond:.2f} Å are not {sheet.name}'s {sheet.bond_angstrom:.2f} Å; "
            f"a pixel size of {fitting:.4f} Å would fit."
        )
    if share < LEAST_THREE_COORDINATED or spread > sheet.largest_bond_spread_angstrom:
        warnings.append(
            f"The atoms found contradict {sheet.name}'s geometry: {share:.0%} of those inside the sheet have three "
            f"neighbours, and bond lengths scatter by {spread:.2f} Å. Do not trust them without looking; "
            "focus, astigmatism or dose may be outside of what the model knows."
        )
    return warnings


def _judge_elements(neighbours: _Neighbours, peaks: Peaks, manifest: Manifest) -> list[str]:
    """In MoS2 the neighbours of a metal are sulphur; an empty site or a foreign atom may stand for either."""
    side_of_class = np.array([(name in MOS2_METALS) - (name in MOS2_SULPHURS) for name in manifest.classes])
    side = side_of_class[peaks.class_probability.argmax(axis=1)]
    product = side[neighbours.bonds].prod(axis=1)
    unlike, told = int((product < 0).sum()), int((product != 0).sum())
    if told < LEAST_SITES or unlike >= LEAST_UNLIKE * told:
        return []
    return [
        f"The elements found contradict MoS2's lattice: only {unlike / told:.0%} of the bonds are between Mo and S. "
        "Do not trust species and vacancies without looking; dose, or the defocus of the frames, may be outside of "
        "what the model knows."
    ]


def _judge_columns(positions: NDArray[np.floating], calibration: Calibration) -> list[str]:
    tree = cKDTree(positions)
    pairs = tree.query_pairs(COLUMN_REACH_ANGSTROM, output_type="ndarray")
    is_asked = np.zeros(len(positions), bool)
    is_asked[_asked(len(positions))] = True
    site, neighbour = np.concatenate([pairs, pairs[:, ::-1]])[is_asked[pairs].ravel(order="F")].T
    distance, _ = tree.query(2 * positions[site] - positions[neighbour])
    in_line = np.zeros(len(positions), bool)
    in_line[site[distance < PARTNER_TOLERANCE_ANGSTROM]] = True
    share = float(in_line[is_asked].mean())
    if share >= LEAST_WITH_PARTNER:
        return []
    return [
        f"The columns found form no lattice: only {share:.0%} have neighbours on opposite sides. They may be noise, "
        f"film, or a crystal off its zone axis; and is {calibration.pixel_size_angstrom:g} Å per pixel right?"
    ]
