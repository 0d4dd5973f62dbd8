"""A recipe: everything that decides what a network will be, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.recognition.package import Range, StatedRanges

ThermalMotion = Literal["snapshot", "averaged"]

COLD_TO_HOT: Range = (0.5, 1.3)
"""How strongly atoms vibrate, of their amplitude at room temperature: on cold stages, and in hot beams."""

Mixture = dict[Literal["graphene", "nanoparticle", "gold", "thick gold", "gold on oxide", "mos2", "film"], float]


class RecipeError(Exception):
    """A recipe cannot be read; the message says which key and why."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SimulationRecipe(_Section):
    """Which specimens, how many, and the multislice grid."""

    mixture: Mixture
    """Relative share of each kind of specimen."""
    shards: Annotated[int, Field(ge=1)]
    specimens_per_shard: Annotated[int, Field(ge=1)]
    field_angstrom: Annotated[float, Field(gt=10)]
    """Side of the square field of one exit wave."""
    field_pixels: Annotated[int, Field(ge=64)]
    """Grid points along that side."""
    voltage_kv: float
    moments: Annotated[int, Field(ge=1)] = 1
    """Exit waves of each specimen: other thermal displacements, and now and then an atom that hopped."""
    thermal_motion: ThermalMotion = "snapshot"
    """Atoms stand still somewhere, which labels can follow exactly; or potentials are those of the time average, as an
    exposure sees them, which columns are counted by. See docs/decisions/0013."""
    thermal_strength: Range = COLD_TO_HOT
    """Drawn for each specimen: the amplitude of its thermal motion, of that at room temperature."""


class MicroscopeRecipe(_Section):
    """What is drawn at random for each frame; a pair is the lowest and the highest value."""

    defocus_angstrom: Range
    """Underfocus is positive: minus C10. Of a series, that of its middle frame."""
    wide_defocus_angstrom: Range
    """A second, wider range, from which one frame in six is drawn."""
    spherical_aberration_um: Range
    focal_spread_angstrom: Range
    """1/e width."""
    astigmatism_angstrom: Range
    coma_angstrom: Range
    threefold_astigmatism_angstrom: Range
    third_order_astigmatism_um: Range
    """C32 and C34."""
    convergence_mrad: Range
    blur_angstrom: Range
    """Vibration and thermal smearing: standard deviation."""
    drift_angstrom: Range
    """Length moved during the exposure."""
    mtf_half: Range = (0.2, 1.5)
    """Fraction of the Nyquist frequency at which a scintillator's transfer has fallen half way."""
    mtf_power: Range = (1.2, 3.5)
    """How steeply it falls there."""
    mtf_floor: Range = (0.0, 0.4)
    """What remains of it at high frequencies."""
    counting_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of frames by a camera that counts: one without a scintillator, which transfers everything."""
    pixel_size_angstrom: Range
    fine_pixel_size_angstrom: float = 0.08
    """Smaller pixels than this are drawn for few frames: they show the network little that is new, and exposing that
    many of them takes long."""
    dose_per_square_angstrom: Range


class SeriesRecipe(_Section):
    """How three frames of one area differ; a pair is the lowest and the highest value."""

    defocus_step_angstrom: Range
    """Between neighbouring frames."""
    step_error_angstrom: Annotated[float, Field(ge=0)]
    """Standard deviation by which each frame's defocus misses what was asked for."""
    zero_error_angstrom: Annotated[float, Field(ge=0)]
    """Standard deviation by which the whole series misses it: nobody knows zero."""
    alignment_error_angstrom: Range
    """Standard deviation along each axis of what is left of the drift after alignment."""
    told_defocus: bool
    """Whether the network is given the defocus that was asked for."""
    middle_alone: bool = False
    """Show the network the middle frame only: what one frame of the three is worth."""


class NetworkRecipe(_Section):
    """The network's shape; see `trainer.network.SiteNetwork`."""

    sampling_angstrom: float
    classes: tuple[str, ...]
    deepest_column: Annotated[int, Field(ge=0)] = 0
    """Atoms in the deepest column that is counted; 0 for a network that does not count."""
    learns_smear: bool = False
    """Whether it also learns how far tilt smears columns, which its package does not tell: a teacher of counting."""
    widths: tuple[int, ...]
    depths: tuple[int, ...]


class TrainingRecipe(_Section):
    """How long and how fast it learns."""

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    patch_pixels: Annotated[int, Field(ge=32, multiple_of=16)]
    learning_rate: Annotated[float, Field(gt=0)]
    empty_share: Annotated[float, Field(ge=0, lt=1)]
    """Share of frames of vacuum only."""
    class_weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """How many times as much a rare class counts in learning; 1 where not given. Probabilities stay those of the
    specimens as they are, see `trainer.training.losses`."""


class SeriesEvaluationRecipe(_Section):
    """How series are held out: with all of their drift, which takes larger fields than training's."""

    field_angstrom: Annotated[float, Field(gt=10)]
    field_pixels: Annotated[int, Field(ge=64)]
    defocus_step_angstrom: float
    """Of the reference conditions."""
    drift_angstrom: Annotated[float, Field(ge=0)]
    """The farthest that a frame drifts from the one taken first."""

    def smoke(self) -> Self:
        """Shrink the field, and the drift that eats it."""
        return self.model_copy(update={"field_angstrom": 48.0, "field_pixels": 320, "drift_angstrom": 4.0})


class EvaluationRecipe(_Section):
    """The held-out specimens on which the network is calibrated and judged."""

    shards: Annotated[int, Field(ge=1)]
    """Of the set for the test, and of the set for calibration."""
    mixture: Mixture | None = None
    """Of held-out specimens, where training is given more of what is hard to learn than microscopes see; else its."""
    reference_specimens: Annotated[int, Field(ge=1)]
    """Imaged at every reference condition and dose."""
    range_frames: Annotated[int, Field(ge=1)]
    """Drawn from the whole stated range, for the test; as many again for calibration."""
    empty_frames: Annotated[int, Field(ge=1)]
    """Of vacuum and of film, each by a good camera and by any."""
    tuning_specimens: Annotated[int, Field(ge=1)]
    """What peak finding without a network is tuned on, for each condition and dose."""
    doses_per_square_angstrom: tuple[float, ...]
    pixel_size_angstrom: float
    focal_spread_angstrom: float
    conditions: dict[str, tuple[float, float]]
    """By name: Cs in µm and C10 in Å of each reference condition; C10 of a series is that of its middle frame."""
    series: SeriesEvaluationRecipe | None = None
    """Given where the recipe has `series`."""


class Recipe(_Section):
    """All of it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: str
    specimen: Literal["graphene", "nanoparticle", "mos2"]
    kind: Literal["atom", "column"]
    seed: int
    probability_threshold: Annotated[float, Field(gt=0, lt=1)]
    """What has a calibrated probability of less is not reported. Half of the F1 that can be reached is the best for F1;
    higher ones find less where nothing is."""
    remarks: str = ""
    """What the model card says about where the figures stop, and why."""
    ranges: StatedRanges
    simulation: SimulationRecipe
    microscope: MicroscopeRecipe
    series: SeriesRecipe | None = None
    """None for a network that takes single frames."""
    network: NetworkRecipe
    training: TrainingRecipe
    evaluation: EvaluationRecipe

    @model_validator(mode="after")
    def _weighs_its_own_classes(self) -> Self:
        if unknown := set(self.training.class_weights) - set(self.network.classes):
            raise ValueError(f"training.class_weights: {', '.join(sorted(unknown))} are not among network.classes")
        return self

    @property
    def task(self) -> Literal["positions", "species", "heights"]:
        """What the model is for."""
        if self.network.deepest_column:
            return "heights"
        return "species" if "vacancy" in self.network.classes else "positions"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe.

        Raises:
            RecipeError: It cannot be read, or a key is missing, unknown or out of range.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise RecipeError(f"{path}: {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{path} is not valid TOML: {error}.") from error
        except ValidationError as error:
            problems = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RecipeError(f"{path} cannot be used:\n{problems}") from error

    def smoke(self) -> "Recipe":
        """Shrink everything so that a whole rebuild takes a minute or two and proves the way, not the network."""
        return self.model_copy(
            update={
                "simulation": self.simulation.model_copy(update={"shards": 2, "specimens_per_shard": 4}),
                "network": self.network.model_copy(update={"widths": (8, 12, 16, 16), "depths": (1, 1, 1, 1)}),
                "training": self.training.model_copy(update={"steps": 30, "batch": 2}),
                "evaluation": self.evaluation.model_copy(
                    update={
                        "shards": 1,
                        "reference_specimens": 1,
                        "range_frames": 6,
                        "empty_frames": 1,
                        "tuning_specimens": 1,
                        "doses_per_square_angstrom": self.evaluation.doses_per_square_angstrom[-2:],
                        "series": self.evaluation.series and self.evaluation.series.smoke(),
                    }
                ),
            }
        )
