"""Overlays that clients missed, from the results folder; why, is in docs/decisions/0012-overlays-from-files.md."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.protocol import OVERLAY, schema_of


def overlay_header(atoms_header: Mapping[str, Any], file: Path, png: bytes, results: Path) -> dict[str, Any]:
    """Describe an overlay so that it can be found again.

    Args:
        atoms_header: Header of the atoms that are drawn.
        file: The overlay.
        png: What is in it.
        results: The results folder, which holds the file.
    """
    return {
        **atoms_header,
        "schema": schema_of(OVERLAY),
        "published_at": datetime.now(UTC).isoformat(),
        "file": file.relative_to(results).as_posix(),
        "sha256": hashlib.sha256(png).hexdigest(),
    }


def read_overlay(header: Mapping[str, Any], results: Path) -> bytes | None:
    """Return the very overlay that a header describes; None where it was deleted, or drawn anew with other atoms.

    Raises:
        OSError: It cannot be read.
    """
    try:
        png = (results / header["file"]).read_bytes()
    except FileNotFoundError:
        return None
    return png if hashlib.sha256(png).hexdigest() == header["sha256"] else None
