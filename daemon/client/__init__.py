"""Results of a running daemon in scripts and notebooks: `for atoms in Client(): ...`; see docs/client.md.

Nothing that the daemon needs to analyse frames is imported here.
"""

from daemon.client.connection import AsyncClient, Client
from daemon.client.errors import LostResultsError, NoResultsError
from daemon.client.results import Atoms, Event, Overlay, Result, Status

__all__ = [
    "AsyncClient",
    "Atoms",
    "Client",
    "Event",
    "LostResultsError",
    "NoResultsError",
    "Overlay",
    "Result",
    "Status",
]
