import abtem
import numpy as np
import pytest
import torch

from trainer.optics import Aberration, Optics, intensity

SIDE, SAMPLING = 96, 0.15


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    rng = np.random.default_rng(0)
    phase = rng.normal(0, 0.2, (SIDE, SIDE))
    return np.exp(1j * phase).astype(np.complex64)


def test_images_agree_with_abtem(wave: np.ndarray) -> None:
    optics = Optics(
        voltage_kv=80,
        c10=90,
        c30=-1e5,
        focal_spread_angstrom=30,
        c12=Aberration(20, 0.7),
        c21=Aberration(300, 0.4),
        c23=Aberration(200, 0.3),
        c32=Aberration(1e4, 0.2),
        c34=Aberration(2e4, 0.1),
    )
    transfer = abtem.CTF(
        energy=80e3, C10=90, C30=-1e5, focal_spread=30, C12=20, phi12=0.7, C21=300, phi21=0.4, C23=200, phi23=0.3,
        C32=1e4, phi32=0.2, C34=2e4, phi34=0.1,
    )  # fmt: skip
    # abTEM's arrays are [x, y], ours [y, x]
    waves = abtem.Waves(np.ascontiguousarray(wave.T), energy=80e3, sampling=SAMPLING)
    expected = np.asarray(waves.apply_ctf(transfer).intensity().array).T

    image = intensity(torch.from_numpy(wave), SAMPLING, optics).numpy()

    np.testing.assert_allclose(image, expected, atol=2e-5)


def test_contrast_is_positive_where_atoms_are_bright() -> None:
    # Overfocus with negative Cs: the phase object's peaks, the atoms, come out bright.
    bright = Optics(voltage_kv=80, c10=90, c30=-1e5, focal_spread_angstrom=30)
    dark = Optics(voltage_kv=80, c10=-90, c30=1e5, focal_spread_angstrom=30)
    blob = np.exp(-(np.hypot(*np.mgrid[-48:48, -48:48]) ** 2) / 20)
    atom = torch.from_numpy(np.exp(0.1j * blob).astype(np.complex64))

    assert bright.contrast(1 / 2.1).min() > 0.3
    assert dark.contrast(1 / 2.1).max() < -0.3
    assert intensity(atom, SAMPLING, bright)[48, 48] > 1
    assert intensity(atom, SAMPLING, dark)[48, 48] < 1


def test_convergence_damps_what_is_out_of_focus(wave: np.ndarray) -> None:
    sharp = Optics(voltage_kv=80, c10=100, c30=0, focal_spread_angstrom=0)
    smeared = Optics(voltage_kv=80, c10=100, c30=0, focal_spread_angstrom=0, convergence_mrad=5)

    image, damped = (intensity(torch.from_numpy(wave), SAMPLING, optics).std() for optics in (sharp, smeared))
    assert damped < 0.8 * image


def test_wavelength_is_relativistic() -> None:
    assert Optics(80, 0, 0, 0).wavelength_angstrom == pytest.approx(0.041757, rel=1e-4)
    assert Optics(300, 0, 0, 0).wavelength_angstrom == pytest.approx(0.019687, rel=1e-4)


def test_astigmatism_can_invert_contrast_along_one_direction() -> None:
    astigmatic = Optics(voltage_kv=80, c10=10, c30=0, focal_spread_angstrom=30, c12=Aberration(40, 0.3))

    contrast = astigmatic.contrast(1 / 2.1)

    assert contrast.max() > 0.3
    assert contrast.min() < -0.3
