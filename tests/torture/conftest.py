"""The small model package of the daemon's tests."""

from pathlib import Path

import pytest

from tests.daemon.conftest import write_blob_package


@pytest.fixture(scope="session")
def blob_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blob_package(tmp_path_factory.mktemp("models") / "blobs", frames=1)
