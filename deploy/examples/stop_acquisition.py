"""Stops an acquisition when hrtemd sends an alert: an example of a script that acts on results.

    python stop_acquisition.py atoms_lost drift

Set the limits in [alerts] of hrtemd's config.toml, and put what stops your microscope into `stop_the_microscope`. See
docs/alerts.md.
"""

import sys
from collections.abc import Callable, Collection

from daemon.client import Client, Event
from daemon.errors import HrtemdError

ENDPOINT = "tcp://127.0.0.1:5600"  # `endpoint` in [publish.zeromq] of hrtemd's config.toml
# Where that has keys: files of this script's own key, and of hrtemd's public one; see docs/keys.md.
SECRET_KEY = None
SERVER_KEY = None


def stop_on_alert(events: Client[Event], kinds: Collection[str], stop: Callable[[], None]) -> Event:
    """Wait for an alert of one of these kinds, call `stop` at once, and return the alert.

    An alert that was missed, in a gap of the network, is asked for by the client and still acted on.

    Args:
        events: Receives events.
        kinds: Such as `atoms_lost`; see docs/alerts.md.
        stop: Stops the acquisition.
    """
    while True:
        try:
            event = next(events)
        except HrtemdError as error:  # such as events that nobody keeps any more; those to come still count
            print(f"{error} Still listening.", file=sys.stderr)
            continue
        if event.header.get("alert") in kinds:
            stop()
            print(f"Stopped: {event.header['message']} ({event.source}, {event.header['name']})")
            return event


def stop_the_microscope() -> None:
    """Blank the beam, or end the series: a line or two of your microscope's own Python."""
    print("Here the acquisition would be stopped.")


if __name__ == "__main__":
    with Client(ENDPOINT, receive=[Event], secret_key=SECRET_KEY, server_key=SERVER_KEY) as events:
        stop_on_alert(events, sys.argv[1:] or ["atoms_lost"], stop_the_microscope)
