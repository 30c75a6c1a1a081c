from __future__ import annotations

import csv
from pathlib import Path

import pytest

from models import checkpoints
from models.MobileNetV3 import get_model
from studies import image_pretraining


@pytest.mark.slow
def test_the_study_runs_and_resumes(tiny_audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = get_model(3, width_mult=0.1)
    network.labels, network.single_label = ("cat", "dog", "hen"), True
    checkpoints.save(tmp_path / "images.pt", network)
    argv = ["--dataset_dir", str(tiny_audioset), "--output_dir", str(tmp_path), "--pretrained_name", str(tmp_path / "images.pt")]
    argv += ["--seeds", "2", "--clip_seconds", "0.5", "--n_epochs", "2", "--jobs", "2"]
    assert image_pretraining.main(argv) == 0
    table = capsys.readouterr().out
    assert "| from images |" in table and "gain in mAP by seed" in table
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(arm, seed, epoch) for arm in image_pretraining.ARMS for seed in "01" for epoch in "01"]
    assert [(row["training"], row["seed"], row["epoch"]) for row in rows] == expected
    assert (tmp_path / "image_pretraining.png").read_bytes().startswith(b"\x89PNG")
    scratch, images = (checkpoints.load(tmp_path / f"runs/{arm}_1/last.pt") for arm in image_pretraining.ARMS)
    assert scratch.args["pretrained_name"] is None and images.args["pretrained_name"] == str(tmp_path / "images.pt")
    assert {name for name in scratch.args if scratch.args[name] != images.args[name]} <= {
        "experiment_name", "pretrained_name", "model_width", "head_type", "se_dims",
    }  # fmt: skip
    before = (tmp_path / "runs/images_1/last.pt").stat().st_mtime_ns
    assert image_pretraining.main(argv) == 0
    assert (tmp_path / "runs/images_1/last.pt").stat().st_mtime_ns == before
