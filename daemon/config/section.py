"""What every section of `config.toml` has in common."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""


class Section(BaseModel):
    """A section that has no other keys than those it declares."""

    model_config = ConfigDict(extra="forbid")


def in_folder_of_config(path: Path, info: ValidationInfo) -> Path:
    """Take relative paths from the folder of config.toml, wherever the daemon was started."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path.expanduser()


def verifies(info: ValidationInfo) -> bool:
    """Whether what the settings speak of is to be looked at too."""
    return bool((info.context or {}).get("verify"))


def unusable(reason: str) -> PydanticCustomError:
    """Make an error of a sentence that begins after the key's name and ends without a full stop."""
    return PydanticCustomError("unusable", "{reason}", {"reason": reason})
