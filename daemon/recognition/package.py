"""Model packages: a folder with `manifest.json`, `model.onnx`, `MODEL_CARD.md` and `report/`."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.errors import ModelError

Range = tuple[float, float]
"""Lowest and highest value, both included."""


def is_within(value: float, low: float, high: float) -> bool:
    """Whether a value is in a range, as exactly as metadata are rounded."""
    return low - 1e-3 * abs(low) <= value <= high + 1e-3 * abs(high)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StatedRanges(_Section):
    """What the model was trained for. Outside of it a frame is analysed with a warning."""

    pixel_size_angstrom: Range
    dose_per_square_angstrom: Range
    voltage_kv: Range
    spherical_aberration_um: Range
    defocus_angstrom: Range
    """Of a single frame, or of the middle frame of a series."""
    defocus_step_angstrom: Range | None = None
    """Between neighbouring frames of a series; None for a model of single frames."""


class Calibration(_Section):
    """Turns the network's numbers into calibrated ones, fitted on held-out simulations.

    probability = logistic(`probability_slope` · logit(p) + `probability_sigma_slope` · ln(s / 0.2 Å) +
    `probability_offset`), with p and s the network's own probability and sigma; sigma = `sigma_scale` · s. What is both
    improbable and vaguely placed is what noise looks like, so sigma has a say in the probability.

    Probabilities of the classes of a site, and of the numbers of atoms in a column, are each raised to the power
    1 / temperature and made to add up to 1 again (Guo et al., On Calibration of Modern Neural Networks, ICML 2017): a
    temperature above 1 makes a network that is too sure of itself less so, and never changes what is most probable.
    Before that, `species_offsets` are added to the logarithms of the classes' probabilities where there are any: they
    take back what a network overstates of one class, such as one that counted many times over in its training.
    """

    probability_slope: float = 1.0
    probability_sigma_slope: float = 0.0
    probability_offset: float = 0.0
    sigma_scale: Annotated[float, Field(gt=0)] = 1.0
    species_offsets: tuple[float, ...] = ()
    """One a class, in the order of the manifest, or none."""
    species_temperature: Annotated[float, Field(gt=0)] = 1.0
    atoms_temperature: Annotated[float, Field(gt=0)] = 1.0


class Manifest(_Section):
    """Everything that must be known to run a network and to judge what it says."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: str
    task: Literal["positions", "species", "heights"]
    specimen: Literal["graphene", "nanoparticle", "mos2"]
    kind: Literal["atom", "column"]
    input_frames: Literal[1, 3]
    sampling_angstrom: Annotated[float, Field(gt=0)]
    """Å per pixel of the network's input; frames are resampled to it."""
    stride: Annotated[int, Field(ge=1)]
    """Input pixels per cell of the network's output."""
    input_multiple: Annotated[int, Field(ge=1)]
    """Height and width of the input must be multiples of this."""
    receptive_field_pixels: Annotated[int, Field(ge=1)]
    """Half width of the region of the input that a cell of the output sees."""
    classes: tuple[str, ...]
    """Species by channel, after channel 0 which means nothing is there; `metal` means the model tells no element, and
    `vacancy` is a site of the lattice that is empty."""
    deepest_column: Annotated[int, Field(ge=0)] = 0
    """Atoms in the deepest column the model counts, 0 where it does not count. As many channels follow those of the
    classes, the first for a column of one atom."""
    told_defocus: bool = False
    """Whether the network is also given the defocus of each frame of a series."""
    ranges: StatedRanges
    probability_threshold: Annotated[float, Field(gt=0, lt=1)]
    """Candidates of a lower calibrated probability are left out of the table."""
    calibration: Calibration
    onnx_opset: int
    onnx_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    recipe: str
    seed: int
    dataset_specimens: int
    training_seconds: float
    package_versions: dict[str, str]

    @model_validator(mode="after")
    def _one_offset_a_class(self) -> "Manifest":
        if self.calibration.species_offsets and len(self.calibration.species_offsets) != len(self.classes):
            raise ValueError(
                f"{len(self.calibration.species_offsets)} species_offsets do not fit {len(self.classes)} classes"
            )
        return self


@dataclass(frozen=True)
class ModelPackage:
    """A model package whose manifest is valid and whose network is the one the manifest speaks of."""

    folder: Path
    manifest: Manifest

    @property
    def onnx_path(self) -> Path:
        """The network."""
        return self.folder / "model.onnx"

    @classmethod
    def load(cls, folder: Path) -> "ModelPackage":
        """Read and verify a package.

        Raises:
            ModelError: A part is missing, the manifest is invalid, or the network's hash is not the manifest's.
        """
        try:
            manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
            digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        except OSError as error:
            raise ModelError(
                f"Model package {folder}: {error.strerror} ({error.filename}); name a complete one."
            ) from error
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ModelError(f"Model package {folder}: manifest.json is not valid: {problems}.") from error
        if digest != manifest.onnx_sha256:
            raise ModelError(
                f"Model package {folder}: model.onnx is not the network its manifest speaks of "
                f"(SHA-256 {digest[:12]}…, expected {manifest.onnx_sha256[:12]}…); copy the package again."
            )
        return cls(folder, manifest)


def shipped_models() -> list[str]:
    """Names of the models that came with this installation."""
    return sorted(path.parent.name for path in _models_folder().glob("*/manifest.json"))


def find_model(name: str) -> ModelPackage:
    """Load a model by its shipped name, or by the path of its folder.

    Raises:
        ModelError: There is no such model, or it is damaged.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) and (_models_folder() / name / "manifest.json").exists():
        return ModelPackage.load(_models_folder() / name)
    if (Path(name) / "manifest.json").exists():
        return ModelPackage.load(Path(name))
    available = ", ".join(shipped_models()) or "none"
    raise ModelError(
        f"There is no model {name!r}: neither a shipped one ({available}) nor a folder with a manifest.json."
    )


def _models_folder() -> Path:
    return Path(str(files("daemon"))) / "models"
