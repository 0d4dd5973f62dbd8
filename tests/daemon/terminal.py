"""A terminal that takes nothing, as after Ctrl-S."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hung_terminal() -> Iterator[int]:
    """Yield a descriptor to write to, of a pipe that is full and that nobody reads."""
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        os.write(write, bytes(fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)))
        os.set_blocking(write, True)
        yield write
    finally:
        os.close(read)
        os.close(write)
