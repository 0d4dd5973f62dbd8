"""Engines in the process of the daemon."""

import subprocess
import sys
from pathlib import Path

_SIGNALLED_AFTER_ENGINES_CAME_AND_WENT = """
import signal, sys
from pathlib import Path
from daemon.recognition.backends.openvino import load

first, second = (load(Path(path)) for path in sys.argv[1:])
del first, second
signal.signal(signal.SIGTERM, lambda *_: print("stopping in good order"))
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_are_survived_after_engines_came_and_went(blob_model: Path, blob_triplet_model: Path) -> None:
    networks = [str(model / "model.onnx") for model in (blob_model, blob_triplet_model)]
    command = [sys.executable, "-c", _SIGNALLED_AFTER_ENGINES_CAME_AND_WENT, *networks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopping in good order\n"), done.stderr
