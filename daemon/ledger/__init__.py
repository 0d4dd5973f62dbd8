"""What became of every frame, and every result as it was sent: one SQLite file that survives a crash.

`ledger` is the daemon's own side and `history` what people ask; below them are `schema` (tables, versions), `file`
(threads, transactions, damage), `alone` (no second daemon), `errors` and `pruning`.
"""

from daemon.ledger.alone import alone_with
from daemon.ledger.history import Entry, read_history
from daemon.ledger.ledger import Ledger, Message, State, storable
from daemon.ledger.pruning import LedgerLimits

__all__ = ["Entry", "Ledger", "LedgerLimits", "Message", "State", "alone_with", "read_history", "storable"]
