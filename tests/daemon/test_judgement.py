import numpy as np
import pytest

from daemon.frames import Acquisition, Calibration, CalibrationSource, Frame
from daemon.recognition.judgement import judge
from daemon.recognition.package import Manifest, StatedRanges
from daemon.recognition.peaks import Peaks

PIXEL_SIZE = 0.2


def manifest(specimen: str) -> Manifest:
    return Manifest.model_validate(
        {
            "name": specimen,
            "version": "1.0",
            "task": "positions",
            "specimen": specimen,
            "kind": "atom" if specimen == "graphene" else "column",
            "input_frames": 1,
            "sampling_angstrom": 0.2,
            "stride": 2,
            "input_multiple": 16,
            "receptive_field_pixels": 100,
            "classes": ["C"],
            "ranges": StatedRanges(
                pixel_size_angstrom=(0.03, 0.65),
                dose_per_square_angstrom=(300, 1e6),
                voltage_kv=(80, 80),
                spherical_aberration_um=(-20, 20),
                defocus_angstrom=(-110, 110),
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
