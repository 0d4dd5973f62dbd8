"""The physical limits: how well anyone could do with the electrons of a frame.

Every function takes expected counts: the electrons that a pixel receives on average, before the camera's MTF. The MTF
blurs signal and noise alike after the electrons were counted, so it takes no information away that matters here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr
from scipy.stats import norm

Image = NDArray[np.float64]

LEAST_ERROR = 1e-12
"""Beyond this nothing can be measured, and soon nothing computed."""


def position_limit_angstrom(
    expected_counts: Callable[[NDArray[np.float64]], Image], step_angstrom: float = 0.02
) -> float:
    """The Cramér-Rao bound of an atom's position, everything else known.

    The Fisher information of a Poisson image is the sum over pixels of (∂λ/∂x)(∂λ/∂y)/λ; no unbiased estimate of the
    position has a smaller covariance than the information's inverse (A. J. den Dekker et al., Ultramicroscopy 104,
    83 (2005)). The bound falls as one over the root of the dose.

    Args:
        expected_counts: Gives the image, shape (height, width), when the atom is displaced by (x, y) in Å.
        step_angstrom: Displacement for the central differences; small against the image of an atom.

    Returns:
        Root mean square displacement in two dimensions, Å.

    Raises:
        ValueError: The image does not depend on where the atom is.
    """
    derivatives = []
    for axis in np.eye(2):
        ahead, behind = expected_counts(axis * step_angstrom), expected_counts(-axis * step_angstrom)
        derivatives.append((ahead - behind) / (2 * step_angstrom))
    gradient = np.stack(derivatives)
    counts = expected_counts(np.zeros(2))
    seen = counts > 0
    information = np.einsum("in,jn,n->ij", gradient[:, seen], gradient[:, seen], 1 / counts[seen])
    if np.linalg.matrix_rank(information) < 2:
        raise ValueError("the expected image does not change with the atom's position along both axes")
    return float(np.sqrt(np.trace(np.linalg.inv(information))))


def detectability(one: Image, other: Image) -> float:
    """The ideal observer's d' between two expected images, such as with and without an atom.

    d'² is the sum over pixels of (Δλ)²/λ, with λ the mean of the two; it holds for differences small against λ
    (H. H. Barrett and K. J. Myers, Foundations of Image Science, chapter 13). For several frames add the squares.
    d' grows as the root of the dose.

    Args:
        one: Expected counts, shape (height, width).
        other: The same, of the other case.
    """
    mean = (one + other) / 2
    seen = mean > 0
    return float(np.sqrt(((one - other)[seen] ** 2 / mean[seen]).sum()))


def error_rate(d_prime: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of wrong answers of an ideal observer who is shown either case equally often: Φ(-d'/2)."""
    return np.asarray(norm.cdf(-np.asarray(d_prime) / 2), dtype=np.float64)


def least_error_rate(d_prime: float | NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Share of wrong answers of an ideal observer who knows that one case has only a share, and guesses accordingly."""
    d_prime = np.asarray(d_prime, dtype=np.float64)
    threshold = np.log((1 - share) / share) / d_prime
    return np.asarray(share * norm.cdf(threshold - d_prime / 2) + (1 - share) * norm.cdf(-threshold - d_prime / 2))


def selection_error_rate(d_prime: float | NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Share of a case that an ideal observer misses who selects as many as there are.

    As many are then wrongly selected, so it is what lacks to 1 in precision and in recall. The rarer the case, the more
    of the other there is to be taken for it: at d' = 5 he misses 0.6 % of what is half of all, and 5 % of one in a
    hundred.

    Args:
        d_prime: Of the two cases.
        share: Of the case that is selected, among both; between 0 and 1.
    """

    def missed(d_prime: float) -> float:
        def surplus(threshold: float) -> float:
            missed = np.log(share) + log_ndtr(threshold - d_prime / 2)
            return float(missed - np.log1p(-share) - log_ndtr(-threshold - d_prime / 2))

        reach = d_prime / 2 + 20
        return float(ndtr(brentq(surplus, -reach, reach) - d_prime / 2))

    return np.asarray(np.vectorize(missed, otypes=[np.float64])(d_prime))


def miscount_rate(d_prime: float | NDArray[np.float64], tolerance: int = 0) -> NDArray[np.float64]:
    """Share of counts that are wrong by more than a tolerance, of an ideal observer to whom any count is as likely.

    Args:
        d_prime: Between a count and the next.
        tolerance: Largest difference that is not wrong.
    """
    return 2 * error_rate((2 * tolerance + 1) * np.asarray(d_prime))


def rmsd_within_tolerance(rmsd_angstrom: float | NDArray[np.float64], tolerance_angstrom: float) -> NDArray[np.float64]:
    """What is left of a normal displacement when only pairs within the tolerance count.

    Matching leaves out the worst, so a measured displacement stays below the tolerance at any dose. The limit has to
    be cut in the same way before the two may be compared.

    Args:
        rmsd_angstrom: Root mean square displacement in two dimensions, equal along both axes.
        tolerance_angstrom: Largest displacement that counts.

    Returns:
        Root mean square displacement of those that count, Å.
    """
    mean_square = np.asarray(rmsd_angstrom, dtype=np.float64) ** 2
    cut = tolerance_angstrom**2 / mean_square
    return np.asarray(np.sqrt(mean_square - tolerance_angstrom**2 / np.expm1(cut.clip(max=700))))


@dataclass(frozen=True)
class LimitCurve:
    """An error that physics allows, against dose.

    Attributes:
        doses: Shape (n,), e/Å², rising.
        errors: Shape (n,), falling: a displacement in Å or a share of wrong answers.
    """

    doses: NDArray[np.float64]
    errors: NDArray[np.float64]

    def __post_init__(self) -> None:
        falling = (np.diff(self.errors) < 0).all() and (self.errors > 0).all()
        if not falling or not (np.diff(self.doses) > 0).all():
            raise ValueError("a limit is given by rising doses with falling errors above zero")

    @classmethod
    def of_detection(
        cls, d_prime: float, error_of: Callable[[NDArray[np.float64]], NDArray[np.float64]] = error_rate
    ) -> "LimitCurve":
        """The limit at every dose, from d' at 1 e/Å².

        Args:
            d_prime: Grows as the root of the dose.
            error_of: Share of wrong answers by d', shape (n,).
        """
        doses = np.logspace(0, 7, 281)
        errors = error_of(d_prime * np.sqrt(doses))
        # Where the electrons tell nothing yet, and where nothing can be measured any more.
        telling = (errors > LEAST_ERROR) & (errors < errors[0] * (1 - 1e-6))
        return cls(doses[telling], errors[telling])

    def error_at(self, dose: float) -> float:
        """The limit at a dose, by interpolation of logarithms; NaN beyond the curve."""
        log_doses, log_errors = np.log(self.doses), np.log(self.errors)
        return float(np.exp(np.interp(np.log(dose), log_doses, log_errors, left=np.nan, right=np.nan)))

    def dose_at(self, error: float) -> float:
        """The dose at which the limit reaches an error, by interpolation of logarithms; NaN beyond the curve."""
        # Interpolation wants rising abscissae, so the curve is read backwards.
        log_errors, log_doses = np.log(self.errors[::-1]), np.log(self.doses[::-1])
        if not error > 0:
            return float("nan")
        return float(np.exp(np.interp(np.log(error), log_errors, log_doses, left=np.nan, right=np.nan)))


def dose_efficiency(dose: float, error: float, limit: LimitCurve) -> float:
    """The dose at which the limit reaches the same error, over the dose that was needed; NaN beyond the curve."""
    return limit.dose_at(error) / dose


@dataclass(frozen=True)
class TripletDetectability:
    """The ideal observer's d' between two cases at 1 e/Å² per frame; it grows as the root of the dose.

    Attributes:
        triplet: From the three frames of a focal series.
        middle: From its middle frame alone.
    """

    triplet: float
    middle: float

    @classmethod
    def between(cls, one: Sequence[Image], other: Sequence[Image]) -> "TripletDetectability":
        """From the expected counts of the three frames, in order of defocus, in one case and in the other."""
        frames = [detectability(*images) for images in zip(one, other, strict=True)]
        return cls(triplet=float(np.linalg.norm(frames)), middle=frames[1])


@dataclass(frozen=True)
class PhysicalLimits:
    """What the network is measured against at one imaging condition.

    Attributes:
        displacement: Root mean square displacement (Å) of the pairs within tolerance, by the Cramér-Rao bound.
        detection: Share of wrong answers of the ideal observer to "is this atom there". Comparable with 1 - F1, which
            is the same share where as many atoms are false as are missed.
    """

    displacement: LimitCurve
    detection: LimitCurve

    @classmethod
    def from_unit_dose(cls, rmsd_angstrom: float, d_prime: float, tolerance_angstrom: float) -> "PhysicalLimits":
        """Both limits at every dose, from those at 1 e/Å².

        Args:
            rmsd_angstrom: `position_limit_angstrom` of the image at 1 e/Å².
            d_prime: `detectability` of an atom in the same image.
            tolerance_angstrom: Of the matching that the limits are compared with.
        """
        doses = np.logspace(0, 7, 281)
        displacement = rmsd_within_tolerance(rmsd_angstrom / np.sqrt(doses), tolerance_angstrom)
        return cls(LimitCurve(doses, displacement), LimitCurve.of_detection(d_prime))
