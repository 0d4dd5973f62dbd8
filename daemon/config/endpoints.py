"""ZeroMQ endpoints, checked before a socket is opened on them."""

import re
from ipaddress import ip_address

from daemon.config.section import unusable

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/]+):(?P<port>\d{1,5}|\*)")
_IPC = re.compile(r"ipc://\S+")


def check_endpoint(endpoint: str, *, bind: bool, is_secure: bool) -> None:
    """Refuse what is no endpoint, and one that other machines can reach, as a validator does.

    Args:
        endpoint: `tcp://HOST:PORT` or `ipc://PATH`; to bind, port 0 or * lets the system choose one.
        bind: Whether the socket binds rather than connects.
        is_secure: Whether a bind may go beyond this machine: it has keys, or somebody took the risk.
    """
    if _IPC.fullmatch(endpoint):
        return
    match = _TCP.fullmatch(endpoint)
    if not match:
        raise unusable(f"is not an endpoint such as tcp://127.0.0.1:9999: {endpoint!r}")
    port = 0 if match["port"] == "*" else int(match["port"])
    if port > 65535 or (port == 0 and not bind):
        raise unusable(f"the port in {endpoint!r} must be from 1 to 65535")
    if bind and not is_secure and not _is_loopback(match["host"]):
        raise unusable(
            f"{endpoint!r} can be reached from other machines, and what travels is neither encrypted nor signed; "
            "bind to 127.0.0.1, give secret_key and allowed_keys (see docs/keys.md), or set allow_insecure = true "
            "where the network is trusted"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, an interface, or all of them
        return False
