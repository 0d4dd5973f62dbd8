"""Worker processes that do not outlive the command that started them."""

import multiprocessing
import os
from threading import Thread


def end_with_parent() -> None:
    """In a worker: end at once when the parent process does, even killed, instead of finishing work for nobody.

    A worker left behind would hold the file that the next run wants to write.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, name="end with parent", daemon=True).start()
