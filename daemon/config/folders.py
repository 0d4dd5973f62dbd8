"""Folders that a configuration names, looked at before anything runs."""

import os
from pathlib import Path

from daemon.config.section import unusable


def check_readable(folder: Path) -> None:
    """Refuse a folder that is not there or may not be read, as a validator does."""
    if not folder.is_dir():
        raise unusable(f"the folder {folder} does not exist; create it, or mount the share it lies on")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise unusable(f"the folder {folder} may not be read by this user; change its permissions")


def check_writable(folder: Path, purpose: str) -> None:
    """Refuse a folder that cannot be made or written, as a validator does.

    Args:
        folder: It need not exist.
        purpose: What it is for, as in "results".
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise unusable(f"{existing} is a file, not a folder; name another folder for {purpose}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise unusable(f"the folder {existing} may not be written by this user; change its permissions")
