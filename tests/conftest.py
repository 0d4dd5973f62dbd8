"""What tests share: the shipped models and the folder of real files."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_files() -> Path:
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real files here: {folder} is absent")
    return folder
