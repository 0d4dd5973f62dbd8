"""All of `config.toml`, section by section."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from daemon.config.alerts import Alerts
from daemon.config.publishing import LedgerSettings, Publishing, Retention
from daemon.config.section import Section
from daemon.config.sources import Source
from daemon.readers.limits import DEFAULT_LIMITS, ReadLimits


class RecognitionSettings(Section):
    """How networks are run."""

    backend: Literal["auto", "openvino", "onnxruntime"] = "auto"
    """The inference engine; `auto` takes the fastest one this machine has."""


class Limits(Section):
    """Sizes beyond which something is refused before its pixels are unpacked, so that nothing can use up the memory."""

    frame_pixels: PositiveInt = DEFAULT_LIMITS.frame_pixels
    """Largest height times width of an image."""

    decompressed_bytes: PositiveInt = DEFAULT_LIMITS.decompressed_bytes
    """Largest size in memory of what is loaded from a file at once."""

    message_bytes: PositiveInt = 2**30
    """Largest ZeroMQ message."""

    spool_bytes: PositiveInt = 8 * 2**30
    """Largest size of a source's spool; no more is received while it is full."""

    def for_reading(self) -> ReadLimits:
        """Return them as the readers take them."""
        return ReadLimits(self.frame_pixels, self.decompressed_bytes)


class Configuration(Section):
    """All of `config.toml`."""

    sources: list[Source] = Field(default_factory=list)
    """Where frames come from."""

    limits: Limits = Limits()
    """What is refused."""

    recognition: RecognitionSettings = RecognitionSettings()
    """How networks are run."""

    publish: Publishing = Field(default={}, validate_default=True)
    """Where results go."""

    ledger: LedgerSettings = LedgerSettings()
    """What is remembered of frames and results."""

    retention: Retention = Retention()
    """When result files are deleted."""

    alerts: Alerts = Alerts()
    """What an acquisition script is told."""

    @property
    def ledger_path(self) -> Path:
        """Where the ledger is kept."""
        return self.ledger.path or self.publish.files.directory / "ledger.sqlite"
