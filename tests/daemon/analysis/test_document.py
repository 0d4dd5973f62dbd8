"""What docs/analysis.md tells the microscopist to type gives what it says."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from daemon.atoms import write_parquet

DOCUMENT = Path(__file__).parents[3] / "docs" / "analysis.md"


@pytest.fixture
def results(tmp_path, monkeypatch, table_of, sheet_of, particle_of):
    """Two tables of one sheet that loses sulphur, and one of a particle."""
    rng = np.random.default_rng(0)
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)

    positions, labels = sheet_of(76)
    positions = positions - 8 + rng.normal(0, 0.05, positions.shape)
    inside = ((positions > 0) & (positions < 60)).all(axis=1)
    sulphur = rng.permutation(np.flatnonzero(inside & (labels == "S2")))
    labels[sulphur[:26]], labels[sulphur[26:28]] = "S", "vacancy"
    labels[rng.choice(np.flatnonzero(inside & (labels == "Mo")))] = "vacancy"
    later = labels.copy()
    deep = ((positions > 5) & (positions < 55)).all(axis=1)
    later[[site for site in sulphur[28:] if deep[site]][:5]] = "S"
    later[next(site for site in sulphur[:26] if deep[site])] = "vacancy"
    for name, names, shift, time in (("0000", labels, (0, 0), "10:00:00"), ("0001", later, (1.4, -0.6), "10:00:12")):
        seen = ((positions + shift > 0) & (positions + shift < 60)).all(axis=1)
        table = table_of(
            (positions + shift)[seen],
            names[seen],
            label_probability=0.98,
            shape=[300, 300],
            acquired_at=f"2026-11-22T{time}+00:00",
        )
        write_parquet(table, Path(f"results/sheet-{name}.atoms.parquet"))

    columns, n_atoms = particle_of()
    table = table_of(columns, [None] * len(columns), probability=0.995, n_atoms=n_atoms, n_atoms_probability=0.93)
    write_parquet(table, Path("results/particle.atoms.parquet"))


@pytest.mark.usefixtures("results")
def test_the_page_tells_the_truth():
    report = []
    test = doctest.DocTestParser().get_doctest(DOCUMENT.read_text(), {}, DOCUMENT.name, str(DOCUMENT), 0)
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=report.append)

    assert outcome.attempted > 20
    assert not outcome.failed, "".join(report)
