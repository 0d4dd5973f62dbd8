"""What docs/client.md tells people to type gives what it says."""

import doctest
from pathlib import Path

from tests.daemon.broadcasting import Station

DOCUMENT = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_document_is_right(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.post_event("torn.npy: is cut short; copy it again.")
    station.post_atoms(name="frame-0001", count=812, warnings=["The dose is low."])
    station.post_overlay(b"\x89PNG and so on", name="frame-0001.overlay.png")
    station.post_atoms(name="frame-0002")
    text = DOCUMENT.read_text()
    text = text.replace('Client("tcp://127.0.0.1:5600"', f'Client("{station.endpoint}", replay_endpoint=REPLAY')
    text = text.replace('connect("tcp://127.0.0.1:5601")', "connect(REPLAY)")
    text = text.replace("The daemon at tcp://127.0.0.1:5600", f"The daemon at {station.endpoint}")
    report: list[str] = []
    names = {"REPLAY": station.replay_endpoint}
    try:
        test = doctest.DocTestParser().get_doctest(text, names, DOCUMENT.name, str(DOCUMENT), 0)
        outcome = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    finally:
        station.close()
    assert outcome.attempted > 30
    assert not outcome.failed, "".join(report)
