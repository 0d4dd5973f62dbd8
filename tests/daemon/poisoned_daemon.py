"""`hrtemd run`, in an engine that kills the process on every frame whose name holds `poison`."""

import os
import signal
import sys
from pathlib import Path

from daemon.config import load_configuration
from daemon.recognition.package import ModelPackage
from daemon.recognition.recogniser import Inferred, Prepared, Recogniser
from daemon.service import run_daemon


class Poisoned(Recogniser):
    def infer(self, prepared: Prepared) -> Inferred:
        if "poison" in prepared.subject.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().infer(prepared)


def load(package: ModelPackage, backend: str) -> Recogniser:
    return Poisoned(package, backend)


if __name__ == "__main__":
    sys.exit(run_daemon(load_configuration(Path(sys.argv[1]), verify=True), load))
