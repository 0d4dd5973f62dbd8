"""What the daemon and its clients agree on: topics, schemas, and how one asks for what one missed.

Results are broadcast as three parts: topic, header (JSON, UTF-8), payload. Who missed some asks at the replay endpoint,
`{"topic": "atoms/camera", "after": 41, "limit": 100}`, and gets one message: three parts for each result with a larger
number, oldest first, then an end marker (JSON):

- `schema`: `hrtemd.replay.v1`; `topic` and `after`: as asked
- `oldest`, `newest`: numbers of the results that are kept; `oldest` is null where none is
- `pruned`: null, or first and last number of what was asked for and is no longer kept
- `more`: whether there is more to ask for, after the last one of this answer
- `ledger`: identity of what counts the results; where it changes, numbers have begun at 1 again
- `error`: null, or why there is no answer: then nothing else is in it

`{"topics": true}` is answered with an end marker alone, whose `topics` gives `oldest` and `newest` of every topic.

The client imports this module: nothing heavy belongs here.
"""

import json
from collections.abc import Mapping
from typing import Any

from daemon.errors import ConfigurationError, HrtemdError

ATOMS = "atoms"
OVERLAY = "overlay"
EVENT = "event"
STATUS = "status"
"""The one kind without a source: its topic is `status`."""

REPLAY_SCHEMA = "hrtemd.replay.v1"

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5600"

STATUS_SECONDS = 1.0
"""Between two heartbeats."""


class ProtocolError(HrtemdError):
    """What came over a socket is not what hrtemd sends."""


def topic_of(kind: str, source: str) -> str:
    """Name the topic of one kind of result of a source."""
    return f"{kind}/{source}"


def schema_of(kind: str) -> str:
    """Name the schema of one kind of result."""
    return f"hrtemd.{kind}.v1"


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Write a header as it is sent."""
    return json.dumps(header).encode()


def decode_header(part: bytes) -> dict[str, Any]:
    """Read a header as it was sent.

    Raises:
        ProtocolError: It is no JSON object.
    """
    try:
        header = json.loads(part)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ProtocolError(
            f"A message's header is not a JSON object but {part[:40]!r}; does hrtemd listen at this endpoint?"
        )
    return header


def replay_endpoint_beside(endpoint: str) -> str:
    """Return the endpoint with the next port, where replay is unless somebody chose another one.

    Raises:
        ConfigurationError: The endpoint has no port.
    """
    address, _, port = endpoint.rpartition(":")
    if not address or not port.isdecimal():
        raise ConfigurationError(f"{endpoint}: has no port, so nothing tells the replay endpoint; give that too.")
    return f"{address}:{int(port) + 1}"
