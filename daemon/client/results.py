"""Results as a client gets them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from daemon import protocol
from daemon.atoms import from_stream, with_header
from daemon.errors import HrtemdError
from daemon.protocol import ProtocolError, decode_header, schema_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """Something the daemon sent.

    Attributes:
        topic: Such as `atoms/camera`.
        header: What is said about it: `frame_id`, `pixel_size_angstrom`, `warnings` and so on.
        payload: The rest, as it was sent.
    """

    kind: ClassVar[str]

    topic: str
    header: dict[str, Any]
    payload: bytes

    @property
    def sequence(self) -> int:
        """Its number: from 1, without gaps in a topic."""
        number: int = self.header["sequence"]
        return number

    @property
    def source(self) -> str:
        """Name of the source in config.toml; empty where it is about none."""
        return self.topic.partition("/")[2]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sequence} of {self.topic}: {self.header.get('name', '')}>"


class Atoms(Result):
    """The atoms of one frame or focal series."""

    kind = protocol.ATOMS

    @cached_property
    def table(self) -> pa.Table:
        """One row an atom, column or vacancy (see `daemon.atoms.SCHEMA`), with the header in its metadata.

        Everything in `daemon.analysis` takes it.
        """
        try:
            table = from_stream(self.payload)
        except pa.ArrowInvalid as error:
            raise ProtocolError(f"{self.topic}: result {self.sequence} holds no atom table ({error}).") from error
        return with_header(table, self.header)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table as a DataFrame, with the header as its `attrs`.

        Raises:
            HrtemdError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise HrtemdError(
                "pandas is not installed, and hrtemd does not need it; run `pip install pandas`, or use to_numpy()."
            ) from error
        frame: pd.DataFrame = self.table.to_pandas()
        frame.attrs = self.header
        return frame

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """Return every column of the table as an array of shape (n,).

        Where a number is not known it is NaN, so that `n_atoms` may be floating; where a name is not, it is None.
        """
        return {name: _to_array(self.table.column(name)) for name in self.table.column_names}

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {name}" for name, number in self.header.get("counts", {}).items())
        return f"<Atoms {self.sequence} of {self.topic}: {self.header.get('name', '')}: {counts or 'none'}>"


class Overlay(Result):
    """A frame with its atoms drawn in; a notebook shows it as a picture.

    The payload is the PNG. Of an old result that was replayed it may be empty: then the picture was deleted or drawn
    anew since, as `payload_missing` in the header says.
    """

    kind = protocol.OVERLAY

    def _repr_png_(self) -> bytes | None:
        return self.payload or None


class Event(Result):
    """Something an operator or an acquisition script should know of, such as a frame that could not be analysed."""

    kind = protocol.EVENT

    @property
    def sentence(self) -> str:
        """What happened."""
        return str(self.header.get("error") or self.header.get("message") or "")


class Status(Result):
    """How the daemon is; comes about every second."""

    kind = protocol.STATUS


_KINDS: dict[str, type[Result]] = {kind.kind: kind for kind in (Atoms, Overlay, Event, Status)}


def read_result(parts: Sequence[bytes]) -> Result:
    """Make a result of the three parts it was sent as.

    Raises:
        ProtocolError: They are not what hrtemd sends, or what a newer one sends.
    """
    if len(parts) != 3:
        raise ProtocolError(f"A message has {len(parts)} parts instead of 3; does hrtemd listen at this endpoint?")
    topic = parts[0].decode(errors="replace")
    header = decode_header(parts[1])
    result = _KINDS.get(topic.partition("/")[0])
    if not result or header.get("schema") != schema_of(result.kind) or not isinstance(header.get("sequence"), int):
        raise ProtocolError(
            f"{topic}: this client does not know results of schema {header.get('schema')!r}; "
            "install the version of hrtemd that the daemon has."
        )
    return result(topic, header, parts[2])


def _to_array(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_dictionary(column.type):
        return np.array(column.to_pylist(), dtype=object)
    array: NDArray[Any] = column.to_numpy()
    return array
