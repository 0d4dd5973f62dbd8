"""The JSON file beside a frame (`frame.tif` -> `frame.json`) that says what the frame's own metadata does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from daemon.errors import FrameError
from daemon.frames import Acquisition

# One value for all images of a file, or a list with one value per image.
Number = float | list[float] | None
PositiveNumber = PositiveFloat | list[PositiveFloat] | None
Text = Annotated[str, Field(min_length=1)]


class Sidecar(BaseModel):
    """Keys that beat a file's own metadata; the same ride on ZeroMQ frames."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    pixel_size_angstrom: PositiveNumber = Field(default=None, description="a number above 0")
    defocus_angstrom: Number = Field(default=None, description="a number (positive for underfocus)")
    voltage_kv: PositiveNumber = Field(default=None, description="a number above 0")
    dose_per_square_angstrom: PositiveNumber = Field(default=None, description="a number above 0")
    series_id: Text | list[Text] | None = Field(default=None, description="a text that is not empty")
    series_index: NonNegativeInt | list[NonNegativeInt] | None = Field(
        default=None, description="a whole number from 0"
    )
    series_length: PositiveInt | list[PositiveInt] | None = Field(default=None, description="a whole number from 1")

    def for_image(self, index: int) -> dict[str, Any]:
        """Return the keys given for one image of the file, without those that are absent or null."""
        values = {key: value[index] if isinstance(value, list) else value for key, value in self}
        return {key: value for key, value in values.items() if value is not None}

    def check_lengths(self, n_images: int, where: str, *, or_more: bool = False) -> None:
        """Refuse a list that does not fit the number of images.

        Args:
            n_images: How many the file holds.
            where: The sidecar, for the message.
            or_more: More may come, so that a list may be longer.

        Raises:
            FrameError: A list is longer or shorter.
        """
        for key, value in self:
            if isinstance(value, list) and (len(value) < n_images or (len(value) > n_images and not or_more)):
                raise FrameError(
                    f"{where}: `{key}` lists {len(value)} values, but the file holds {n_images} image"
                    f"{'' if n_images == 1 else 's'}; give one value per image, or one for all."
                )


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecar of the frame file `path`; where there is none, no key is given.

    Raises:
        FrameError: The sidecar cannot be read, is not JSON, or has a key or value that is not allowed.
    """
    path = path.with_suffix(".json")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows editors begin UTF-8 with a byte-order mark
    except (FileNotFoundError, NotADirectoryError):
        return Sidecar()
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError(f"{path.name}: the sidecar cannot be read ({error}); correct or remove it.") from error
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{path.name}: the sidecar is not valid JSON ({error}); correct or remove it.") from error
    return parse_sidecar(values, path.name)


def parse_sidecar(values: object, where: str) -> Sidecar:
    """Check decoded JSON against the keys a frame may be given.

    Args:
        values: What `json.loads` returned.
        where: The file or source, for the message.

    Raises:
        FrameError: It is not an object, or a key or value is not allowed; all of them at once.
    """
    if not isinstance(values, dict):
        raise FrameError(f'{where}: expected an object of keys and values, such as {{"pixel_size_angstrom": 0.12}}.')
    try:
        return Sidecar.model_validate(values)
    except ValidationError as error:
        wrong_keys = dict.fromkeys(str(detail["loc"][0]) for detail in error.errors())
    complaints = "; ".join(_complaint(key, values[key]) for key in wrong_keys)
    raise FrameError(f"{where}: {complaints}.")


def _complaint(key: str, value: object) -> str:
    if key not in Sidecar.model_fields:
        return f"the key {key!r} is unknown; allowed are {', '.join(Sidecar.model_fields)}"
    allowed = Sidecar.model_fields[key].description
    shown = json.dumps(value, ensure_ascii=False)[:60]
    return f"`{key}` must be {allowed}, or a list with one such value per image, not {shown}"


def merge(acquisition: Acquisition, keys: dict[str, Any]) -> Acquisition:
    """Lay a sidecar's keys for one image over what the file told."""
    return replace(acquisition, **{key: value for key, value in keys.items() if key != "pixel_size_angstrom"})
