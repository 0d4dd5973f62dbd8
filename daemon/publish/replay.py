"""Answers to clients that missed results, from the ledger; `daemon.protocol` tells what is asked and answered."""

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from daemon.ledger import Ledger, Message
from daemon.protocol import OVERLAY, REPLAY_SCHEMA, encode_header
from daemon.publish.overlay_replay import read_overlay

ANSWER_BYTES = 16 * 2**20
"""An answer holds no more, unless a single result is larger; the client asks again for the rest."""

_LARGEST_NUMBER = 2**63 - 1  # that SQLite can compare with

log = logging.getLogger(__name__)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    topics: Literal[True] | None = None
    topic: str | None = None
    after: Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)] = 0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "_Request":
        if (self.topics is None) == (self.topic is None):
            raise ValueError('give either "topic" or "topics": true')
        return self


class Replay:
    """Answers requests. To be used by one thread, which may be slow: it shares no lock with who posts results.

    Args:
        ledger: Where results are kept.
        results: The results folder, where overlays are.
    """

    def __init__(self, ledger: Ledger, results: Path) -> None:
        self._ledger = ledger
        self._results = results

    def answer(self, request: list[bytes]) -> list[bytes]:
        """Return the parts that answer a request, also where it or the ledger cannot be read."""
        try:
            if len(request) != 1:
                return _refusal(f"A request has one part, this one has {len(request)}; send one JSON object.")
            asked = _Request.model_validate_json(request[0])
            if asked.topic is None:
                return [self._topics()]
            return self._missed(asked.topic, asked.after, asked.limit)
        except ValidationError as error:
            return _refusal(_explain(error))
        except OSError as error:
            log.error("replay: %s", error)
            return _refusal(f"The daemon cannot read what it keeps: {error.strerror}; ask again later.")
        except Exception as error:
            log.exception("replay: unexpected error")
            return _refusal(f"Unexpected {type(error).__name__}: {error}. This is a fault in hrtemd; please report it.")

    def _missed(self, topic: str, after: int, limit: int) -> list[bytes]:
        newest = self._ledger.newest(topic)  # before the rest: a result posted meanwhile was not pruned
        parts: list[bytes] = []
        first = last = None
        bytes_left = ANSWER_BYTES
        for message in self._ledger.after(topic, after, limit, ANSWER_BYTES):
            header, payload = self._complete(message)
            bytes_left -= len(payload)
            if parts and bytes_left < 0:
                break
            parts += [topic.encode(), encode_header(header), payload]
            first, last = first or message.sequence, message.sequence
        oldest_missed = after + 1
        oldest_there = first or newest + 1
        end = {
            "topic": topic,
            "after": after,
            "oldest": self._ledger.oldest(topic),
            "newest": newest,
            "pruned": [oldest_missed, oldest_there - 1] if oldest_missed < oldest_there else None,
            "more": last is not None and last < newest,
        }
        return [*parts, self._end(end)]

    def _complete(self, message: Message) -> tuple[dict[str, Any], bytes]:
        """Add the picture to an overlay, or say in its header why there is none."""
        if message.topic.partition("/")[0] != OVERLAY:
            return message.header, message.payload
        png = read_overlay(message.header, self._results)
        if png is None:
            sentence = f"The overlay {message.header['file']} is no longer there: it was deleted, or drawn anew."
            return {**message.header, "payload_missing": sentence}, b""
        return message.header, png

    def _topics(self) -> bytes:
        return self._end(
            {
                "topics": {
                    topic: {"oldest": self._ledger.oldest(topic), "newest": self._ledger.newest(topic)}
                    for topic in self._ledger.topics()
                }
            }
        )

    def _end(self, marker: dict[str, Any]) -> bytes:
        return encode_header({"schema": REPLAY_SCHEMA, "error": None, "ledger": self._ledger.identity, **marker})


def _refusal(sentence: str) -> list[bytes]:
    return [encode_header({"schema": REPLAY_SCHEMA, "error": sentence})]


def _explain(error: ValidationError) -> str:
    wrong = "; ".join(
        ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))
        for detail in error.errors(include_url=False, include_input=False)
    )
    return f'The request cannot be answered ({wrong}); ask {{"topic": TOPIC, "after": NUMBER, "limit": NUMBER}}.'
