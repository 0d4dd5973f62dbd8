"""What is said about an atom table besides its rows."""

from datetime import UTC, datetime
from typing import Any

from daemon.atoms import counts_by_species
from daemon.recognition.recogniser import Recognition
from daemon.sources.source import Arrival


def result_header(arrival: Arrival, recognition: Recognition) -> dict[str, Any]:
    """Describe where a table came from: frame, calibration, model, times (ISO 8601, UTC), milliseconds by stage."""
    frame = recognition.frame
    return {
        "schema": "hrtemd.atoms.v1",
        "frame_id": frame.frame_id,
        "name": frame.name,
        "shape": list(frame.pixels.shape),  # height, width
        "source": arrival.source,
        "origin": arrival.origin,
        "acquired_at": frame.acquired_at.astimezone(UTC).isoformat() if frame.acquired_at else None,
        "received_at": frame.received_at.astimezone(UTC).isoformat(),
        "published_at": datetime.now(UTC).isoformat(),
        "pixel_size_angstrom": recognition.calibration.pixel_size_angstrom,
        "calibration_source": str(recognition.calibration.source),
        "model": recognition.model,
        "model_sha256": recognition.model_sha256,
        "backend": recognition.backend,
        "latency_ms": {"read": arrival.read_ms, **recognition.latency_ms},
        "counts": counts_by_species(recognition.table),
        "warnings": recognition.warnings,
    }
