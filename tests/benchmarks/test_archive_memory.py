"""Memory of an archive's processes: recordings, rows, samples and table; without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import archive_memory
from benchmarks.archive_memory import DRIVER, LABELS, Sample, draw, growth, mean_scores, memory, write_recordings
from helpers.archive.inputs import list_inputs, open_entry
from helpers.archive.parcels import Address, Parcel, Piece


def test_recordings_are_as_many_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_memory, "TAR_RECORDINGS", 4)
    write_recordings(tmp_path / "in", 10)
    entries = list(list_inputs(str(tmp_path / "in")))
    assert len(entries) == len({entry.source for entry in entries}) == 10
    assert open_entry(entries[1]) == open_entry(entries[5])  # of tars that are links


def test_rows_without_a_network() -> None:
    pieces = [Piece("a.wav", (0, 0), 0.0, 1.0, 2), Piece("b.wav", (1, 0), error="cannot be read")]
    table = mean_scores(Parcel(Address(0, 0, 0, True), pieces, (2, 0), 2), np.array([0.25, 0.75], np.float32))
    assert table["source"].to_pylist() == ["a.wav", "b.wav"]
    assert table["scores"][0].as_py() == [0.5] * len(LABELS)
    assert table["error"].to_pylist() == [None, "cannot be read"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_of_this_process_and_its_children() -> None:
    alone = memory(os.getpid())
    assert alone[DRIVER] > 10
    with subprocess.Popen([sys.executable, "-c", "input('serve(limit)')"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.read(1)  # it runs
        assert memory(os.getpid())["decoding processes"] > 1
        child.communicate(b"\n")


def test_the_table_compares_fifths_of_the_recordings(tmp_path: Path) -> None:
    samples = [Sample(10 * n, {DRIVER: 100.0 if n < 50 else 200.0, "network": 50.0}) for n in range(101)]
    assert growth(samples) == [(DRIVER, "100", "200"), ("network", "50", "50")]
    draw(samples, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 1000
