"""The demo's sample frames and what is known about them, since they were simulated."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from daemon.errors import HrtemdError

SHIPPED_SAMPLES = Path(__file__).parent / "samples"


class Expected(BaseModel):
    """A true count, and by how much a sound one may differ."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=0)]
    tolerance: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        """Write both."""
        return f"{self.count:,} ± {self.tolerance:,}"


class Truth(BaseModel):
    """What `truth.json` says of one sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Which model finds its atoms."""
    pixel_size_angstrom: Annotated[float, Field(gt=0)] | None
    """Given to the daemon in a sidecar; null where the daemon has to estimate it."""
    atoms: Annotated[int, Field(ge=0)]
    """Rows that a perfect atom table has."""
    tolerance: Annotated[int, Field(ge=0)]
    """By how many rows a sound one may differ."""
    counts: dict[str, Expected] = {}
    """What stands in the rows, and `atoms` in all columns together; empty where the model tells neither."""
    description: str
    dose_per_square_angstrom: Annotated[float, Field(gt=0)] | None
    """Of each frame."""
    defocus_angstrom: tuple[float, float, float] | None = None
    """Of each image of a focal series."""

    def differences(self, rows: int, counts: dict[str, int]) -> list[str]:
        """Say which of what was found is not within its tolerance."""
        expected = {"rows": Expected(count=self.atoms, tolerance=self.tolerance)} | self.counts
        found = {"rows": rows} | counts
        return [
            f"{found.get(name, 0):,} {name} instead of {is_true}"
            for name, is_true in expected.items()
            if abs(found.get(name, 0) - is_true.count) > is_true.tolerance
        ]


def load_truths(folder: Path) -> dict[Path, Truth]:
    """Read `truth.json` and return the samples' files with what is known of each, in its order.

    Raises:
        HrtemdError: Samples are missing or their description is not valid.
    """
    listing = folder / "truth.json"
    try:
        truths = TypeAdapter(dict[str, Truth]).validate_json(listing.read_bytes())
    except FileNotFoundError as error:
        raise HrtemdError(
            f"The demo's sample frames are not installed: there is no {listing}; install hrtemd anew."
        ) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise HrtemdError(f"The demo's samples: {listing} is not valid: {problems}.") from error
    missing = [name for name in truths if not (folder / name).is_file()]
    if missing or not truths:
        which = ", ".join(missing) or "all of them"
        raise HrtemdError(f"The demo's sample frames are incomplete: {folder} lacks {which}; install hrtemd anew.")
    return {folder / name: truth for name, truth in truths.items()}
