"""What the making of a MoS2 sheet and the beam do to single sites: vacancies, antisites, substitutions.

Which substitutions there are is decided by what can be seen. At the reference triplet (80 kV, Cs -10 µm, C10 +50, +90,
+130 Å) and 10³ e/Å² a frame, an observer who knows everything else tells S2 from S at d' = 9.4; 3 means 7 % errors, and
d' grows with the square root of the dose. Told from the label that looks most like them:

- in, at sulphur's sites: one S replaced by O, C or N (4.5, between S2 and S), by Se (3.6), Te (8.6) or Mo (6.5); both
  by Se (7.2), Te (16) or one Mo (2.7); one light atom alone (4.7, between S and nothing).
- in, at molybdenum's sites: W, Re (3.3), Ti, V, Cr, Mn, Fe (4.5 to 5.1), one S (6.7), two S (2.9).
- out, because they look like the host and their labels would contradict its own: P, Cl, Si for S (1.0 and less), two
  light atoms (like one S, 1.1 and less), Nb, Tc, Zr, Ru, Rh for Mo (0.8 and less).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trainer.specimens.mos2_lattice import ABOVE, BELOW, MIDDLE, MOLYBDENUM, SULPHUR, Lattice

CARBON, NITROGEN, OXYGEN, SELENIUM, TELLURIUM = 6, 7, 8, 34, 52
ON_SULPHUR = (
    *((light, 0, SULPHUR) for light in (CARBON, NITROGEN, OXYGEN)),
    (OXYGEN, 0, SULPHUR),  # counted twice: what sits in most vacancies that have been in air
    (OXYGEN, 0, 0),
    (CARBON, 0, 0),
    (SELENIUM, 0, SULPHUR),
    (SELENIUM, 0, SELENIUM),
    (TELLURIUM, 0, SULPHUR),
    (TELLURIUM, 0, TELLURIUM),
)
"""Below, in and above the plane of the metal; or the other way round."""
ON_METAL = tuple((0, metal, 0) for metal in (74, 74, 75, 22, 23, 24, 25, 26))
"""W, twice as often as Re, Ti, V, Cr, Mn and Fe."""
ANTISITES_ON_SULPHUR = ((0, MOLYBDENUM, 0), (MOLYBDENUM, 0, SULPHUR))
ANTISITES_ON_METAL = ((0, SULPHUR, 0), (SULPHUR, 0, SULPHUR))

LONGEST_LINE = 16
SAME_ROW_ANGSTROM = 0.8
NEXT_IN_ROW_ANGSTROM = 4.0
INWARD_ANGSTROM = (-0.01, 0.05)  # for each sulphur that a metal lost
OUTWARD_ANGSTROM = (-0.03, 0.1)  # of sulphur that lost a metal
LARGEST_SHIFT_ANGSTROM = 0.12


def add_vacancies(rng: np.random.Generator, lattice: Lattice, shares: tuple[float, float, float]) -> None:
    """Takes atoms away at random places.

    Args:
        rng: Source of the places.
        lattice: The sheet, changed in place.
        shares: Of the sulphur sites that lose one atom, of those that lose both, and of the metal sites that lose
            theirs.
    """
    single, double, metal = shares
    from_below = rng.choice([0.0, 0.3, 0.5, 1.0])
    for site in _chosen(rng, ~lattice.is_metal, single):
        lattice.occupants[site, BELOW if rng.random() < from_below else ABOVE] = 0
    lattice.occupants[_chosen(rng, ~lattice.is_metal, double)] = 0
    lattice.occupants[_chosen(rng, lattice.is_metal, metal)] = 0


def add_clusters(rng: np.random.Generator, lattice: Lattice, count: int) -> None:
    """Takes away two to six neighbouring sites at a time; of their sulphur sometimes only one side."""
    inner = np.flatnonzero(lattice.inner())
    for seed in rng.choice(inner, count if len(inner) else 0):
        group = [int(seed)]
        for _ in range(rng.integers(1, 6)):
            around = np.setdiff1d(lattice.neighbours[group], [-1, *group])
            if len(around):
                group.append(int(rng.choice(around)))
        one_side = rng.random() < 0.4
        for site in group:
            lost = [rng.choice([BELOW, ABOVE])] if one_side and not lattice.is_metal[site] else [BELOW, MIDDLE, ABOVE]
            lattice.occupants[site, lost] = 0


def add_lines(rng: np.random.Generator, lattice: Lattice, count: int) -> None:
    """Takes sulphur from rows along zigzag directions, one row or two beside each other, one side of it or both."""
    sulphur = np.flatnonzero(~lattice.is_metal & lattice.inner())
    tree = cKDTree(lattice.positions[sulphur])
    for start in rng.choice(len(sulphur), count if len(sulphur) else 0):
        origin = lattice.positions[sulphur[start]]
        around = sorted(set(tree.query_ball_point(origin, NEXT_IN_ROW_ANGSTROM)) - {int(start)})
        if len(around) < 2:
            continue
        along, beside = lattice.positions[sulphur[rng.choice(around, 2, replace=False)]] - origin
        steps = along * np.arange(rng.integers(3, LONGEST_LINE + 1))[:, None]
        rows = [origin + steps] + ([origin + beside + steps] if rng.random() < 0.4 else [])
        distances, found = tree.query(np.concatenate(rows))
        lost = [[BELOW], [ABOVE], [BELOW, ABOVE]][rng.integers(3)]
        lattice.occupants[np.ix_(sulphur[found[distances < SAME_ROW_ANGSTROM]], lost)] = 0


def substitute(
    rng: np.random.Generator,
    lattice: Lattice,
    share: float,
    *,
    on_metal: bool,
    substitutes: tuple[tuple[int, int, int], ...],
) -> None:
    """Puts foreign atoms on this share of one sublattice's sites: of those that miss no neighbour.

    At edges and holes nothing tells a foreign atom from an adatom. Taking atoms away comes before: what is left of a
    foreign pair may look like any host.
    """
    sites = _chosen(rng, lattice.inner() & (lattice.is_metal == on_metal), share)
    drawn = np.array(substitutes)[rng.integers(len(substitutes), size=len(sites))]
    turned = rng.random(len(sites)) < 0.5
    drawn[turned] = drawn[turned, ::-1]
    lattice.occupants[sites] = drawn


def thin_edges(rng: np.random.Generator, lattice: Lattice, share: float) -> None:
    """Leaves one sulphur atom on this share of the sulphur sites at edges."""
    edge = ~lattice.is_metal & ~lattice.inner()
    lattice.occupants[_chosen(rng, edge, share), rng.choice([BELOW, ABOVE])] = 0


def relax_around_vacancies(rng: np.random.Generator, lattice: Lattice) -> None:
    """Moves the neighbours of missing atoms by up to 0.12 Å: metal mostly inwards, sulphur mostly outwards."""
    missing = (~lattice.is_metal) * (2 - (lattice.occupants > 0).sum(axis=1)).clip(0)
    missing = np.where(lattice.is_metal, ~lattice.occupied(), missing)
    pull = missing * np.where(lattice.is_metal, -rng.uniform(*OUTWARD_ANGSTROM), rng.uniform(*INWARD_ANGSTROM))
    site, slot = np.nonzero((lattice.neighbours >= 0) & (pull != 0)[:, None])
    neighbour = lattice.neighbours[site, slot]
    towards = lattice.positions[site] - lattice.positions[neighbour]
    towards *= (pull[site] / np.linalg.norm(towards, axis=1))[:, None]
    shift = np.zeros_like(lattice.positions)
    np.add.at(shift, neighbour, towards)
    length = np.linalg.norm(shift, axis=1, keepdims=True)
    shift *= LARGEST_SHIFT_ANGSTROM / np.maximum(length, LARGEST_SHIFT_ANGSTROM)
    lattice.positions = lattice.positions + lattice.occupied()[:, None] * shift


def _chosen(rng: np.random.Generator, candidates: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
    """Indices of this share of the candidates, at random."""
    return np.flatnonzero(candidates & (rng.random(len(candidates)) < share))
