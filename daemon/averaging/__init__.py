"""Low dose: each frame averaged with those before it, drift taken off, before atoms are looked for."""

from daemon.averaging.source import AveragedSource
from daemon.averaging.sums import Weights

__all__ = ["AveragedSource", "Weights"]
