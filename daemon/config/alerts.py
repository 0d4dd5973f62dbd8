"""`[alerts]`: what an acquisition script is told, and from which value on."""

from daemon.config.section import PositiveNumber, Section


class Alerts(Section):
    """Events that an acquisition script can act on; a key that is not given brings none. See docs/alerts.md."""

    lattice_seen: bool = False
    """When a lattice is seen, and there was none before."""

    focus_outside_range: bool = False
    """When the defocus leaves what the model was trained for, or the lattice is seen no more."""

    vacancy_density_above_per_square_nm: PositiveNumber | None = None
    """When there surely are more vacancies than this; for models of MoS2."""

    atoms_lost_per_dose_above: PositiveNumber | None = None
    """When for each e/Å² surely more atoms are lost than this, from one frame of an area to the next."""

    drift_above_angstrom_per_second: PositiveNumber | None = None
    """When the specimen moves faster; needs the time each frame was taken."""

    drift_above_angstrom_per_frame: PositiveNumber | None = None
    """When the specimen moves farther from one frame to the next."""

    signal_below: PositiveNumber | None = None
    """When the mean of a frame's pixels, as the camera counts, is less."""
