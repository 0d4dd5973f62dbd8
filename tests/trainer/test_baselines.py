import numpy as np
import pytest
import torch

from daemon.errors import CalibrationError
from daemon.frames import Calibration, CalibrationSource, Frame
from trainer.evaluation.baselines import PeakFinder, tune
from trainer.evaluation.reference_network import INPUT_MULTIPLE, ReferenceUNet
from trainer.evaluation.scores import judge, score
from trainer.evaluation.truth import LabelledFrame

PIXEL_SIZE = 0.12
SIDE = 192


def spots(seed, contrast=1.0, electrons=100.0):
    """Gaussian spots on a jittered lattice under uneven illumination, in counts."""
    rng = np.random.default_rng(seed)
    steps = np.arange(0.5, SIDE * PIXEL_SIZE, 2.0)
    positions = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    positions = (positions + rng.normal(0, 0.15, positions.shape))[rng.random(len(positions)) < 0.85]
    y, x = np.indices((SIDE, SIDE)) * PIXEL_SIZE
    image = np.zeros((SIDE, SIDE))
    for column, row in positions:
        image += np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * 0.4**2))
    counts = rng.poisson(electrons * (1 + 0.4 * contrast * image) * (1 + 0.3 * x / x.max()))
    frame = Frame(counts.astype(np.uint16), "spots", "spots", Calibration(PIXEL_SIZE, CalibrationSource.SIDECAR))
    return LabelledFrame(frame, positions, ("C",) * len(positions), np.zeros(len(positions), bool), {})


@pytest.mark.parametrize("method", ["gaussian", "laplacian"])
@pytest.mark.parametrize("contrast", [1.0, -1.0])
def test_a_tuned_peak_finder_finds_clear_spots_of_either_contrast(method, contrast):
    finder = tune(method, [spots(1, contrast)])
    scores = score(judge(finder, [spots(2, contrast), spots(3, contrast)]))
    assert finder.contrast == ("bright" if contrast > 0 else "dark")
    assert scores.f1 > 0.97
    # Positions are between pixels, not on them: whole pixels alone would give 0.05 Å.
    assert scores.rmsd_angstrom < 0.06
    assert np.isnan(scores.calibration_error)


def test_no_threshold_makes_up_for_the_wrong_filter():
    tuned = tune("gaussian", [spots(4, electrons=3.0), spots(5, electrons=3.0)])
    test_frames = [spots(6, electrons=3.0), spots(7, electrons=3.0)]
    too_fine = [PeakFinder("gaussian", 0.2, threshold, "bright") for threshold in np.arange(0.0, 3.0, 0.25)]
    best_of_these = max(score(judge(finder, test_frames)).f1 for finder in too_fine)
    assert score(judge(tuned, test_frames)).f1 > best_of_these + 0.03


def test_a_frame_without_structure_has_no_peaks():
    frame = Frame(np.full((64, 64), 7, np.uint8), "flat", "flat", Calibration(0.1, CalibrationSource.SIDECAR))
    assert PeakFinder("gaussian", 0.4, 0.5, "bright").recognise(frame).table.num_rows == 0


def test_a_frame_without_a_pixel_size_is_refused():
    with pytest.raises(CalibrationError, match="pixel size"):
        PeakFinder("gaussian", 0.4, 0.5, "bright").recognise(Frame(np.zeros((64, 64)), "x", "x"))


def test_the_reference_network_is_the_one_of_the_literature():
    network = ReferenceUNet()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(4.5e6, rel=0.02)


def test_the_reference_network_answers_at_full_resolution():
    network = ReferenceUNet(input_frames=3, classes=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 5 * INPUT_MULTIPLE, 64)).shape == (2, 4, 40, 64)
