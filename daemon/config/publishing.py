"""`[publish]`, `[ledger]` and `[retention]`: where results go, what is remembered of them, and for how long."""

from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from daemon.config.endpoints import check_endpoint
from daemon.config.folders import check_writable
from daemon.config.keys import PublicKeys, SecretKey, check_keys, has_secret_key
from daemon.config.section import PositiveNumber, Section, in_folder_of_config, verifies
from daemon.keys import Keys, keys_for


class FilesPublishing(Section):
    """Atom tables, overlays and events as files."""

    directory: Path = Field(default=Path("results"), validate_default=True)
    """Everything hrtemd writes is below this folder; it is made where it does not exist."""

    overlays: bool = True
    """Also draw each frame with its atoms marked, as PNG."""

    @field_validator("directory")
    @classmethod
    def _directory_can_be_written(cls, directory: Path, info: ValidationInfo) -> Path:
        directory = in_folder_of_config(directory, info)
        if verifies(info):
            check_writable(directory, "results")
        return directory


class ZeroMQPublishing(Section):
    """Results for programs that listen."""

    allow_insecure: bool = False
    """Allow programs on other machines to connect, without encryption."""

    secret_key: SecretKey | None = None
    """The daemon's own key, without which nobody can read or ask anything."""

    allowed_keys: PublicKeys | None = None
    """Folder with the public keys of the programs that may connect."""

    endpoint: str = "tcp://127.0.0.1:5600"
    """Where results are published (PUB)."""

    replay_endpoint: str = "tcp://127.0.0.1:5601"
    """Where a client asks for what it missed (ROUTER)."""

    @field_validator("endpoint", "replay_endpoint")
    @classmethod
    def _endpoint_can_be_bound(cls, endpoint: str, info: ValidationInfo) -> str:
        check_endpoint(endpoint, bind=True, is_secure=info.data.get("allow_insecure", True) or has_secret_key(info))
        return endpoint

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        check_keys(binds=True, secret=self.secret_key, allowed=self.allowed_keys)
        return self

    @property
    def keys(self) -> Keys | None:
        """Its keys, where it has any."""
        return keys_for(binds=True, secret=self.secret_key, allowed=self.allowed_keys)


class Publishing(Section):
    """Where results go."""

    files: FilesPublishing = Field(default={}, validate_default=True)
    """As files, always."""

    zeromq: ZeroMQPublishing | None = None
    """Through ZeroMQ, where this section is there."""


class LedgerSettings(Section):
    """What is remembered of each frame and each result."""

    path: Path | None = None
    """The database; `ledger.sqlite` in the results folder where it is not given."""

    bytes: PositiveInt = 2 * 2**30
    """Largest size; the oldest results that are finished are forgotten first."""

    age_days: PositiveNumber = 30.0
    """Older results that are finished are forgotten."""

    @field_validator("path")
    @classmethod
    def _folder_can_be_written(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        path = in_folder_of_config(path, info)
        if verifies(info):
            check_writable(path.parent, "the ledger")
        return path


class Retention(Section):
    """When result files are deleted, oldest first; where nothing is set, never."""

    bytes: PositiveInt | None = None
    """Largest size of all result files together."""

    age_days: PositiveNumber | None = None
    """Older result files are deleted."""

    free_bytes: PositiveInt | None = None
    """Result files are deleted when the disk has less room than this."""
