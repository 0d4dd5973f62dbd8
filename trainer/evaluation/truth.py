"""What is evaluated, and on what: a recogniser, and frames or focal series whose sites are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daemon.frames import FocalSeries, Frame
from daemon.recognition.recogniser import Recognition
from trainer.evaluation.matching import View

CONDITION = "condition"
"""Key of `LabelledFrame.conditions`: what kind of frame this is, such as a reference condition's name or `vacuum`."""
DOSE = "dose_per_square_angstrom"
"""Key of `LabelledFrame.conditions`: e/Å² of the frame, or of each frame of a series."""


class Recogniser(Protocol):
    """Anything that turns a frame or a series into an atom table; the daemon's own recogniser first of all."""

    def recognise(self, subject: Frame | FocalSeries, /) -> Recognition:
        """Find the atoms of one frame or of one series."""


@dataclass(frozen=True)
class LabelledFrame:
    """A simulated frame, or focal series, and the sites that stand in it.

    Attributes:
        subject: What the recogniser is given. The calibration is the true pixel size; a series does not tell its drift.
        positions_angstrom: Shape (sites, 2), x to the right and y down from the centre of the top-left pixel of the
            frame, of a series its first, as in the atom table. Sites outside of the frame may be among them.
        species: One name a site.
        ignored: Shape (sites,), true where neither an atom nor nothing is a wrong answer.
        conditions: What was set in the simulation, such as `CONDITION` and `DOSE`; scores are grouped by these.
        atom_counts: Shape (sites,), atoms in each column; None where columns are not counted.
        drift_angstrom: Shape (3, 2), the true drift of a series, as `FocalSeries` has the measured one; else None.
    """

    subject: Frame | FocalSeries
    positions_angstrom: NDArray[np.float64]
    species: tuple[str, ...]
    ignored: NDArray[np.bool_]
    conditions: Mapping[str, float | str]
    atom_counts: NDArray[np.integer[Any]] | None = None
    drift_angstrom: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        sites = len(self.positions_angstrom)
        if self.positions_angstrom.shape != (sites, 2) or len(self.species) != sites or len(self.ignored) != sites:
            raise ValueError(
                f"{self.frame.name}: positions of shape {self.positions_angstrom.shape}, "
                f"{len(self.species)} species and {len(self.ignored)} flags do not speak of the same sites"
            )
        if self.atom_counts is not None and len(self.atom_counts) != sites:
            raise ValueError(f"{self.frame.name}: {len(self.atom_counts)} counts for {sites} sites")
        if self.frame.calibration is None:
            raise ValueError(f"{self.frame.name}: a labelled frame needs its pixel size")
        if isinstance(self.subject, FocalSeries) != (self.drift_angstrom is not None):
            raise ValueError(f"{self.frame.name}: a labelled series needs its true drift, and a single frame has none")

    @property
    def frame(self) -> Frame:
        """The frame that positions refer to: the only one, or the first of a series."""
        return self.subject if isinstance(self.subject, Frame) else self.subject.reference

    @property
    def view(self) -> View:
        """The part that is judged; of a series what every frame shows."""
        return View.of_frame(self.frame.pixels.shape, self.pixel_size_angstrom).shared(self.drift_angstrom)

    @property
    def pixel_size_angstrom(self) -> float:
        """Å per pixel of every frame."""
        assert self.frame.calibration is not None
        return self.frame.calibration.pixel_size_angstrom
