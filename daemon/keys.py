"""CURVE keys: with them, only programs that know each other's keys talk, and nobody else can listen; see docs/keys.md.

A key pair is two files as pyzmq writes them: `NAME.key`, which everybody may have, and `NAME.key_secret`. Whoever binds
has a folder of the public keys that it lets in; whoever connects has the public key of whom it means to reach.

The client imports this module: nothing heavy belongs here.
"""

import logging
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from daemon.errors import ConfigurationError

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
"""Where ZeroMQ asks whom to let in (https://rfc.zeromq.org/spec/27/); each context has its own."""

# The log tells of the same stranger no more often, and of no more of them in this time.
_SAY_SECONDS = 30.0
_MOST_STRANGERS = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerKeys:
    """Keys of a socket that binds.

    Attributes:
        secret: Its own secret key.
        allowed: Folder of the public keys that may connect; looked at whenever somebody does.
    """

    secret: Path
    allowed: Path


@dataclass(frozen=True)
class ClientKeys:
    """Keys of a socket that connects.

    Attributes:
        secret: Its own secret key.
        server: Public key of whom it means to reach.
    """

    secret: Path
    server: Path


Keys = ServerKeys | ClientKeys


def keys_for(
    *,
    binds: bool,
    secret: Path | str | None = None,
    allowed: Path | str | None = None,
    server: Path | str | None = None,
) -> Keys | None:
    """Put together the keys of a socket; None where none is given.

    Raises:
        ConfigurationError: They do not go together.
    """
    if secret and binds and allowed and not server:
        return ServerKeys(Path(secret), Path(allowed))
    if secret and not binds and server and not allowed:
        return ClientKeys(Path(secret), Path(server))
    if secret or allowed or server:
        raise ConfigurationError(
            "Keys go together: who binds has a secret key and a folder of allowed keys, who connects a secret key and "
            "a server key; see docs/keys.md."
        )
    return None


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair; return its public and its secret file.

    Raises:
        ConfigurationError: There are such files already.
        OSError: They cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder / f"{name}.key", folder / f"{name}.key_secret"):
        if path.exists():
            raise ConfigurationError(f"{path} is there already; programs may rely on it, so choose another name.")
    before = os.umask(0o077)
    try:
        public, secret = map(Path, create_certificates(folder, name))
    finally:
        os.umask(before)
    public.chmod(0o644)
    return public, secret


def read_secret(path: Path) -> tuple[bytes, bytes]:
    """Read a key pair: public and secret key.

    Raises:
        ConfigurationError: It is none, or others may read it.
    """
    public, secret = _read(path)
    if secret is None:
        raise ConfigurationError(f"{path} holds no secret key; name the file that ends in .key_secret.")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(f"{path} holds a secret key that others may use; run `chmod 600 {path}`.")
    return public, secret


def read_public(path: Path) -> bytes:
    """Read a public key.

    Raises:
        ConfigurationError: It is none.
    """
    return _read(path)[0]


def read_allowed(folder: Path) -> set[bytes]:
    """Read a folder of public keys; a file that holds none is left out and logged.

    Raises:
        ConfigurationError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder; make it, and put the public keys (.key) into it.")
    keys = set()
    for path in sorted(folder.glob("*.key")):
        try:
            keys.add(read_public(path))
        except ConfigurationError as error:
            log.warning("%s", error)
    return keys


def apply_keys(socket: "zmq.Socket[bytes]", keys: Keys | None) -> None:
    """Give a socket its keys, where it has any, before it binds or connects; who binds also needs `doorkeeper`.

    Raises:
        ConfigurationError: A key cannot be used.
    """
    if keys is None:
        return
    public, secret = read_secret(keys.secret)
    if isinstance(keys, ServerKeys):
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, b"hrtemd")
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a doorkeeper, nobody comes in, rather than everybody
    else:
        socket.setsockopt(zmq.CURVE_SERVERKEY, read_public(keys.server))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)


@contextmanager
def doorkeeper(context: "zmq.Context[zmq.Socket[bytes]]", keys: Keys | None) -> Iterator[None]:
    """Let in, on all sockets of a context that bind, whose public key is in the folder; who connects needs nobody.

    Raises:
        ConfigurationError: There is no such folder.
    """
    if not isinstance(keys, ServerKeys):
        yield
        return
    if not read_allowed(keys.allowed):
        log.warning("nobody may connect yet: there is no public key (.key) in %s", keys.allowed)
    socket = context.socket(zmq.REP)
    socket.bind(_ZAP_ENDPOINT)
    thread = Thread(target=_keep_door, args=[socket, keys.allowed], name="doorkeeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with context.socket(zmq.REQ) as end:
            end.setsockopt(zmq.LINGER, 0)
            end.connect(_ZAP_ENDPOINT)
            end.send(b"")
            thread.join()


def _keep_door(socket: "zmq.Socket[bytes]", folder: Path) -> None:
    told: dict[bytes, float] = {}  # of whom, and when
    with socket:
        while len(request := socket.recv_multipart()) > 1:
            # Version, request, domain, address, identity, mechanism, and with CURVE the public key of who connects.
            version, number, _, address, _, _, *credentials = request
            key = z85.encode(credentials[0]) if credentials else b""
            allowed = _is_allowed(key, folder)
            socket.send_multipart([version, number, *([b"200", b"OK"] if allowed else [b"400", b"unknown"]), b"", b""])
            if allowed:
                continue
            told = {stranger: at for stranger, at in told.items() if monotonic() < at + _SAY_SECONDS}
            if key not in told and len(told) < _MOST_STRANGERS:
                told[key] = monotonic()
                who = address.decode() or "a program on this computer"
                log.warning("%s was refused: its public key %s is not in %s", who, key.decode(), folder)


def _is_allowed(key: bytes, folder: Path) -> bool:
    """Whether a key is in a folder; whatever else is in it, or that it is gone, was told before or shows by this."""
    try:
        for path in folder.glob("*.key"):
            with suppress(ConfigurationError):
                if read_public(path) == key:
                    return True
    except OSError as error:  # whoever connects must get an answer, and the next one too
        log.error("%s cannot be looked at, so nobody comes in: %s", folder, error)
    return False


def _read(path: Path) -> tuple[bytes, bytes | None]:
    if not zmq.has("curve"):
        raise ConfigurationError(f"{path}: this pyzmq was built without CURVE; install its wheel: pip install pyzmq.")
    try:
        public, secret = load_certificate(path)
        if any(len(z85.decode(key)) != 32 for key in (public, secret) if key is not None):
            raise ValueError("a key has 40 characters")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror or 'No such file'}; make keys with `hrtemd keys`."
        ) from error
    except (ValueError, LookupError, struct.error) as error:
        raise ConfigurationError(f"{path} holds no CURVE key ({error}); make keys with `hrtemd keys`.") from error
    return public, secret
