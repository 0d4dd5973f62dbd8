"""One tiny rebuild that all tests of the trainer's way share."""

import subprocess
import sys
from pathlib import Path

import pytest

HRTEMD_TRAIN = Path(sys.executable).with_name("hrtemd-train")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of `hrtemd-train rebuild graphene --smoke`."""
    work = tmp_path_factory.mktemp("smoke")
    command = [str(HRTEMD_TRAIN), "rebuild", "graphene", "--smoke", "--work", str(work)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert finished.returncode == 0, finished.stderr
    return work
