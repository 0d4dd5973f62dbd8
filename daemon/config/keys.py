"""CURVE keys, checked before a socket is opened with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from daemon.config.section import in_folder_of_config, unusable, verifies
from daemon.errors import ConfigurationError
from daemon.keys import keys_for, read_allowed, read_public, read_secret


def _readable_by(read: Callable[[Path], object]) -> Callable[[Path, ValidationInfo], Path]:
    def check(path: Path, info: ValidationInfo) -> Path:
        path = in_folder_of_config(path, info)
        if verifies(info):
            try:
                read(path)
            except ConfigurationError as error:
                raise unusable(str(error)) from error
        return path

    return check


SecretKey = Annotated[Path, AfterValidator(_readable_by(read_secret))]
"""A file of `hrtemd keys` that ends in `.key_secret`."""

PublicKey = Annotated[Path, AfterValidator(_readable_by(read_public))]
"""A file of `hrtemd keys` that ends in `.key`."""

PublicKeys = Annotated[Path, AfterValidator(_readable_by(read_allowed))]
"""A folder of such files."""


def has_secret_key(info: ValidationInfo) -> bool:
    """Whether the section has a secret key; one that cannot be used counts, since it is reported on its own."""
    return info.data.get("secret_key", "unusable") is not None


def check_keys(*, binds: bool, **keys: Path | None) -> None:
    """Refuse keys that do not go together, as a validator does."""
    try:
        keys_for(binds=binds, **keys)
    except ConfigurationError as error:
        raise unusable(str(error)) from error
