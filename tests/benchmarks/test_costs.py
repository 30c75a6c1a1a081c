"""The benchmark at toy size: it runs and draws; what the times are is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import costs


def test_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "costs.png"
    assert costs.main(["--model_name", "mn01_as", "--rounds", "1", "--figure", str(figure)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (row,) = [line for line in lines if line and line[0].startswith("mn")]
    assert row[:3] == ["mn01_as", "0.12", "0.02"] and min(map(float, row[-2:])) > 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_of_models_that_cost_the_same_the_best_is_measured() -> None:
    names = costs.build_parser().get_default("model_name")
    assert "mn40_as_ext" in names and "mn40_as" not in names and "mn10_im" not in names
    assert len(names) == 21 and names[:2] == ["mn01_as", "mn02_as"]
