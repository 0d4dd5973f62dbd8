"""Puts files into a watched folder in the ways acquisition programs do; for tests and demonstrations."""

import shutil
from pathlib import Path
from time import sleep


def rename_in(file: Path, folder: Path) -> Path:
    """Write a file under a temporary name and rename it, as careful programs do; return its new path."""
    destination = folder / file.name
    temporary = folder / f".{file.name}.part"
    shutil.copyfile(file, temporary)
    return temporary.replace(destination)


def write_in_pieces(file: Path, folder: Path, pieces: int, pause_seconds: float) -> Path:
    """Write a file under its final name in equal pieces, with a pause after each, as slow links do; return its path."""
    content = file.read_bytes()
    destination = folder / file.name
    length = -(-len(content) // pieces)
    with destination.open("wb") as writer:
        for start in range(0, len(content), length):
            writer.write(content[start : start + length])
            writer.flush()
            sleep(pause_seconds)
    return destination
