"""What is evaluated, and on what: a recogniser, and frames whose sites are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.frames import Frame
from daemon.recognition.recogniser import Recognition

CONDITION = "condition"
"""Key of `LabelledFrame.conditions`: what kind of frame this is, such as a reference condition's name or `vacuum`."""
DOSE = "dose_per_square_angstrom"
"""Key of `LabelledFrame.conditions`: e/Å² of the frame."""


class Recogniser(Protocol):
    """Anything that turns a frame into an atom table; the daemon's own recogniser first of all."""

    def recognise(self, frame: Frame) -> Recognition:
        """Find the atoms of one frame."""


@dataclass(frozen=True)
class LabelledFrame:
    """A simulated frame and the sites that stand in it.

    Attributes:
        frame: What the recogniser is given. Its calibration is the true pixel size.
        positions_angstrom: Shape (sites, 2), x to the right and y down from the centre of the top-left pixel, as in
            the atom table. Sites outside of the frame may be among them.
        species: One name a site.
        ignored: Shape (sites,), true where neither an atom nor nothing is a wrong answer.
        conditions: What was set in the simulation, such as `CONDITION` and `DOSE`; scores are grouped by these.
    """

    frame: Frame
    positions_angstrom: NDArray[np.float64]
    species: tuple[str, ...]
    ignored: NDArray[np.bool_]
    conditions: Mapping[str, float | str]

    def __post_init__(self) -> None:
        sites = len(self.positions_angstrom)
        if self.positions_angstrom.shape != (sites, 2) or len(self.species) != sites or len(self.ignored) != sites:
            raise ValueError(
                f"{self.frame.name}: positions of shape {self.positions_angstrom.shape}, "
                f"{len(self.species)} species and {len(self.ignored)} flags do not speak of the same sites"
            )
        if self.frame.calibration is None:
            raise ValueError(f"{self.frame.name}: a labelled frame needs its pixel size")

    @property
    def pixel_size_angstrom(self) -> float:
        """Å per pixel of the frame."""
        assert self.frame.calibration is not None
        return self.frame.calibration.pixel_size_angstrom
