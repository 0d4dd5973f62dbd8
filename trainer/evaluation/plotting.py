"""What all figures of a report share: style, colours, axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

# Okabe and Ito's palette, which colour-blind readers tell apart; markers tell the methods apart a second time.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
METHOD_COLOURS = (BLUE, GREEN, ORANGE, PURPLE, SKY)
METHOD_MARKERS = ("o", "s", "^", "D", "v")
LIMIT_COLOUR = "0.25"

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "savefig.dpi": 160,
}

# A score of exactly 1 has no place on a logit axis, and few test sets tell 0.9995 from it.
SCORE_TICKS = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999)
SCORE_RANGE = (0.005, 0.9995)


def new_figure(
    rows: int,
    columns: int,
    width_inches: float,
    height_inches: float,
    height_ratios: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its axes, shape (rows, columns), without touching what a notebook may be drawing."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex="col" if share_x else False, height_ratios=height_ratios
    )
    return figure, axes


def score_axis(panel: Axes) -> None:
    """A logit axis: 0.99 and 0.999 are as far apart as 0.9 and 0.99, for each is a tenth of the errors."""
    shown = np.concatenate([SCORE_RANGE[1:], *(np.asarray(line.get_ydata(), float) for line in panel.lines)])
    lowest = np.nanmin(shown)
    for line in panel.lines:
        line.set_ydata(np.clip(line.get_ydata(), *SCORE_RANGE))
    floor = max((tick for tick in SCORE_TICKS if tick < lowest), default=SCORE_RANGE[0])
    panel.set_ylim(floor, SCORE_RANGE[1])
    panel.set_yscale("logit")
    panel.yaxis.set_major_locator(FixedLocator(SCORE_TICKS))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def plot_limit(
    panel: Axes,
    doses: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str = LIMIT_COLOUR,
    label: str = "physical limit",
) -> None:
    """What physics allows, against dose."""
    panel.plot(doses, values, color=colour, linestyle="--", linewidth=1.2, label=label)


def dose_axis(panel: Axes, doses: Sequence[float]) -> None:
    """A logarithmic axis that shows all doses."""
    # By itself an axis looks only at what is drawn, which may be nothing: a network that finds no site.
    panel.set_xlim(min(doses) / 1.3, max(doses) * 1.3)
    panel.set_xscale("log")
