"""The figures that only reports of series models have."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from trainer.evaluation.limits import LimitCurve
from trainer.evaluation.plotting import (
    METHOD_COLOURS,
    METHOD_MARKERS,
    STYLE,
    dose_axis,
    new_figure,
    plot_limit,
    score_axis,
)

PANELS_PER_ROW = 3

# Of more names the shares no longer fit into their cells.
MOST_WRITTEN = 8

MeritCurves = Mapping[str, Mapping[float, Mapping[str, float]]]
"""Shares of right answers by method, then by dose in e/Å² per frame, then by merit."""


@mpl.rc_context(STYLE)
def draw_merit_curves(
    curves: MeritCurves,
    limits: Mapping[str, Mapping[str, LimitCurve]],
    labels: Mapping[str, str],
    title: str,
    path: Path,
) -> None:
    """Shares of right answers against dose: a panel for each, a line for each method and one for its limit.

    Args:
        curves: All of the same merits.
        limits: By merit, then by method; any may lack.
        labels: What each merit is called.
        title: Of the figure.
        path: The PNG.
    """
    doses = sorted({dose for by_dose in curves.values() for dose in by_dose})
    names = list(next(iter(next(iter(curves.values())).values())))
    columns = min(len(names), PANELS_PER_ROW)
    rows = -(-len(names) // columns)
    figure, axes = new_figure(rows, columns, width_inches=3.6 * columns, height_inches=3.1 * rows + 0.6)
    for panel in axes.flat[len(names) :]:
        panel.set_axis_off()
    for name, panel in zip(names, axes.flat, strict=False):
        for rank, (method, by_dose) in enumerate(curves.items()):
            colour = METHOD_COLOURS[rank]
            values = [shares[name] for shares in by_dose.values()]
            # The first method, the model, lies on top.
            panel.plot(
                list(by_dose),
                values,
                color=colour,
                marker=METHOD_MARKERS[rank],
                label=method,
                clip_on=False,
                zorder=9 - rank,
            )
            if method in limits.get(name, {}):
                shown = np.geomspace(doses[0], doses[-1], 200)
                plot_limit(panel, shown, _allowed(limits[name][method], shown), colour, f"{method}, ideal observer")
        score_axis(panel)
        dose_axis(panel, doses)
        panel.set(xlabel="Dose per frame (e/Å²)", ylabel=labels[name])
    entries = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2)
    figure.suptitle(title)
    figure.savefig(path)


@mpl.rc_context(STYLE)
def draw_confusions(
    rows: Sequence[Mapping[str, NDArray[np.integer]]], names: Sequence[str], quantity: str, path: Path
) -> None:
    """Heat maps of confusion matrices, each line of a map scaled to its sum.

    Args:
        rows: Of the figure, maps by their titles; each of shape (names, names), true by found, counts.
        names: Of the cells.
        quantity: What the names are.
        path: The PNG.
    """
    columns = max(len(row) for row in rows)
    figure, axes = new_figure(len(rows), columns, width_inches=3.9 * columns, height_inches=3.9 * len(rows))
    for panel in axes.flat:
        panel.set_axis_off()
    for row, panels in zip(rows, axes, strict=True):
        for (title, counts), panel in zip(row.items(), panels, strict=False):
            panel.set_axis_on()
            _draw_confusion(panel, counts, names)
            panel.set(title=title, xlabel=f"{quantity} found", ylabel=f"{quantity}, true")
    figure.savefig(path)


def _allowed(limit: LimitCurve, doses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of right answers at some doses; beyond the curve that at its end, where nothing is wrong any more."""
    return np.asarray(1 - np.interp(np.log(doses), np.log(limit.doses), limit.errors))


def _draw_confusion(panel: Axes, counts: NDArray[np.integer], names: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Few are confused; without the root nothing of it could be seen.
    panel.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    panel.grid(visible=False)
    if len(names) > MOST_WRITTEN:
        ticks = range(0, len(names), 4)
        panel.set_xticks(ticks, names[::4])
        panel.set_yticks(ticks, names[::4])
        return
    panel.set_xticks(range(len(names)), names, rotation=35, ha="right")
    panel.set_yticks(
        range(len(names)), [f"{name}\n({count})" for name, count in zip(names, counts.sum(axis=1), strict=True)]
    )
    for (i, j), share in np.ndenumerate(shares):
        if counts[i, j]:
            colour = "white" if share > 0.3 else "black"
            text = f"{share:.1%}" if share < 0.9995 else "100%"
            panel.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
