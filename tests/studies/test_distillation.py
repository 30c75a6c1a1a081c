from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models import checkpoints
from studies import distillation


@pytest.mark.slow
def test_the_study_runs_and_resumes(tiny_audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--seeds", "1", "--teacher_members", "1", "--model_width", "0.1", "--clip_seconds", "0.5", "--n_epochs", "2"]
    argv = ["--dataset_dir", str(tiny_audioset), "--output_dir", str(tmp_path), *small, "--jobs", "2"]
    assert distillation.main(argv) == 0
    table = capsys.readouterr().out
    assert "| labels and teacher |" in table and "gain in mAP by seed" in table
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["training"], row["epoch"]) for row in rows] == [(arm, epoch) for arm in distillation.ARMS for epoch in "01"]
    assert (tmp_path / "distillation.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoints.load(tmp_path / "runs/distilled_0/last.pt").args["kd_lambda"] == 0.1
    before = (tmp_path / "runs/distilled_0/last.pt").stat().st_mtime_ns
    assert distillation.main(argv) == 0
    assert (tmp_path / "runs/distilled_0/last.pt").stat().st_mtime_ns == before


def test_a_teacher_of_networks_that_are_not_trained_is_refused(tiny_audioset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        distillation.main(["--dataset_dir", str(tiny_audioset), "--output_dir", str(tmp_path), "--seeds", "1"])
