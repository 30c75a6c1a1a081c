"""The benchmark at toy size: it runs and gives times; what the times are is not tested."""

from __future__ import annotations

import pytest

from benchmarks import shard_speed


def test_all_kinds_of_files_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert shard_speed.main("--clips 3 --seconds 0.3 --rounds 1".split()) == 0
    out = capsys.readouterr().out
    assert all(out.count(f"{content} in {kind}") == 2 for content in ("mp3", "flac") for kind in ("parquet", "tar"))
