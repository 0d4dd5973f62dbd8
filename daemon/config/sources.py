"""`[[sources]]`: the ways in, each type with its own keys."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from daemon.config.endpoints import check_endpoint
from daemon.config.folders import check_readable, check_writable
from daemon.config.keys import PublicKey, PublicKeys, SecretKey, check_keys, has_secret_key
from daemon.config.models import ConditionalModel, Model, check_models
from daemon.config.section import PositiveNumber, Section, in_folder_of_config, unusable, verifies
from daemon.keys import Keys, keys_for
from daemon.series.membership import check_pattern
from daemon.sources.selection import problem_with


class SourceSettings(Section):
    """What every way in has in common."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Stands in frame ids, results and log lines."""

    policy: Literal["lossless", "latest"] = "lossless"
    """What to do when frames come faster than they are analysed: wait, or keep only the newest."""

    average_frames: PositiveInt = 1
    """The average of so many frames, each moved to where the last one stands, is what is analysed."""

    average_weights: Literal["equal", "exponential"] = "equal"
    """Whether the averaged frames count alike, or older ones ever less."""

    models: tuple[ConditionalModel, ...] = ()
    """Models for frames of some kind; the first whose conditions a frame meets analyses it."""

    model: Annotated[Model | None, Field(validate_default=True)] = None
    """The model for everything else; graphene, where there are no others."""

    pixel_size_angstrom: PositiveNumber | None = None
    """Å per pixel; where given it beats what files, sidecars and senders say."""

    series_pattern: str | None = None
    """A regular expression that finds `series` and `index` in the names of files that make a focal series."""

    series_timeout_seconds: PositiveNumber = 30.0
    """A focal series is given up as incomplete when nothing more of it came for so long."""

    @property
    def all_models(self) -> tuple[str, ...]:
        """The models in use, in the order they are tried."""
        return (*(choice.model for choice in self.models), *((self.model,) if self.model else ()))

    @field_validator("models")
    @classmethod
    def _models_suit_the_source(
        cls, models: tuple[ConditionalModel, ...], info: ValidationInfo
    ) -> tuple[ConditionalModel, ...]:
        for number in range(len(models)):
            try:
                check_models([choice.model for choice in models[: number + 1]], info)
            except PydanticCustomError as error:
                mistake = InitErrorDetails(type=error, loc=(number, "model"), input=models[number].model)
                raise ValidationError.from_exception_data("models", [mistake]) from error
        return models

    @field_validator("model")
    @classmethod
    def _model_suits_the_source(cls, model: str | None, info: ValidationInfo) -> str | None:
        others = [choice.model for choice in info.data.get("models", ())]
        if model is None and others:
            return None
        model = model or "graphene"
        check_models([*others, model], info)
        return model

    @field_validator("series_pattern")
    @classmethod
    def _pattern_finds_series_and_index(cls, pattern: str | None) -> str | None:
        if pattern is not None and (problem := check_pattern(pattern)):
            raise unusable(problem)
        return pattern


def _can_match(pattern: str) -> str:
    if problem := problem_with(pattern):
        raise unusable(f"{pattern!r} {problem}")
    return pattern


Pattern = Annotated[str, AfterValidator(_can_match)]


class DirectorySource(SourceSettings):
    """A folder into which the acquisition program writes its images."""

    type: Literal["directory"]
    """How frames come in."""

    path: Path
    """The folder to watch, with everything below it."""

    include: tuple[Pattern, ...] = ()
    """Only files whose path below the folder matches one of these patterns are read; all where none is given."""

    exclude: tuple[Pattern, ...] = ()
    """Files whose path below the folder matches one of these patterns are not read."""

    @field_validator("path")
    @classmethod
    def _path_is_a_readable_folder(cls, path: Path, info: ValidationInfo) -> Path:
        path = in_folder_of_config(path, info)
        if verifies(info):
            check_readable(path)
        return path


class ZeroMQSource(SourceSettings):
    """A camera, or a program beside it, that sends frames through ZeroMQ."""

    type: Literal["array-1.0", "dectris-v1", "dectris-stream2"]
    """How frames are written into messages."""

    socket: Literal["pull", "sub"] = "pull"
    """`pull`: each frame goes to one receiver, and the sender waits. `sub`: to all, and what is not fetched is lost."""

    bind: bool = False
    """Wait for senders to connect, instead of connecting to one."""

    allow_insecure: bool = False
    """Allow senders on other machines to connect, without encryption."""

    secret_key: SecretKey | None = None
    """This source's own key, without which no sender can reach it or be reached."""

    allowed_keys: PublicKeys | None = None
    """With `bind`: folder with the public keys of the senders that may connect."""

    server_key: PublicKey | None = None
    """Without `bind`: public key of the sender."""

    endpoint: str
    """Such as tcp://127.0.0.1:9999."""

    spool: Path | None = None
    """A folder on a fast disk: what was received is kept in it until it is analysed, whatever happens to the daemon."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint_can_be_used(cls, endpoint: str, info: ValidationInfo) -> str:
        # A key that is itself wrong is missing here; it is reported on its own.
        is_secure = info.data.get("allow_insecure", True) or has_secret_key(info)
        check_endpoint(endpoint, bind=info.data.get("bind", False), is_secure=is_secure)
        return endpoint

    @field_validator("spool")
    @classmethod
    def _spool_can_be_written(cls, spool: Path | None, info: ValidationInfo) -> Path | None:
        if spool is None:
            return None
        if info.data.get("policy") == "latest":
            raise unusable('keeps every frame, of which policy = "latest" gives most up; remove one of the two')
        spool = in_folder_of_config(spool, info)
        if verifies(info):
            check_writable(spool, "the spool")
        return spool

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        check_keys(binds=self.bind, secret=self.secret_key, allowed=self.allowed_keys, server=self.server_key)
        return self

    @property
    def keys(self) -> Keys | None:
        """Its keys, where it has any."""
        return keys_for(binds=self.bind, secret=self.secret_key, allowed=self.allowed_keys, server=self.server_key)


Source = Annotated[DirectorySource | ZeroMQSource, Field(discriminator="type")]
"""One entry of `[[sources]]`."""
