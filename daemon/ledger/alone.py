"""One daemon to a ledger: two would publish frames twice and delete each other's unfinished files."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import HrtemdError

log = logging.getLogger(__name__)


@contextmanager
def alone_with(ledger: Path) -> Iterator[None]:
    """Keep other daemons from a ledger, by a lock on a file beside it that ends with the process, however that ends.

    Raises:
        HrtemdError: Another daemon has it.
        OSError: The file cannot be made.
    """
    # Not on the ledger itself: to close a second descriptor of it would take SQLite's own locks away.
    path = ledger.with_name(f"{ledger.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise HrtemdError(
                f"{ledger}: another hrtemd{f' (process {holder})' if holder else ''} works with this ledger; "
                "stop it, or give this one other folders in [publish.files] and [ledger]."
            ) from error
        except OSError as error:  # as on some network shares
            log.warning("%s: cannot be locked (%s); see that no second hrtemd is started on it", ledger, error.strerror)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
