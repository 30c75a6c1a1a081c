"""The benchmark on a small synthetic archive: every question is asked; times are not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import archive_queries
from benchmarks.common import ProcessRun
from helpers.archive.__main__ import main


def test_every_question_has_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {}

    def answered(arguments: list) -> ProcessRun:  # in this process, which takes seconds less each
        assert main([str(word) for word in arguments[2:]]) == 0
        printed[arguments[2]] = capsys.readouterr().out
        return ProcessRun(1.0, 10**6, [], "")

    monkeypatch.setattr(archive_queries, "run_process", answered)
    monkeypatch.setattr(archive_queries, "BATCH_ROWS", 100)
    monkeypatch.setattr(archive_queries, "SHARD_ROWS", 200)
    assert archive_queries.main(["--rows", "500", "--size", "16", "--folder", str(tmp_path / "archive")]) == 0
    assert printed.keys() == {"best", "histogram", "neighbours", "duplicates", "merge", "export"}
    kinds = [line.split(",")[1] for line in printed["duplicates"].splitlines()[1:]]
    assert kinds.count("exact") >= 4 and kinds.count("near") >= 4
    assert "500 rows" in printed["merge"]
