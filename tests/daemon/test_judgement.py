import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from daemon import demo
from daemon.frames import Acquisition, Calibration, CalibrationSource, FocalSeries, Frame
from daemon.readers import read_frames
from daemon.recognition.judgement import judge
from daemon.recognition.package import Manifest, StatedRanges
from daemon.recognition.peaks import Peaks

GRAPHENE_SAMPLE = Path(demo.__file__).parent / "samples" / "graphene-sheet.tif"
PIXEL_SIZE = 0.2
MOS2_CLASSES = ("Mo", "S2", "S", "vacancy", "substitution")


def manifest(specimen: str) -> Manifest:
    return Manifest.model_validate(
        {
            "name": specimen,
            "version": "1.0",
            "task": "positions",
            "specimen": specimen,
            "kind": "atom" if specimen == "graphene" else "column",
            "input_frames": 3 if specimen == "mos2" else 1,
            "sampling_angstrom": 0.2,
            "stride": 2,
            "input_multiple": 16,
            "receptive_field_pixels": 100,
            "classes": MOS2_CLASSES if specimen == "mos2" else ["C"],
            "ranges": StatedRanges(
                pixel_size_angstrom=(0.03, 0.65),
                dose_per_square_angstrom=(300, 1e6),
                voltage_kv=(80, 80),
                spherical_aberration_um=(-20, 20),
                defocus_angstrom=(-110, 60) if specimen == "mos2" else (-110, 110),
                defocus_step_angstrom=(25, 55),
            ),
            "probability_threshold": 0.5,
            "calibration": {},
            "onnx_opset": 18,
            "onnx_sha256": "0" * 64,
            "recipe": "r",
            "seed": 0,
            "dataset_specimens": 1,
            "training_seconds": 1,
            "package_versions": {},
        }
    )


def sheet(bond: float = 1.42, side: float = 50.0) -> np.ndarray:
    a = bond * np.sqrt(3)
    i, j = np.mgrid[-60:60, -60:60]
    cells = np.stack([a * (i + 0.5 * j), a * np.sqrt(0.75) * j], axis=-1).reshape(-1, 2)
    atoms = np.concatenate([cells, cells + [0, bond]])
    return atoms[((atoms > 0) & (atoms < side)).all(axis=1)]


def square(spacing: float = 2.04, side: float = 30.0) -> np.ndarray:
    grid = np.arange(5, side, spacing)
    return np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)


def warnings_for(
    positions_angstrom: np.ndarray,
    specimen: str = "graphene",
    probability: float = 0.99,
    pixel_size: float = PIXEL_SIZE,
    acquisition: Acquisition = Acquisition(),  # noqa: B008
) -> list[str]:
    count = len(positions_angstrom)
    peaks = Peaks(
        (positions_angstrom / pixel_size).astype(np.float32),
        np.full(count, probability, np.float32),
        np.full(count, 0.3, np.float32),
        np.ones((count, 1), np.float32),
    )
    frame = Frame(np.zeros((250, 250), np.uint16), "id", "frame", acquisition=acquisition)
    return judge(frame, Calibration(pixel_size, CalibrationSource.METADATA), peaks, manifest(specimen))


@pytest.mark.parametrize("jitter_angstrom", [0.0, 0.05])
def test_a_sheet_gives_no_warning(jitter_angstrom: float) -> None:
    atoms = sheet()
    assert warnings_for(atoms + np.random.default_rng(0).normal(0, jitter_angstrom, atoms.shape)) == []


def test_a_sheet_with_holes_and_an_edge_gives_no_warning() -> None:
    atoms = sheet()
    hole = np.hypot(*(atoms - [20, 25]).T) < 8
    edge = atoms[:, 0] > 38 + 3 * np.sin(atoms[:, 1])

    assert warnings_for(atoms[~hole & ~edge]) == []


def test_a_particle_gives_no_warning() -> None:
    assert warnings_for(square(), "nanoparticle") == []


def test_hexagon_centres_among_the_atoms_are_noticed() -> None:
    atoms = sheet()
    centres = atoms[::2] + [0, -1.42]

    assert any("contradict" in w for w in warnings_for(np.concatenate([atoms, centres[::3]])))


def test_atoms_missing_at_random_are_noticed() -> None:
    atoms = sheet()
    kept = np.random.default_rng(0).random(len(atoms)) > 0.12

    assert any("contradict" in w for w in warnings_for(atoms[kept]))


@pytest.mark.parametrize("factor", [0.88, 1.12])
def test_a_wrong_pixel_size_is_noticed_and_the_right_one_named(factor: float) -> None:
    warnings = warnings_for(sheet(bond=1.42 * factor), pixel_size=0.2 * factor)

    assert any("a pixel size of 0.2000 Å would fit" in w for w in warnings)


def test_noise_is_no_lattice() -> None:
    noise = np.random.default_rng(0).uniform(0, 50, (200, 2))

    assert any("form no lattice" in w for w in warnings_for(noise, "nanoparticle"))
    assert any("contradict" in w for w in warnings_for(np.random.default_rng(0).uniform(0, 50, (900, 2))))


@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("specimen", ["graphene", "nanoparticle"])
def test_hardly_anything_found_is_said(count: int, specimen: str) -> None:
    assert any("No lattice was found" in w for w in warnings_for(sheet()[:count], specimen))


def test_atoms_too_far_apart_for_bonds_are_said() -> None:
    assert any("no sheet" in w for w in warnings_for(square(spacing=4.0, side=50)))


def test_an_unsure_network_says_so() -> None:
    assert any("unsure" in w for w in warnings_for(sheet(), probability=0.6))


@pytest.mark.parametrize(
    ("acquisition", "name"),
    [
        (Acquisition(dose_per_square_angstrom=20), "dose"),
        (Acquisition(voltage_kv=300), "voltage"),
        (Acquisition(defocus_angstrom=900), "defocus"),
    ],
)
def test_conditions_outside_of_the_training_are_said(acquisition: Acquisition, name: str) -> None:
    assert any(f"The {name}," in w and "trained for" in w for w in warnings_for(sheet(), acquisition=acquisition))


@pytest.mark.parametrize("defocus_angstrom", [-110.0, 110.0])
def test_the_ends_of_a_range_belong_to_it(defocus_angstrom: float) -> None:
    assert warnings_for(sheet(), acquisition=Acquisition(defocus_angstrom=defocus_angstrom)) == []


def mos2_sheet(bond: float = 1.824, side: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Sites of a perfect sheet and their classes, as indices of `MOS2_CLASSES`."""
    a = bond * np.sqrt(3)
    i, j = np.mgrid[-60:60, -60:60]
    cells = np.stack([a * (i + 0.5 * j), a * np.sqrt(0.75) * j], axis=-1).reshape(-1, 2)
    sites = np.concatenate([cells, cells + [0, bond]])
    classes = np.repeat([0, 1], len(cells))
    inside = ((sites > 0) & (sites < side)).all(axis=1)
    return sites[inside], classes[inside]


def focal_series(
    defocus: tuple[float, float, float] = (-130.0, -90.0, -50.0),
    doses: tuple[float, float, float] = (1000.0, 1000.0, 1000.0),
    voltage_kv: float = 80.0,
) -> FocalSeries:
    frames = [
        Frame(
            np.zeros((300, 300), np.uint16),
            "id",
            f"frame-{index}",
            acquisition=Acquisition(defocus[index], doses[index], voltage_kv),
        )
        for index in range(3)
    ]
    return FocalSeries((frames[0], frames[1], frames[2]), 0, "id", "series")


def mos2_warnings(
    sites: np.ndarray,
    classes: np.ndarray,
    series: FocalSeries | None = None,
    pixel_size: float = PIXEL_SIZE,
) -> list[str]:
    count = len(sites)
    peaks = Peaks(
        (sites / pixel_size).astype(np.float32),
        np.full(count, 0.99, np.float32),
        np.full(count, 0.3, np.float32),
        np.eye(len(MOS2_CLASSES), dtype=np.float32)[classes],
    )
    calibration = Calibration(pixel_size, CalibrationSource.METADATA)
    return judge(series or focal_series(), calibration, peaks, manifest("mos2"))


def damaged_mos2() -> tuple[np.ndarray, np.ndarray]:
    """With vacancies of every kind, substitutions, antisites, a line of vacancies, a hole, an edge, and errors."""
    rng = np.random.default_rng(0)
    sites, classes = mos2_sheet()
    chance = rng.random(len(sites))
    classes = classes.copy()
    classes[(classes == 1) & (chance < 0.15)] = 2
    classes[chance > 0.96] = 3
    classes[(chance > 0.94) & (chance < 0.96)] = 4
    classes[(chance > 0.93) & (chance < 0.94)] ^= 1
    classes[(np.abs(sites[:, 1] - 40) < 1) & (classes == 1)] = 3
    gone = (np.hypot(*(sites - [20, 15]).T) < 8) | (sites[:, 0] > 52 + 3 * np.sin(sites[:, 1]))
    sites = sites + rng.normal(0, 0.1, sites.shape)
    return sites[~gone], classes[~gone]


@pytest.mark.parametrize("sheet_of", [mos2_sheet, damaged_mos2])
def test_mos2_gives_no_warning(sheet_of: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    assert mos2_warnings(*sheet_of()) == []


def test_elements_at_random_are_noticed() -> None:
    sites, classes = damaged_mos2()

    warnings = mos2_warnings(sites, np.random.default_rng(0).permutation(classes))

    assert any("The elements found contradict MoS2's lattice" in w for w in warnings)


def test_hexagon_centres_among_the_sites_are_noticed() -> None:
    sites, classes = mos2_sheet()
    centres = sites[classes == 0][::3] + [0, -1.824]

    warnings = mos2_warnings(np.concatenate([sites, centres]), np.append(classes, np.full(len(centres), 3)))

    assert any("contradict MoS2's geometry" in w for w in warnings)


def test_sites_at_random_are_noticed() -> None:
    rng = np.random.default_rng(0)
    sites = rng.uniform(0, 60, (900, 2))

    assert any("contradict MoS2's geometry" in w for w in mos2_warnings(sites, rng.integers(0, 3, 900)))


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_pixel_size_of_mos2_is_noticed(factor: float) -> None:
    sites, classes = mos2_sheet(bond=1.824 * factor)

    warnings = mos2_warnings(sites, classes, pixel_size=0.2 * factor)

    assert any("a pixel size of 0.2000 Å would fit" in w for w in warnings)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (focal_series(defocus=(110.0, 150.0, 190.0)), "The defocus of the middle frame, 150 Å, is outside"),
        (focal_series(defocus=(-100.0, -90.0, -50.0)), "The defocus step, 10 Å, is outside"),
        (focal_series(defocus=(-160.0, -90.0, -20.0)), "The defocus step, 70 Å, is outside"),
        (focal_series(doses=(1000.0, 100.0, 1000.0)), "The dose, 100 e/Å², is outside"),
        (focal_series(voltage_kv=300.0), "The voltage, 300 kV, is outside"),
    ],
)
def test_each_condition_of_a_series_outside_of_the_training_is_said_once(series: FocalSeries, expected: str) -> None:
    (warning,) = mos2_warnings(*mos2_sheet(), series)

    assert warning.startswith(expected)


def test_the_outer_frames_of_a_series_may_lie_outside_of_the_range_of_the_middle_one() -> None:
    assert mos2_warnings(*mos2_sheet(), focal_series(defocus=(-150.0, -100.0, -50.0))) == []


@pytest.mark.parametrize(("factor", "is_told"), [(0.5, True), (2.5, True), (1.02, False)])
def test_a_lattice_that_is_there_at_another_pixel_size_is_told(factor: float, is_told: bool) -> None:
    true = 0.12
    frame, empty = next(iter(read_frames(GRAPHENE_SAMPLE))), np.zeros(0, np.float32)
    assert isinstance(frame, Frame)
    nothing = Peaks(empty.reshape(0, 2), empty, empty, empty.reshape(0, 1))

    (warning,) = judge(frame, Calibration(factor * true, CalibrationSource.METADATA), nothing, manifest("graphene"))

    assert "No lattice was found" in warning
    hint = re.search(r"graphene's rings fit a pixel size of ([0-9.]+) Å; is", warning)
    assert bool(hint) is is_told
    if hint:
        assert float(hint[1]) == pytest.approx(true, rel=0.03)


def test_a_defocus_of_the_other_sign_is_told() -> None:
    wrong = mos2_warnings(*mos2_sheet(), series=focal_series(defocus=(50.0, 90.0, 130.0)))

    assert any("-90 Å is inside: here defocus is positive for underfocus" in warning for warning in wrong)
