"""What people use without a network: a filter, then local maxima above a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_laplace
from skimage.feature import peak_local_max

from daemon.atoms import atom_table
from daemon.errors import CalibrationError
from daemon.frames import FocalSeries, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.matching import match
from trainer.evaluation.truth import LabelledFrame

Method = Literal["gaussian", "laplacian"]
Contrast = Literal["bright", "dark"]

# Uneven illumination is smoother than this; atoms are not.
BACKGROUND_SIGMA_ANGSTROM = 5.0
# Below half the shortest distance between neighbours that is looked for, columns of a tilted crystal included.
SEPARATION_ANGSTROM = 0.7

SIGMAS_ANGSTROM = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
THRESHOLDS = tuple(np.arange(-0.5, 4.01, 0.25).tolist())
CONTRASTS: tuple[Contrast, ...] = ("bright", "dark")


@dataclass(frozen=True)
class PeakFinder:
    """Finds atoms as local maxima of a filtered frame; a recogniser like any other.

    Attributes:
        method: `gaussian` smooths and takes the illumination off; `laplacian` is the Laplacian of a Gaussian.
        sigma_angstrom: Of the filter.
        threshold: Height a peak needs, in standard deviations of the filtered frame.
        contrast: Whether atoms are brighter or darker than what is around them.
    """

    method: Method
    sigma_angstrom: float
    threshold: float
    contrast: Contrast

    def recognise(self, subject: Frame | FocalSeries) -> Recognition:
        """Find the peaks of a frame, or of the first of a series.

        No probability and no sigma is known for them: both columns are NaN.

        Raises:
            CalibrationError: The frame has no pixel size.
        """
        frame = subject if isinstance(subject, Frame) else subject.reference
        if frame.calibration is None:
            raise CalibrationError(f"{frame.name}: peak finding needs a pixel size.")
        pixel_size_angstrom = frame.calibration.pixel_size_angstrom
        positions_px, heights = self.peaks(frame.pixels, pixel_size_angstrom)
        positions_px = positions_px[heights > self.threshold]
        unknown = np.full(len(positions_px), np.nan)
        return Recognition(
            frame=frame,
            calibration=frame.calibration,
            table=atom_table(positions_px, pixel_size_angstrom, "atom", unknown, unknown),
            warnings=[],
            latency_ms={},
            model=self.method,
            model_sha256="",
            backend="scipy",
        )

    def peaks(
        self, pixels: NDArray[np.number], pixel_size_angstrom: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every local maximum, whatever the threshold.

        Returns:
            Shape (peaks, 2), x and y in pixels; shape (peaks,), heights in standard deviations of the filtered frame.
        """
        filtered = self._filter(pixels.astype(np.float64), pixel_size_angstrom)
        filtered = (filtered - filtered.mean()) / max(filtered.std(), np.finfo(float).tiny)
        separation_px = max(1, round(SEPARATION_ANGSTROM / pixel_size_angstrom))
        maxima = peak_local_max(filtered, min_distance=separation_px, threshold_abs=-np.inf, exclude_border=1)
        return _sub_pixel(filtered, maxima), filtered[maxima[:, 0], maxima[:, 1]]

    def _filter(self, pixels: NDArray[np.float64], pixel_size_angstrom: float) -> NDArray[np.float64]:
        sigma_px = self.sigma_angstrom / pixel_size_angstrom
        if self.method == "laplacian":
            bright = -gaussian_laplace(pixels, sigma_px)
        else:
            background = gaussian_filter(pixels, BACKGROUND_SIGMA_ANGSTROM / pixel_size_angstrom)
            bright = gaussian_filter(pixels, sigma_px) - background
        return np.asarray(bright if self.contrast == "bright" else -bright)


def tune(method: Method, frames: Sequence[LabelledFrame]) -> PeakFinder:
    """The peak finder of the best F1, pooled over frames of one kind, of all on a grid.

    Sigma, threshold and contrast are all chosen with the truth at hand, which a user does not have: tuned for each
    kind of frame and each dose, this is the best that the method can do.

    Args:
        method: The filter.
        frames: A tuning set: like the test frames, but not these.
    """
    candidates = []
    for sigma, contrast in product(SIGMAS_ANGSTROM, CONTRASTS):
        finder = PeakFinder(method, sigma, 0.0, contrast)
        f1, rmsd_angstrom = _by_threshold(finder, frames)
        # Of several thresholds that do equally well the middle one is the safest on other frames.
        best = np.flatnonzero(f1 == f1.max())
        middle = best[len(best) // 2]
        candidates.append((f1[middle], -rmsd_angstrom[middle], replace(finder, threshold=THRESHOLDS[middle])))
    # Among filters that find the same atoms, the one that places them best.
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def _by_threshold(
    finder: PeakFinder, frames: Sequence[LabelledFrame]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1 and displacement (Å) at each of `THRESHOLDS`, pooled over the frames; each frame is filtered only once."""
    # Hits, false, missed and the sum of squared displacements at each threshold.
    sums = np.zeros((len(THRESHOLDS), 4))
    for labelled in frames:
        pixel_size_angstrom = labelled.pixel_size_angstrom
        positions_px, heights = finder.peaks(labelled.frame.pixels, pixel_size_angstrom)
        for row, threshold in enumerate(THRESHOLDS):
            found_angstrom = positions_px[heights > threshold] * pixel_size_angstrom
            matching = match(found_angstrom, labelled.positions_angstrom, labelled.view, labelled.ignored)
            found, true = matching.pairs.T
            squares = (found_angstrom[found] - labelled.positions_angstrom[true]) ** 2
            sums[row] += len(found), len(matching.false), len(matching.missed), squares.sum()
    hits, false, missed, squares_sum = sums.T
    return 2 * hits / np.maximum(2 * hits + false + missed, 1), np.sqrt(squares_sum / np.maximum(hits, 1))


def _sub_pixel(image: NDArray[np.float64], maxima: NDArray[np.intp]) -> NDArray[np.float64]:
    """Shape (peaks, 2), x and y of the parabolas through each maximum (row, column) and its neighbours."""
    row, column = maxima.T
    centre = image[row, column]
    shifts = []
    for before, after in (
        (image[row, column - 1], image[row, column + 1]),
        (image[row - 1, column], image[row + 1, column]),
    ):
        curvature = 2 * centre - before - after
        # On a plateau there is no parabola, and the maximum stays where it is.
        shifts.append(np.divide(after - before, 2 * curvature, out=np.zeros(len(centre)), where=curvature > 0))
    return np.asarray(np.stack([column, row], axis=1) + np.stack(shifts, axis=1))
