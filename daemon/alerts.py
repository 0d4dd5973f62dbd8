"""Events an acquisition script can act on: a lattice at last, too many vacancies, too much lost, drift, focus, signal.

Each is told once when its limit is crossed, and again only after it was clearly back on the other side.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from daemon.analysis import Change, Measured, compare, count_vacancies
from daemon.atoms import header_of
from daemon.config.alerts import Alerts
from daemon.errors import HrtemdError
from daemon.frames import FocalSeries
from daemon.publish.header import result_table
from daemon.recognition.judgement import shows_lattice
from daemon.recognition.package import Manifest, is_within
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival

BACK_BY = 0.1
"""Of a limit; so far on the other side of it a value must be before crossing it is told again."""

LOST_FRAMES = 3
"""After so many frames without a lattice, none is seen any more."""

DEVIATIONS = 2.0
"""By so many standard deviations a measured value must be above its limit."""

Kind = Literal["lattice_seen", "focus_outside_range", "vacancy_density", "atoms_lost", "drift", "signal"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """Something to act on.

    Attributes:
        kind: What it is about.
        sentence: For the operator.
        value: What was measured; None where it is no number.
        limit: What it crossed: that of config.toml, or the nearer end of the model's range; None where there is none.
        frame_id: Of the frame or focal series that shows it.
        name: What the operator knows it by.
    """

    kind: Kind
    sentence: str
    value: float | None
    limit: float | None
    frame_id: str
    name: str

    def as_event(self) -> dict[str, Any]:
        """What is added to an event's header."""
        return {
            "alert": self.kind,
            "message": self.sentence,
            "value": self.value,
            "limit": self.limit,
            "frame_id": self.frame_id,
            "name": self.name,
        }


class _Reading(NamedTuple):
    """What one frame says of one kind; where it is neither beyond its limit nor back, all stays as it was."""

    kind: Kind
    sentence: str
    value: float | None
    limit: float | None
    is_beyond: bool
    is_back: bool


class AlertWatch:
    """Watches the results of one source.

    Args:
        settings: Which events are wanted, and their limits.
        manifest: Of the source's model.
    """

    def __init__(self, settings: Alerts, manifest: Manifest) -> None:
        self._settings = settings
        self._manifest = manifest
        self._raised: set[Kind] = set()
        self._without_lattice = LOST_FRAMES
        self._lattice_was_seen = False
        self._before: pa.Table | None = None
        if settings.vacancy_density_above_per_square_nm is not None and manifest.specimen != "mos2":
            log.warning("The model %s tells no vacancies, so there will be no event about them.", manifest.name)

    def of(self, arrival: Arrival, recognition: Recognition) -> list[Alert]:
        """What is new in this result; results come in the order of their frames."""
        alerts = []
        for reading in self._readings(arrival, recognition):
            if reading.is_beyond and reading.kind not in self._raised:
                self._raised.add(reading.kind)
                subject = arrival.subject
                alerts.append(Alert(*reading[:4], frame_id=subject.frame_id, name=subject.name))
            elif reading.is_back:
                self._raised.discard(reading.kind)
        return alerts

    def _readings(self, arrival: Arrival, recognition: Recognition) -> Iterator[_Reading]:
        settings = self._settings
        if settings.lattice_seen or settings.focus_outside_range:
            yield from self._lattice_and_focus(recognition)
        if settings.signal_below is not None:
            yield _signal(recognition, settings.signal_below)
        if settings.vacancy_density_above_per_square_nm is not None and self._manifest.specimen == "mos2":
            density = count_vacancies(recognition.table).density_per_square_nm
            what = "There are {:.2g} vacancies per nm²"
            yield _above("vacancy_density", density, settings.vacancy_density_above_per_square_nm, what)
        change = self._change(arrival, recognition)
        if settings.atoms_lost_per_dose_above is not None and change and change.atoms_lost_per_dose:
            what = "{:.2g} atoms are lost for each e/Å²"
            yield _above("atoms_lost", change.atoms_lost_per_dose, settings.atoms_lost_per_dose_above, what)
        yield from self._drift(recognition, change)

    def _lattice_and_focus(self, recognition: Recognition) -> Iterator[_Reading]:
        peaks = recognition.peaks
        is_seen = peaks is not None and shows_lattice(recognition.calibration, peaks, self._manifest)
        self._without_lattice = 0 if is_seen else self._without_lattice + 1
        is_lost = self._without_lattice >= LOST_FRAMES
        if self._settings.lattice_seen:
            found = f"A lattice is seen: {recognition.table.num_rows} {self._manifest.kind}s."
            yield _Reading("lattice_seen", found, None, None, is_seen, is_lost)
        if self._settings.focus_outside_range:
            low, high = self._manifest.ranges.defocus_angstrom
            defocus = _defocus(recognition)
            if defocus is not None and not is_within(defocus, low, high):
                outside = (
                    f"The defocus, {defocus:g} Å, is outside of what the model {self._manifest.name} was trained for "
                    f"({low:g} to {high:g} Å)."
                )
                limit = low if defocus < low else high
                yield _Reading("focus_outside_range", outside, defocus, limit, is_beyond=True, is_back=False)
            else:
                gone = f"No lattice in {LOST_FRAMES} frames, where there was one: focus or specimen moved away."
                is_gone = is_lost and self._lattice_was_seen
                is_back = not is_gone and (is_seen or defocus is not None)
                yield _Reading("focus_outside_range", gone, None, None, is_gone, is_back)
        self._lattice_was_seen |= is_seen

    def _change(self, arrival: Arrival, recognition: Recognition) -> Change | None:
        """From the last result that shares no frame with this one; None where they cannot be compared."""
        settings, average = self._settings, recognition.frame.average
        drift_is_wanted = settings.drift_above_angstrom_per_second or settings.drift_above_angstrom_per_frame
        drift_is_unknown = recognition.series is None and average is None
        if settings.atoms_lost_per_dose_above is None and not (drift_is_wanted and drift_is_unknown):
            return None
        now = result_table(arrival, recognition)
        before = self._before
        if before is not None and average is not None and _members(before) & set(average.members):
            return None
        self._before = now
        if before is None or not before.num_rows or not now.num_rows:
            return None
        try:
            return compare(before, now)
        except HrtemdError as error:
            log.debug("%s: not compared with the result before: %s", arrival.subject.name, error)
            return None

    def _drift(self, recognition: Recognition, change: Change | None) -> Iterator[_Reading]:
        """One reading, of the limit that is exceeded most."""
        drift = _drift_of(recognition, change)
        readings = [
            _above("drift", Measured(value, 0.0), limit, what)
            for value, limit, what in (
                (
                    drift.angstrom_per_second,
                    self._settings.drift_above_angstrom_per_second,
                    "The specimen drifts by {:.2g} Å/s",
                ),
                (
                    drift.angstrom_per_frame,
                    self._settings.drift_above_angstrom_per_frame,
                    "The specimen drifts by {:.2g} Å a frame",
                ),
            )
            if value is not None and limit is not None
        ]
        if readings:
            yield max(readings, key=lambda reading: (reading.value or 0) / (reading.limit or 1))


class _Drift(NamedTuple):
    angstrom_per_second: float | None
    angstrom_per_frame: float | None


def _drift_of(recognition: Recognition, change: Change | None) -> _Drift:
    """How fast the specimen moves: within an average or a series, or else since the result before."""
    if average := recognition.frame.average:
        return _Drift(average.drift_angstrom_per_second, average.last_step_angstrom)
    if recognition.series:
        return _drift_within(recognition.series)
    if change is None or not change.drift.is_certain:
        return _Drift(None, None)
    step = float(np.hypot(*change.drift.drift_angstrom))
    return _Drift(step / change.seconds if change.seconds else None, step)


def _drift_within(series: FocalSeries) -> _Drift:
    """The largest step and the highest speed, from one frame to the one taken next."""
    if series.drift_angstrom is None:
        return _Drift(None, None)
    times = [frame.acquired_at for frame in series.frames]
    order = [series.first, *(index for index in range(3) if index != series.first)]
    if all(times):
        order.sort(key=lambda index: (times[index], index != series.first))
    steps, speeds = [], []
    for one, other in pairwise(order):
        steps.append(float(np.hypot(*(series.drift_angstrom[other] - series.drift_angstrom[one]))))
        start, end = times[one], times[other]
        if start and end and end > start:
            speeds.append(steps[-1] / (end - start).total_seconds())
    return _Drift(max(speeds, default=None), max(steps))


def _defocus(recognition: Recognition) -> float | None:
    """Of a frame, or of the middle frame of a series."""
    series = recognition.series
    return series.defocus_angstrom[1] if series else recognition.frame.acquisition.defocus_angstrom


def _signal(recognition: Recognition, limit: float) -> _Reading:
    mean = float(recognition.frame.pixels.mean())
    sentence = f"The signal is too low: {mean:.3g} counts a pixel, the limit is {limit:g}. Is the beam on the specimen?"
    return _Reading("signal", sentence, mean, limit, mean < limit, mean > limit * (1 + BACK_BY))


def _above(kind: Kind, measured: Measured, limit: float, what: str) -> _Reading:
    """A reading of a value that should stay below its limit; one that is not known leaves all as it was."""
    value, deviation = measured.value, measured.standard_deviation
    # A value that is not known, NaN, is neither.
    is_beyond, is_back = value - DEVIATIONS * deviation > limit, value < limit * (1 - BACK_BY)
    return _Reading(kind, f"{what.format(value)}; the limit is {limit:g}.", value, limit, is_beyond, is_back)


def _members(table: pa.Table) -> set[str]:
    return set((header_of(table).get("average") or {}).get("members", []))
