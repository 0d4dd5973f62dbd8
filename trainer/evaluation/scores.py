"""Scores of a recogniser, pooled over the frames of a test set."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from daemon.atoms import SUPPORT, VACANCY
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.matching import Matching, View, match
from trainer.evaluation.reliability import Reliability, reliability_of
from trainer.evaluation.truth import DOSE, LabelledFrame, Recogniser

BOOTSTRAP_DRAWS = 2000
MOST_DOSES = 12

EMPTY_REACH_ANGSTROM = 5.0
"""Farther than this from every site a frame is empty: vacuum, a hole, film or dirt."""
EMPTY_GRID_ANGSTROM = 0.5

NOTHING = "nothing"
"""Stands in for the species of an atom that was missed, or of a site that is none."""
UNNAMED = "unnamed"
"""Stands in for the species of an atom whose table does not tell."""

# Half of a normal distribution lies within this many of its sigmas.
NORMAL_MEDIAN_DEVIATION = 0.6745


@dataclass(frozen=True)
class Outcome:
    """What a recogniser made of one frame or series.

    Attributes:
        labelled: The frame or series, and its truth.
        recognition: What the recogniser returned.
        found_angstrom: Shape (found, 2), in the true Å of the frame, even where the recogniser took another pixel size.
        matching: Which found atom is which site.
    """

    labelled: LabelledFrame
    recognition: Recognition
    found_angstrom: NDArray[np.float64]
    matching: Matching

    @property
    def view(self) -> View:
        """The part of the frame that is judged."""
        return self.labelled.view

    @property
    def errors_angstrom(self) -> NDArray[np.float64]:
        """Shape (pairs, 2), found minus true position."""
        found, true = self.matching.pairs.T
        return np.asarray(self.found_angstrom[found] - self.labelled.positions_angstrom[true])

    @property
    def errors_over_sigma(self) -> NDArray[np.float64]:
        """Shape (pairs, 2), errors along each axis as multiples of the sigma that the table gave."""
        sigma = numbers_in(self.recognition, "sigma_angstrom")[self.matching.pairs[:, 0]]
        return np.asarray(self.errors_angstrom / sigma[:, None])


def judge(recogniser: Recogniser, frames: Iterable[LabelledFrame]) -> list[Outcome]:
    """Let a recogniser see every frame, and match what it finds."""
    return [outcome_of(recogniser.recognise(labelled.subject), labelled) for labelled in frames]


def outcome_of(recognition: Recognition, labelled: LabelledFrame) -> Outcome:
    """Match what was found with what stands there."""
    found_px = np.stack([numbers_in(recognition, "x_px"), numbers_in(recognition, "y_px")], axis=1)
    found_angstrom = found_px * labelled.pixel_size_angstrom
    matching = match(found_angstrom, labelled.positions_angstrom, labelled.view, labelled.ignored)
    return Outcome(labelled, recognition, found_angstrom, matching)


@dataclass(frozen=True)
class Scores:
    """Scores pooled over frames; NaN where there is nothing to score.

    Attributes:
        frames: How many.
        sites: True sites in view that are judged.
        ignored_share: Share of all true sites in view that are not judged.
        precision: Share of found atoms that are true.
        recall: Share of true sites that were found.
        f1: Harmonic mean of the two.
        metal_f1: The same for columns of metal alone, where oxide columns are told apart: a column of oxide taken for
            metal is false, one of metal taken for oxide is missed. NaN where there is no oxide.
        f1_interval: Lower and upper end of the 95 % interval of F1, by bootstrap over frames.
        rmsd_angstrom: Root mean square displacement of the pairs in two dimensions.
        false_per_100_nm2: Found atoms that are none, over the whole area in view.
        false_in_empty_per_100_nm2: The same over the part farther than `EMPTY_REACH_ANGSTROM` from any site.
        empty_area_nm2: How large that part is.
        calibration_error: Expected calibration error of `probability`.
        error_over_sigma: Root mean square of errors along an axis over the sigma given; 1 is right.
        error_over_sigma_robust: The same from the median, which a few wild atoms do not move.
        warned_share: Share of frames that carry a warning.
        species_confusion: Atoms by true species, then by the species found.
    """

    frames: int
    sites: int
    ignored_share: float
    precision: float
    recall: float
    f1: float
    metal_f1: float
    f1_interval: tuple[float, float]
    rmsd_angstrom: float
    false_per_100_nm2: float
    false_in_empty_per_100_nm2: float
    empty_area_nm2: float
    calibration_error: float
    error_over_sigma: float
    error_over_sigma_robust: float
    warned_share: float
    species_confusion: dict[str, dict[str, int]]


def score(outcomes: Sequence[Outcome]) -> Scores:
    """Pool the outcomes of some frames (at least one) into scores."""
    hits, false, missed = _counts(outcomes).sum(axis=0)
    errors = np.concatenate([outcome.errors_angstrom for outcome in outcomes])
    normalised = np.concatenate([outcome.errors_over_sigma for outcome in outcomes]).ravel()
    area = sum(outcome.view.area_square_angstrom for outcome in outcomes)
    confusion = species_confusion(outcomes)
    ignored = sum(int(o.view.holds(o.labelled.positions_angstrom[o.labelled.ignored]).sum()) for o in outcomes)
    empty_area, false_in_empty = np.sum([_emptiness(outcome) for outcome in outcomes], axis=0)
    return Scores(
        frames=len(outcomes),
        sites=int(hits + missed),
        ignored_share=ratio(ignored, ignored + hits + missed),
        precision=ratio(hits, hits + false),
        recall=ratio(hits, hits + missed),
        f1=ratio(2 * hits, 2 * hits + false + missed),
        metal_f1=_metal_f1(confusion),
        f1_interval=_f1_interval(outcomes),
        rmsd_angstrom=_root_mean_square(errors) * math.sqrt(2),
        false_per_100_nm2=ratio(false, area) * 1e4,
        false_in_empty_per_100_nm2=ratio(false_in_empty, empty_area) * 1e4,
        empty_area_nm2=float(empty_area) / 100,
        calibration_error=reliability(outcomes).expected_calibration_error,
        error_over_sigma=_root_mean_square(normalised),
        error_over_sigma_robust=_median(np.abs(normalised)) / NORMAL_MEDIAN_DEVIATION,
        warned_share=float(np.mean([bool(outcome.recognition.warnings) for outcome in outcomes])),
        species_confusion=confusion,
    )


def grouped(
    outcomes: Sequence[Outcome], key: str, bin_of: Callable[[Any], Any] = lambda value: value
) -> dict[Any, list[Outcome]]:
    """Outcomes by the value that their frames' conditions give to a key, in order of the values.

    Args:
        outcomes: Every one has the key among its conditions.
        key: Such as `truth.DOSE`.
        bin_of: Puts neighbouring values into one group, such as `half_decade`.
    """
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[bin_of(outcome.labelled.conditions[key])].append(outcome)
    return dict(sorted(groups.items()))


def by_dose(outcomes: Sequence[Outcome]) -> dict[float, list[Outcome]]:
    """Outcomes by dose; doses that were drawn from a range are all different, and are put into half decades."""
    doses = {outcome.labelled.conditions.get(DOSE) for outcome in outcomes}
    if None in doses:
        return {}
    return grouped(outcomes, DOSE) if len(doses) <= MOST_DOSES else grouped(outcomes, DOSE, half_decade)


def half_decade(dose: float) -> float:
    """The nearest of ..., 100, 300, 1000, 3000, ..., to group doses that were drawn from a range."""
    halves = round(2 * np.log10(dose))
    return float(10 ** (halves // 2) * (3 if halves % 2 else 1))


def reliability(outcomes: Sequence[Outcome]) -> Reliability:
    """Reliability of `probability`: that something is there."""
    stated, true = [], []
    for outcome in outcomes:
        of_pairs, of_false = outcome.matching.pairs[:, 0], outcome.matching.false
        stated.append(numbers_in(outcome.recognition, "probability")[np.concatenate([of_pairs, of_false])])
        true.append(np.arange(len(of_pairs) + len(of_false)) < len(of_pairs))
    return reliability_of(stated, true)


def species_confusion(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Atoms by true species, then by the species found; see `Scores`."""
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        found = names_found(outcome.recognition)
        true = outcome.labelled.species
        counts.update((true[j], found[i]) for i, j in outcome.matching.pairs)
        counts.update((NOTHING, found[i]) for i in outcome.matching.false)
        counts.update((true[j], NOTHING) for j in outcome.matching.missed)
    confusion: dict[str, dict[str, int]] = {}
    for (true_name, found_name), count in sorted(counts.items()):
        confusion.setdefault(true_name, {})[found_name] = count
    return confusion


def names_found(recognition: Recognition) -> list[str]:
    """What each row of the table is called: its species, `VACANCY` where the site is empty, else `UNNAMED`."""
    kinds, species = (recognition.table.column(name).to_pylist() for name in ("kind", "species"))
    return [VACANCY if kind == VACANCY else name or UNNAMED for kind, name in zip(kinds, species, strict=True)]


def numbers_in(recognition: Recognition, name: str) -> NDArray[np.float64]:
    """Shape (found,), one column of the atom table, NaN where it does not tell."""
    return np.asarray(recognition.table.column(name).to_numpy(), dtype=np.float64)


def ratio(part: float, whole: float) -> float:
    """A share, NaN of nothing."""
    return float(part / whole) if whole else float("nan")


def _counts(outcomes: Sequence[Outcome]) -> NDArray[np.int64]:
    """Shape (frames, 3): hits, false and missed of each frame."""
    return np.array([[len(o.matching.pairs), len(o.matching.false), len(o.matching.missed)] for o in outcomes])


def _f1_interval(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The 95 % interval of F1 if other frames had been drawn; a single frame cannot tell."""
    if len(outcomes) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(len(outcomes), size=(BOOTSTRAP_DRAWS, len(outcomes)))
    hits, false, missed = _counts(outcomes)[draws].sum(axis=1).T
    if not (hits + false + missed).all():
        return float("nan"), float("nan")
    low, high = np.percentile(2 * hits / (2 * hits + false + missed), [2.5, 97.5])
    return float(low), float(high)


def _emptiness(outcome: Outcome) -> tuple[float, int]:
    """Area in view (Å²) that is far from every site, and the number of false atoms there."""
    sites = outcome.labelled.positions_angstrom
    false = outcome.found_angstrom[outcome.matching.false]
    if len(sites) == 0:
        return outcome.view.area_square_angstrom, len(false)
    tree = cKDTree(sites)
    (left, top), (right, bottom) = outcome.view.low_angstrom, outcome.view.high_angstrom
    axes = np.arange(left, right, EMPTY_GRID_ANGSTROM), np.arange(top, bottom, EMPTY_GRID_ANGSTROM)
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    far = tree.query(grid, distance_upper_bound=EMPTY_REACH_ANGSTROM)[0] > EMPTY_REACH_ANGSTROM
    false_far = tree.query(false, distance_upper_bound=EMPTY_REACH_ANGSTROM)[0] > EMPTY_REACH_ANGSTROM
    return outcome.view.area_square_angstrom * float(far.mean()), int(false_far.sum())


def _metal_f1(confusion: dict[str, dict[str, int]]) -> float:
    if SUPPORT not in confusion:
        return float("nan")
    hits = missed = false = 0
    for true, row in confusion.items():
        for found, count in row.items():
            is_metal, called_metal = (name not in (SUPPORT, NOTHING) for name in (true, found))
            hits += count * (is_metal and called_metal)
            missed += count * (is_metal and not called_metal)
            false += count * (called_metal and not is_metal)
    return ratio(2 * hits, 2 * hits + missed + false)


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else float("nan")
