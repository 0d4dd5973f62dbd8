"""The report's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray
from scipy.stats import norm

from trainer.evaluation.graphene_geometry import GOOD_SHARE, POOR_SHARE, RealGraphene
from trainer.evaluation.limits import PhysicalLimits
from trainer.evaluation.plotting import (
    BLUE,
    LIMIT_COLOUR,
    METHOD_COLOURS,
    METHOD_MARKERS,
    ORANGE,
    SCORE_RANGE,
    SKY,
    STYLE,
    VERMILION,
    dose_axis,
    new_figure,
    plot_limit,
    score_axis,
)
from trainer.evaluation.reliability import Reliability
from trainer.evaluation.scores import Outcome, Scores
from trainer.evaluation.truth import CONDITION, DOSE

OVERLAY_ANGSTROM = 30.0
OVERLAY_MARKS = {"true": ("o", SKY), "missed": ("s", ORANGE), "false": ("x", VERMILION)}

# A bin of fewer says nothing about reliability.
FEWEST_ATOMS = 10

DoseCurves = Mapping[str, Mapping[float, Scores]]
"""Scores by method, then by dose in e/Å²."""


@mpl.rc_context(STYLE)
def draw_dose_curves(curves: DoseCurves, limits: PhysicalLimits | None, title: str, path: Path) -> None:
    """Precision, recall, F1 and displacement against dose, a line for each method and one for physics."""
    figure, axes = new_figure(2, 2, width_inches=8.2, height_inches=6.6)
    panels = dict(zip(("precision", "recall", "f1", "rmsd_angstrom"), axes.flat, strict=True))
    doses = sorted({dose for by_dose in curves.values() for dose in by_dose})
    for rank, (method, by_dose) in enumerate(curves.items()):
        colour, marker = METHOD_COLOURS[rank], METHOD_MARKERS[rank]
        for name, panel in panels.items():
            values = [getattr(scores, name) for scores in by_dose.values()]
            # The first method, ours, lies on top.
            panel.plot(list(by_dose), values, color=colour, marker=marker, label=method, clip_on=False, zorder=9 - rank)
        low, high = np.clip([scores.f1_interval for scores in by_dose.values()], *SCORE_RANGE).T
        panels["f1"].fill_between(list(by_dose), low, high, color=colour, alpha=0.18, linewidth=0)

    if limits is not None:
        shown = np.geomspace(doses[0], doses[-1], 200)
        plot_limit(panels["f1"], shown, 1 - np.array([limits.detection.error_at(dose) for dose in shown]))
        plot_limit(panels["rmsd_angstrom"], shown, np.array([limits.displacement.error_at(dose) for dose in shown]))
    for name, label in (("precision", "Precision"), ("recall", "Recall"), ("f1", "F1, with 95 % interval")):
        score_axis(panels[name])
        panels[name].set_ylabel(label)
    panels["rmsd_angstrom"].set_ylabel("Displacement, RMS in 2-D (Å)")
    panels["rmsd_angstrom"].set_ylim(bottom=0)
    for panel in panels.values():
        dose_axis(panel, doses)
        panel.set_xlabel("Dose (e/Å²)")
    handles, labels = panels["rmsd_angstrom"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(title)
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_reliability(
    reliabilities: Mapping[str, Reliability], path: Path, share_label: str = "Share that is there"
) -> None:
    """Share of answers that are right against their probability, and how many there are of each; a panel for each set.

    Args:
        reliabilities: By the name of the set.
        path: The PNG.
        share_label: What the share of right answers is of.
    """
    figure, axes = new_figure(2, len(reliabilities), 3.9 * len(reliabilities), 4.8, height_ratios=(3, 1), share_x=True)
    for (name, reliability), (upper, lower) in zip(reliabilities.items(), axes.T, strict=True):
        upper.plot([0, 1], [0, 1], color=LIMIT_COLOUR, linestyle="--", linewidth=1, label="perfect")
        telling = reliability.atoms >= FEWEST_ATOMS
        share = reliability.true_share[telling]
        spread = np.sqrt(share * (1 - share) / reliability.atoms[telling])
        upper.errorbar(reliability.probability[telling], share, spread, color=BLUE, marker="o", clip_on=False, zorder=3)
        error = reliability.expected_calibration_error
        upper.set_title(f"{name}: expected calibration error {error:.3f}")
        upper.set(ylabel=share_label, xlim=(0, 1), ylim=(0, 1))
        edges = np.linspace(0, 1, len(reliability.atoms) + 1)
        lower.stairs(reliability.atoms, edges, fill=True, color=BLUE, alpha=0.6)
        if reliability.atoms.any():
            lower.set_yscale("log")
            lower.set_ylim(bottom=0.8)
        lower.yaxis.set_minor_locator(NullLocator())
        lower.set(xlabel="Probability given", ylabel="Atoms")
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_error_over_sigma(spreads: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Histogram of errors along an axis over the sigma given, against the unit normal; a panel for each set.

    Args:
        spreads: Errors over sigma by the name of the set, of any shape.
        path: The PNG.
    """
    figure, axes = new_figure(1, len(spreads), 3.9 * len(spreads), 3.4)
    x = np.linspace(-5, 5, 201)
    for (name, values), panel in zip(spreads.items(), axes.flat, strict=True):
        panel.hist(
            values.ravel().clip(-5, 5), bins=np.linspace(-5, 5, 41), density=True, color=BLUE, alpha=0.6, label="found"
        )
        panel.plot(x, norm.pdf(x), color="black", linewidth=1.2, label="unit normal")
        panel.set_title(f"{name}: RMS {np.sqrt(np.mean(values**2)):.2f}" if values.size else f"{name}: no atoms")
        panel.set(xlabel="Error along an axis / sigma", ylabel="Density", xlim=(-5, 5))
        panel.legend(loc="upper right")
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_false_positives(rates: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Bars of false positives per 100 nm², by what the frames show and then by method."""
    methods = list(next(iter(rates.values())))
    height_inches = 1.3 + len(rates) * (0.25 + 0.22 * len(methods))
    figure, axes = new_figure(1, 1, 7.0, height_inches)
    panel = axes[0, 0]
    bar = 0.8 / len(methods)
    for i, (method, colour) in enumerate(zip(methods, METHOD_COLOURS, strict=False)):
        places = np.arange(len(rates)) + (i - (len(methods) - 1) / 2) * bar
        values = [by_method[method] for by_method in rates.values()]
        bars = panel.barh(places, values, 0.9 * bar, color=colour, label=method)
        panel.bar_label(bars, [_rate(value) for value in values], padding=3, fontsize=8)
    panel.set_yticks(range(len(rates)), list(rates))
    panel.invert_yaxis()
    panel.set_xscale("symlog", linthresh=1)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.margins(x=0.12)
    panel.set_xlim(left=0)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("False positives per 100 nm²")
    if len(methods) > 1:
        figure.legend(loc="outside lower center", ncols=3)
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_real_graphene(result: RealGraphene, path: Path) -> None:
    """Share of three-coordinated atoms in each real image, worst first, and which images carry a warning."""
    images = sorted(result.images, key=lambda image: image.geometry.three_coordinated_share)
    shares = np.array([image.geometry.three_coordinated_share for image in images])
    warned = np.array([bool(image.warnings) for image in images])
    rank = np.arange(1, len(images) + 1)
    figure, axes = new_figure(1, 1, 7.0, 3.2)
    panel = axes[0, 0]
    panel.plot(rank[~warned], shares[~warned], "o", color=BLUE, label="no warning")
    panel.plot(rank[warned], shares[warned], "^", color=VERMILION, label="carries a warning")
    panel.axhspan(POOR_SHARE, GOOD_SHARE, color="0.93", zorder=0)
    panel.set(xlabel="Image, worst first", ylabel="Share of three-coordinated atoms", ylim=(0, 1.02))
    panel.set_title(f"Real graphene: mean {result.mean_share:.2f}, median {result.median_share:.2f}")
    panel.legend(loc="lower right")
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_overlays(rows: Sequence[Sequence[Outcome]], path: Path) -> None:
    """What was found, was missed and is false, drawn into the middle of some frames; a row of them for each set."""
    columns = max(len(row) for row in rows)
    figure, axes = new_figure(len(rows), columns, 3.3 * columns, 3.4 * len(rows) + 0.3)
    for panel in axes.flat:
        panel.set_axis_off()
    for outcomes, panels in zip(rows, axes, strict=True):
        for outcome, panel in zip(outcomes, panels, strict=False):
            _draw_overlay(panel, outcome)
    marks = [
        Line2D([], [], linestyle="", marker=marker, markerfacecolor="none", color=colour, label=label)
        for label, (marker, colour) in OVERLAY_MARKS.items()
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    figure.savefig(path)


def _draw_overlay(panel: Axes, outcome: Outcome) -> None:
    labelled, matching = outcome.labelled, outcome.matching
    pixels, pixel_size = labelled.frame.pixels, labelled.pixel_size_angstrom
    height, width = pixels.shape
    left, right, top, bottom = (np.array([0, width, 0, height]) - 0.5) * pixel_size
    dark, light = np.percentile(pixels, [0.5, 99.5])
    panel.imshow(
        pixels, cmap="gray", vmin=dark, vmax=light, extent=(left, right, bottom, top), interpolation="antialiased"
    )
    positions = {
        "true": outcome.found_angstrom[matching.pairs[:, 0]],
        "missed": labelled.positions_angstrom[matching.missed],
        "false": outcome.found_angstrom[matching.false],
    }
    for label, (marker, colour) in OVERLAY_MARKS.items():
        x, y = positions[label].T
        # A dark rim keeps a mark apart from bright atoms.
        panel.plot(x, y, marker, markersize=7, fillstyle="none", color="black", markeredgewidth=2)
        panel.plot(x, y, marker, markersize=7, fillstyle="none", color=colour, markeredgewidth=1)

    # The middle of what is judged: the border, where nothing is, would look like atoms missed.
    low, high = np.array(outcome.view.low_angstrom), np.array(outcome.view.high_angstrom)
    shown = min(OVERLAY_ANGSTROM, *(high - low))
    x_low, y_low = (low + high - shown) / 2
    panel.set(xlim=(x_low, x_low + shown), ylim=(y_low + shown, y_low))
    _draw_scale_bar(panel, x_low + 0.05 * shown, y_low + 0.95 * shown)
    dose = labelled.conditions.get(DOSE)
    title = str(labelled.conditions[CONDITION])
    panel.set_title(title if dose is None else f"{title}, {dose:g} e/Å²", fontsize=8)


def _draw_scale_bar(panel: Axes, x_angstrom: float, y_angstrom: float) -> None:
    """A bar of 10 Å from a point to the right."""
    ends, height = [x_angstrom, x_angstrom + 10], [y_angstrom, y_angstrom]
    panel.plot(ends, height, color="black", linewidth=5, zorder=5)
    panel.plot(ends, height, color="white", linewidth=3, zorder=5)
    label = panel.annotate(
        "1 nm", (x_angstrom + 5, y_angstrom), (0, 5), textcoords="offset points", ha="center", color="white", zorder=6
    )
    label.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
