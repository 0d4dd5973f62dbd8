"""What a frame must be like for a model to be asked."""

from dataclasses import dataclass

from daemon.frames import FocalSeries, Frame
from daemon.recognition.package import Range, is_within


@dataclass(frozen=True)
class Conditions:
    """What a frame must be like; a frame that does not tell a value does not meet a condition on it.

    Attributes:
        voltage_kv: Lowest and highest; None where any will do.
        pixel_size_angstrom: The same, Å per pixel.
    """

    voltage_kv: Range | None = None
    pixel_size_angstrom: Range | None = None

    def are_met_by(self, subject: Frame | FocalSeries) -> bool:
        """Whether a frame, or every frame of a series, is like that."""
        return all(
            wanted is None or (value is not None and is_within(value, *wanted))
            for frame in subject.frames
            for value, wanted in (
                (frame.acquisition.voltage_kv, self.voltage_kv),
                (_pixel_size_angstrom(frame), self.pixel_size_angstrom),
            )
        )

    def __str__(self) -> str:
        """Say them in words; empty where there are none."""
        spans = (("voltage", self.voltage_kv, "kV"), ("pixel size", self.pixel_size_angstrom, "Å"))
        return ", ".join(f"{name} {span[0]:g} to {span[1]:g} {unit}" for name, span, unit in spans if span)


def described(subject: Frame | FocalSeries) -> str:
    """Say in words what a frame or series is like."""
    voltages = {_in_words("voltage", frame.acquisition.voltage_kv, "kV") for frame in subject.frames}
    pixel_sizes = {_in_words("pixel size", _pixel_size_angstrom(frame), "Å") for frame in subject.frames}
    return f"{' or '.join(sorted(voltages))} and {' or '.join(sorted(pixel_sizes))}"


def _in_words(name: str, value: float | None, unit: str) -> str:
    return f"no known {name}" if value is None else f"a {name} of {value:g} {unit}"


def _pixel_size_angstrom(frame: Frame) -> float | None:
    return frame.calibration.pixel_size_angstrom if frame.calibration else None
