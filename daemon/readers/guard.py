"""Between hrtemd and the libraries that parse files: their errors, warnings and log become ours."""

import contextlib
import functools
import gc
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar

from daemon.errors import FrameError

_log = logging.getLogger(__name__)

T = TypeVar("T")


def cannot_be_read(where: str, reason: str) -> FrameError:
    """Say that a file, or an image in it, is not what its ending promises."""
    return FrameError(
        f"{where}: the file cannot be read ({reason}); it may be cut short, still being written or damaged: "
        "copy or export it again."
    )


def guarded(where: str, parse: Callable[[], T]) -> T:
    """Run `parse` on a file, or an image in it, that may hold anything.

    Raises:
        FrameError: Whatever a library raised, as one sentence.
    """
    with _quiet():
        try:
            return parse()
        except FrameError:
            raise
        except Exception as error:
            reason = _first_line(error)
            _log.debug("%s cannot be read", where, exc_info=True)
        # A library that failed may have left the file open, which keeps Windows from moving or replacing it.
        gc.collect()
    raise cannot_be_read(where, reason)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_state: Any = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send Python warnings to the debug log.

    Warning filters belong to the whole process, so threads that read at the same time share one change of them:
    the first in makes it, the last out undoes it.
    """
    global _quiet_depth, _quiet_state  # noqa: PLW0603
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_state = warnings.catch_warnings()
            _quiet_state.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = _log_warning
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_state.__exit__(None, None, None)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _log.debug("%s:%d: %s: %s", filename, lineno, category.__name__, message)


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log.debug("%s: %s", record.name, record.getMessage())


def demote_log(name: str) -> None:
    """Send a library's log to ours at debug level: what stops a frame is raised, the rest is for who debugs.

    RosettaSciIO would otherwise print in colour to standard output, where the answers of `hrtemd` go.
    """
    with _demoting:
        _demote_once(name)


_demoting = threading.Lock()


@functools.cache  # once only: it would take away the handler of a thread that is within `errors_logged`
def _demote_once(name: str) -> None:
    logger = logging.getLogger(name)
    logger.handlers = [_ToDebug()]
    logger.propagate = False


class _ErrorsOfThread(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.thread = threading.get_ident()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextlib.contextmanager
def errors_logged(name: str) -> Iterator[list[str]]:
    """Collect what a library logs as an error, in this thread, where it should have raised."""
    handler = _ErrorsOfThread()
    logging.getLogger(name).addHandler(handler)
    try:
        yield handler.messages
    finally:
        logging.getLogger(name).removeHandler(handler)
