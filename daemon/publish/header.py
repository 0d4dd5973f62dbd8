"""What is said about an atom table besides its rows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from daemon.atoms import counts_by_species, found_in_words, with_header
from daemon.frames import Average, FocalSeries
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival


def result_header(arrival: Arrival, recognition: Recognition) -> dict[str, Any]:
    """Describe where a table came from: frame, calibration, model, times (ISO 8601, UTC), milliseconds by stage.

    Of a focal series, `shape` and `acquired_at` are those of the frame that positions refer to, and `series` says which
    frames it is made of; `series` of a single frame is null. `average` says which frames a frame's pixels are the mean
    of; it is null for an image as it came.
    """
    frame, series = recognition.frame, recognition.series
    frames = series.frames if series else (frame,)
    doses = [frame.acquisition.dose_per_square_angstrom for frame in frames]
    return {
        "schema": "hrtemd.atoms.v1",
        "frame_id": arrival.subject.frame_id,
        "name": arrival.subject.name,
        "shape": list(frame.pixels.shape),  # height, width
        "source": arrival.source,
        "origin": arrival.origin,
        "acquired_at": frame.acquired_at.astimezone(UTC).isoformat() if frame.acquired_at else None,
        "received_at": max(frame.received_at for frame in frames).astimezone(UTC).isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "pixel_size_angstrom": recognition.calibration.pixel_size_angstrom,
        "calibration_source": str(recognition.calibration.source),
        # Of all frames together; null where one of them does not tell.
        "dose_per_square_angstrom": sum(dose for dose in doses if dose) if all(doses) else None,
        "model": recognition.model,
        "model_sha256": recognition.model_sha256,
        "backend": recognition.backend,
        "latency_ms": {"read": arrival.read_ms, **recognition.latency_ms},
        "counts": counts_by_species(recognition.table),
        "found": found_in_words(recognition.table),
        "warnings": recognition.warnings,
        "series": _describe(series) if series else None,
        "average": _describe_average(frame.average) if frame.average else None,
    }


def result_table(arrival: Arrival, recognition: Recognition) -> pa.Table:
    """Return the atom table with its header, as it is written and sent."""
    return with_header(recognition.table, result_header(arrival, recognition))


def event_header(source: str, what: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an event: `message` says what happened, or `error` what went wrong."""
    return {
        "schema": "hrtemd.event.v1",
        "source": source,
        "published_at": datetime.now(UTC).isoformat(),
        **what,
    }


def _describe(series: FocalSeries) -> dict[str, Any]:
    """Say which frames a series is made of, in order of defocus."""
    return {
        "members": [frame.frame_id for frame in series.frames],
        "names": [frame.name for frame in series.frames],
        "defocus_angstrom": list(series.defocus_angstrom),
        # Where the point at (0, 0) of the frame acquired first stands in each, x to the right and y down.
        "drift_angstrom": None if series.drift_angstrom is None else series.drift_angstrom.tolist(),
        "first": series.first,  # place, in these lists, of the frame acquired first: positions refer to it
        "offered": list(series.offered),  # names of all frames, where these were chosen from more than three
    }


def _describe_average(average: Average) -> dict[str, Any]:
    """Say which frames a frame's pixels are the mean of, the oldest first."""
    return {
        "members": list(average.members),
        # Where the point at (0, 0) of the frame stands in each, x to the right and y down.
        "drift_angstrom": average.drift_angstrom.tolist(),
        "drift_angstrom_per_second": average.drift_angstrom_per_second,
        "dose_per_square_angstrom": average.dose_per_square_angstrom,
    }
