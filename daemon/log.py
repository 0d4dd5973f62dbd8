"""The log on stderr, written by a thread of its own: a terminal that hangs holds up nothing but what it would show."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Full, Queue
from threading import Thread

MOST_LINES_WAITING = 1000

_STDERR = 2
_SECONDS_TO_FINISH = 2.0


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Log to stderr; what it does not take before the end is lost."""
    handler = _Handler(_STDERR)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


class _Handler(logging.Handler):
    """Hands lines over to a thread, or leaves them out where too many wait.

    Args:
        descriptor: Of the file they go to; Python's own `sys.stderr` has a lock for which the end of the process waits.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._left_out = 0
        self._lines: Queue[str | None] = Queue(MOST_LINES_WAITING)
        self._thread = Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; never waits."""
        try:
            if self._left_out:
                self._lines.put_nowait(f"{self._left_out} lines are left out here: stderr did not take them in time")
                self._left_out = 0
            self._lines.put_nowait(self.format(record))
        except Full:
            self._left_out += 1
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Let the thread finish, if it can do so soon."""
        with suppress(Full):
            self._lines.put(None, timeout=_SECONDS_TO_FINISH)
            self._thread.join(_SECONDS_TO_FINISH)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = memoryview(f"{line}\n".encode(errors="backslashreplace"))
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:  # the terminal is gone; the daemon goes on without
                return
