"""The sockets of a client: it listens to the broadcast, and asks for what it missed."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Self, cast

import zmq
import zmq.asyncio
from typing_extensions import TypeVar

from daemon.client.following import Following
from daemon.client.results import Atoms, Result, Status
from daemon.errors import ConfigurationError
from daemon.keys import apply_keys, keys_for
from daemon.protocol import DEFAULT_ENDPOINT, replay_endpoint_beside

# Results that wait while the caller is busy with one; what does not fit is asked for later.
_RESULTS_WAITING = 32

# A connection that is dead without knowing it, as after a laptop slept, is noticed and made anew.
_PING_MS, _DEAD_AFTER_MS = 5_000, 15_000
_LONGEST_RECONNECT_MS = 2_000

# A daemon sends heartbeats; one that is not heard for so long is connected to anew.
_SILENT_SECONDS = 10.0

# Between two looks at whether to ask again.
_WAIT_SECONDS = 0.5

ResultT = TypeVar("ResultT", bound=Result, default=Atoms)


class _Connection(Generic[ResultT]):
    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        receive: Sequence[type[ResultT]] = (Atoms,),  # type: ignore[assignment]  # the default of ResultT
        sources: Sequence[str] | None = None,
        from_start: bool = False,
        timeout_seconds: float | None = None,
        replay_endpoint: str | None = None,
        secret_key: Path | str | None = None,
        server_key: Path | str | None = None,
    ) -> None:
        replay_endpoint = replay_endpoint or replay_endpoint_beside(endpoint)
        keys = keys_for(binds=False, secret=secret_key, server=server_key)
        self._timeout_seconds = timeout_seconds
        self._following = Following([kind.kind for kind in receive], sources, from_start, endpoint, replay_endpoint)
        self._broadcast = _open(zmq.SUB)
        self._replay = _open(zmq.DEALER)
        self._places = {self._broadcast: endpoint, self._replay: replay_endpoint}
        self._heard_at = monotonic()
        self._replay.setsockopt(zmq.IMMEDIATE, 1)  # no requests pile up for a daemon that is not there
        for subscription in self._following.subscriptions:
            self._broadcast.setsockopt(zmq.SUBSCRIBE, subscription)
        try:
            for socket, place in self._places.items():
                apply_keys(socket, keys)
                socket.connect(place)
        except ConfigurationError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"One cannot connect to {endpoint} and {replay_endpoint}: {error.strerror}; "
                f"give an endpoint such as {DEFAULT_ENDPOINT}."
            ) from error

    @property
    def status(self) -> Status | None:
        """The daemon's last heartbeat that was read; None before the first."""
        return self._following.status

    def close(self) -> None:
        """Disconnect; iteration ends."""
        self._broadcast.close()
        self._replay.close()

    def _watch(self, poller: zmq.Poller) -> None:
        poller.register(self._broadcast, zmq.POLLIN)
        poller.register(self._replay, zmq.POLLIN)

    def _next_result(self, waiting_since: float) -> ResultT | None:
        """Return the next result; where there is none, ask for what was missed, since one has to wait anyway.

        Raises:
            HrtemdError: Something is to be told first.
        """
        result = self._following.next_result()
        if result is None:
            now = monotonic()
            if self._timeout_seconds is not None and now >= waiting_since + self._timeout_seconds:
                raise self._following.no_results(self._timeout_seconds, now)
            if request := self._following.request(now):
                try:
                    self._replay.send(request, zmq.NOBLOCK)
                except zmq.Again:  # nobody is there yet
                    self._following.take_back()
        return cast(ResultT | None, result)

    def _take(self, ready: Sequence[tuple[Any, int]]) -> None:
        if not ready and monotonic() > self._heard_at + _SILENT_SECONDS:
            self._connect_anew()
        for socket, _ in ready:
            parts = socket.recv_multipart(zmq.NOBLOCK)
            if socket is self._broadcast:
                self._heard_at = monotonic()
                self._following.hear(parts, self._heard_at)
            else:
                self._following.answered(parts)

    def _connect_anew(self) -> None:
        """ZeroMQ itself gives up a daemon that refused this client's key; it may know it by now."""
        self._heard_at = monotonic()
        for socket, place in self._places.items():
            with suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
                socket.disconnect(place)
            socket.connect(place)

    def _wait_ms(self, waiting_since: float) -> int:
        seconds = _WAIT_SECONDS
        if self._timeout_seconds is not None:
            seconds = min(seconds, waiting_since + self._timeout_seconds - monotonic())
        return max(1, math.ceil(1e3 * seconds))


class Client(_Connection[ResultT]):
    """Results of a running daemon, each once and in order: `for atoms in Client(): ...`.

    Waits for a daemon that is not there yet, and connects again to one that was restarted. What was missed is asked
    for. Not to be used by several threads at once.

    Iteration raises `LostResultsError` where results were missed that the daemon no longer keeps, `NoResultsError`
    where none came within the timeout, and `HrtemdError` where the daemon does not answer. All of these leave the
    client as it is: iterate again to go on.

    Args:
        endpoint: `endpoint` in [publish.zeromq] of the daemon's config.toml.
        receive: Which results are wanted: of `Atoms`, `Overlay`, `Event`, `Status`.
        sources: Names of the sources whose results are wanted; all of them where left out.
        from_start: Begin with the oldest results that the daemon keeps, rather than with the next one.
        timeout_seconds: Wait no longer for a result; for ever where left out.
        replay_endpoint: `replay_endpoint` in [publish.zeromq]; the next port where left out.
        secret_key: File of this client's own key, where the daemon has keys; see docs/keys.md.
        server_key: File of the daemon's public key.

    Raises:
        ConfigurationError: It is no endpoint, or has no port and no replay endpoint is given; or a key cannot be used.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ResultT:
        poller = zmq.Poller()
        self._watch(poller)
        waiting_since = monotonic()
        while not self._broadcast.closed:
            if (result := self._next_result(waiting_since)) is not None:
                return result
            self._take(poller.poll(self._wait_ms(waiting_since)))
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Connection[ResultT]):
    """The same as `Client` in a coroutine: `async for atoms in AsyncClient(): ...`."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ResultT:
        poller = zmq.asyncio.Poller()
        self._watch(poller)
        waiting_since = monotonic()
        while not self._broadcast.closed:
            if (result := self._next_result(waiting_since)) is not None:
                return result
            self._take(await poller.poll(self._wait_ms(waiting_since)))
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _open(kind: int) -> "zmq.Socket[bytes]":
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, _RESULTS_WAITING)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _LONGEST_RECONNECT_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _PING_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _DEAD_AFTER_MS)
    return socket
