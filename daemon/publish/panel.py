"""What stands below the frame in an overlay: warnings, name, scale bar, legend, calibration, model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from daemon.atoms import VACANCY
from daemon.frames import Calibration, CalibrationSource, FocalSeries
from daemon.publish.colouring import Colouring
from daemon.publish.lettering import LINE_HEIGHT, REGULAR, SEMIBOLD, draw_text, shorten_text, text_width, wrap_text
from daemon.publish.marks import draw_rings
from daemon.publish.palette import Colour, height_colours, probability_colours
from daemon.publish.scale_bar import scale_bar
from daemon.recognition.recogniser import Recognition

BACKGROUND: Colour = (17, 20, 24)
_BRIGHT: Colour = (245, 245, 245)
_DIM: Colour = (165, 171, 179)
_AMBER: Colour = (245, 190, 65)
_INK: Colour = (28, 24, 10)

_CALIBRATION_WORDS = {
    CalibrationSource.OVERRIDE: "as configured",
    CalibrationSource.SIDECAR: "from the sidecar",
    CalibrationSource.METADATA: "from the frame's metadata",
    CalibrationSource.ESTIMATED: "ESTIMATED from the lattice",
}


@dataclass(frozen=True)
class PanelSize:
    """Lengths in the overlay's own pixels; all that are not here follow from the type size."""

    width_px: int
    type_px: int
    pixels_per_angstrom: float
    frame_width_angstrom: float

    @property
    def line_px(self) -> int:
        """From one line of text to the next."""
        return round(LINE_HEIGHT * self.type_px)

    @property
    def text_width_px(self) -> int:
        """Between the margins, which are as wide as the type is high."""
        return self.width_px - 2 * self.type_px

    def strip(self, height_px: int, colour: Colour = BACKGROUND) -> NDArray[np.uint8]:
        """Return an empty piece of the panel."""
        return np.full((height_px, self.width_px, 3), colour, np.uint8)


@dataclass(frozen=True)
class _Item:
    """A few words, with a patch of image before them where they explain a colour."""

    text: str
    colour: Colour = _BRIGHT
    weight: int = REGULAR
    swatch: NDArray[np.uint8] | None = None


def draw_panel(
    recognition: Recognition, counts: dict[str, int], colouring: Colouring, size: PanelSize
) -> NDArray[np.uint8]:
    """Draw what an operator needs to read the frame above.

    Args:
        recognition: What was found, where and by what.
        counts: Rows of the table by class.
        colouring: What the colours above mean.
        size: Lengths.

    Returns:
        Shape (height, `size.width_px`, 3), red, green, blue.
    """
    strips = [_warning_strip(warning, size) for warning in recognition.warnings]
    strips.append(_title_strip(recognition.subject.name, size))
    strips.append(_flow_strip(_legend(recognition.table, counts, colouring, size), size))
    if recognition.series is not None:
        strips.append(_flow_strip(_series(recognition.series), size))
    strips.append(_flow_strip(_provenance(recognition), size))
    strips.append(size.strip(size.type_px // 2))
    return np.vstack(strips)


def _warning_strip(warning: str, size: PanelSize) -> NDArray[np.uint8]:
    lines = wrap_text(warning, size.text_width_px, size.type_px, SEMIBOLD)
    padding_px = size.type_px // 4
    strip = size.strip(len(lines) * size.line_px + 2 * padding_px, _AMBER)
    for number, line in enumerate(lines):
        draw_text(strip, line, size.type_px, padding_px + number * size.line_px, size.type_px, _INK, SEMIBOLD)
    # A thin line parts it from the next warning.
    strip[-max(1, size.type_px // 10) :] = BACKGROUND
    return strip


def _title_strip(name: str, size: PanelSize) -> NDArray[np.uint8]:
    """The frame's name on the left, the scale bar on the right."""
    type_px = size.type_px
    strip = size.strip(round(2.5 * type_px))

    bar = scale_bar(size.frame_width_angstrom)
    bar_px = max(1, round(bar.length_angstrom * size.pixels_per_angstrom))
    label_px = text_width(bar.label, type_px, SEMIBOLD)
    centre_px = size.width_px - type_px - max(bar_px, label_px) // 2
    draw_text(strip, bar.label, centre_px - label_px // 2, round(0.35 * type_px), type_px, _BRIGHT, SEMIBOLD)
    bar_left_px = centre_px - bar_px // 2
    strip[round(1.85 * type_px) : round(2.1 * type_px), bar_left_px : bar_left_px + bar_px] = _BRIGHT

    name_type_px = round(1.4 * type_px)
    room_px = centre_px - max(bar_px, label_px) // 2 - 3 * type_px
    shown = shorten_text(name, room_px, name_type_px, SEMIBOLD)
    draw_text(strip, shown, type_px, round(0.5 * type_px), name_type_px, _BRIGHT, SEMIBOLD)
    return strip


def _legend(table: pa.Table, counts: dict[str, int], colouring: Colouring, size: PanelSize) -> list[_Item]:
    if not table.num_rows:
        return [_Item("Nothing found in this frame", weight=SEMIBOLD)]
    items = [_Item(_count_words(table), weight=SEMIBOLD)]
    if len(counts) > 1:
        items += [
            _Item(f"{name} {counts[name]:,}", swatch=_ring_swatch(name, colouring.classes[name], size))
            for name in colouring.classes
        ]
    if colouring.deepest is not None:
        scale = height_colours(np.arange(1, colouring.deepest + 1), colouring.deepest)
        words = f"atoms in a column, here {_span(table, 'n_atoms', 'd')}"
        items.append(_Item(words, swatch=_scale_swatch(scale, "1", f"{colouring.deepest}", size)))
    words = f"probability, here {_span(table, 'probability', '.2f')}"
    if colouring.classes or colouring.deepest is not None:
        return [*items, _Item(words)]
    scale = probability_colours(np.linspace(0, 1, 256))
    return [*items, _Item(words, swatch=_scale_swatch(scale, "0", "1", size))]


def _span(table: pa.Table, column: str, digits: str) -> str:
    span = pyarrow.compute.min_max(table.column(column)).as_py()
    lowest, highest = format(span["min"], digits), format(span["max"], digits)
    return lowest if lowest == highest else f"{lowest} to {highest}"


def _series(series: FocalSeries) -> list[_Item]:
    """What the frames of a series are, in order of defocus, and how far each one drifted from the first in time."""
    defocus = ", ".join(f"{value:.0f}" for value in series.defocus_angstrom)
    items = [_Item(f"focal series at defocus {defocus} Å"), _Item(f"shown: {series.reference.name}, taken first", _DIM)]
    if series.drift_angstrom is not None:
        drift = ", ".join(f"{value:.1f}" for value in np.hypot(*series.drift_angstrom.T))
        items.append(_Item(f"drift from it {drift} Å", _DIM))
    return items


def _provenance(recognition: Recognition) -> list[_Item]:
    milliseconds = sum(recognition.latency_ms.values())
    facts = [f"model {recognition.model}", recognition.backend, f"{milliseconds:.0f} ms", recognition.subject.frame_id]
    return [_calibration_item(recognition.calibration), *(_Item(fact, _DIM) for fact in facts)]


def _calibration_item(calibration: Calibration) -> _Item:
    words = f"{calibration.pixel_size_angstrom:.4g} Å per pixel, {_CALIBRATION_WORDS[calibration.source]}"
    if calibration.source is CalibrationSource.ESTIMATED:
        return _Item(words, _AMBER, SEMIBOLD)
    return _Item(words, _DIM)


def _count_words(table: pa.Table) -> str:
    kinds: dict[str, int] = {}
    for kind in table.column("kind").to_pylist():
        kinds[kind] = kinds.get(kind, 0) + 1
    plurals = {"vacancy": "vacancies"}
    return ", ".join(
        f"{count:,} {kind if count == 1 else plurals.get(kind, kind + 's')}" for kind, count in kinds.items()
    )


def _ring_swatch(name: str, colour: Colour, size: PanelSize) -> NDArray[np.uint8]:
    side_px = round(1.15 * size.type_px)
    swatch = np.full((side_px, side_px, 3), BACKGROUND, np.uint8)
    centre = np.full((1, 2), (side_px - 1) / 2)
    draw_rings(swatch, centre, 0.36 * side_px, np.array([colour], np.uint8), np.array([name == VACANCY]))
    return swatch


def _scale_swatch(colours: NDArray[np.uint8], low: str, high: str, size: PanelSize) -> NDArray[np.uint8]:
    """The colours of a scale, shape (steps, 3), with both ends written on it."""
    height_px, width_px = round(1.15 * size.type_px), 9 * size.type_px
    steps = np.arange(width_px) * len(colours) // width_px
    swatch = np.repeat(colours[steps][None], height_px, axis=0)
    number_type_px = round(0.8 * size.type_px)
    inset_px = round(0.3 * size.type_px)
    top_px = round(0.06 * size.type_px)
    draw_text(swatch, low, inset_px, top_px, number_type_px, _BRIGHT, SEMIBOLD)
    high_left_px = width_px - inset_px - text_width(high, number_type_px, SEMIBOLD)
    draw_text(swatch, high, high_left_px, top_px, number_type_px, _INK, SEMIBOLD)
    return swatch


def _flow_strip(items: list[_Item], size: PanelSize) -> NDArray[np.uint8]:
    """Set items one after the other, on as many lines as they need."""
    lines = [size.strip(size.line_px)]
    left_px = size.type_px
    gap_px = round(1.6 * size.type_px)
    for item in items:
        swatch_px = 0 if item.swatch is None else item.swatch.shape[1] + round(0.45 * size.type_px)
        text = shorten_text(item.text, size.text_width_px - swatch_px, size.type_px, item.weight)
        needed_px = swatch_px + text_width(text, size.type_px, item.weight)
        if left_px > size.type_px and left_px + needed_px > size.width_px - size.type_px:
            lines.append(size.strip(size.line_px))
            left_px = size.type_px
        if item.swatch is not None:
            _paste(lines[-1], item.swatch, left_px, round(0.72 * size.type_px) - item.swatch.shape[0] // 2)
        draw_text(lines[-1], text, left_px + swatch_px, 0, size.type_px, item.colour, item.weight)
        left_px += needed_px + gap_px
    return np.vstack(lines)


def _paste(image: NDArray[np.uint8], patch: NDArray[np.uint8], left_px: int, top_px: int) -> None:
    height_px, width_px = patch.shape[:2]
    image[top_px : top_px + height_px, left_px : left_px + width_px] = patch
