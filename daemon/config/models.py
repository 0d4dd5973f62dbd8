"""Which models a source uses, and under which conditions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ValidationInfo, model_validator

from daemon.config.section import PositiveNumber, Section, in_folder_of_config, unusable, verifies
from daemon.errors import ModelError
from daemon.recognition.conditions import Conditions
from daemon.recognition.package import find_model, shipped_models


def _found(model: str, info: ValidationInfo) -> str:
    folder = in_folder_of_config(Path(model), info)
    if Path(model).name != model or (model not in shipped_models() and folder.is_dir()):
        model = str(folder)
    if verifies(info):
        try:
            find_model(model)
        except ModelError as error:
            raise unusable(str(error)) from error
    return model


Model = Annotated[str, AfterValidator(_found)]
"""A shipped model's name, or the folder of a model package."""


def _in_order(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise unusable(f"gives the highest value, {span[0]:g}, before the lowest, {span[1]:g}; change them round")
    return span


Span = Annotated[tuple[PositiveNumber, PositiveNumber], AfterValidator(_in_order)]
"""Lowest and highest value, both included."""


class ConditionalModel(Section):
    """A model for frames of one kind."""

    model: Model
    """A shipped model's name, or the folder of a model package."""

    voltage_kv: Span | None = None
    """The acceleration voltage that a frame must tell."""

    pixel_size_angstrom: Span | None = None
    """The pixel size, Å per pixel, that a frame must have."""

    @property
    def conditions(self) -> Conditions:
        """What a frame must be like."""
        return Conditions(self.voltage_kv, self.pixel_size_angstrom)

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.conditions == Conditions():
            raise unusable(
                "has no condition, so that nothing would be left for others; give `voltage_kv` or "
                "`pixel_size_angstrom`, or name it as the `model` of the source, which is for everything else"
            )
        return self


def check_models(models: Sequence[str], info: ValidationInfo) -> None:
    """Refuse the last of some models where it cannot work with the others on one source, or with its settings.

    Raises:
        PydanticCustomError: It cannot, and why; only where models are looked at.
    """
    if not verifies(info):
        return
    *_, last = models
    input_frames = {model: find_model(model).manifest.input_frames for model in models}
    if input_frames[last] > 1 and info.data.get("policy") == "latest":
        raise unusable(
            f"{last!r} takes focal series of {input_frames[last]} frames, none of which may be left out; "
            'set policy = "lossless", or choose a model for single frames'
        )
    if input_frames[last] > 1 and info.data.get("average_frames", 1) != 1:
        raise unusable(
            f"{last!r} takes focal series of {input_frames[last]} frames, which an average would blend; "
            "set average_frames = 1, or choose a model for single frames"
        )
    for other in models:
        if input_frames[other] != input_frames[last]:
            kinds = f"{last!r} takes {_kind(input_frames[last])} and {other!r} {_kind(input_frames[other])}"
            raise unusable(
                f"{kinds}, and the frames of one source are grouped or they are not; use models of one kind, or "
                "another source"
            )


def _kind(input_frames: int) -> str:
    return "single frames" if input_frames == 1 else "focal series"
