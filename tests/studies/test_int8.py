"""The study at toy size: both exports are scored on the same clips and timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets import audioset
from helpers.export.graph import to_onnx
from models import checkpoints
from models.MobileNetV3 import get_model
from studies import int8


def test_scores_are_those_of_the_exports(tiny_audioset: Path, tiny_checkpoint: Path) -> None:
    clips = audioset.evaluation_set(tiny_audioset, clip_seconds=1.0)
    network = checkpoints.load_model(tiny_checkpoint)
    for layer in (network.classifier[2], network.classifier[5]):
        layer.weight.data.mul_(30)  # so that clips differ
    blind = checkpoints.load_model(tiny_checkpoint)
    for parameter in blind.classifier.parameters():
        parameter.data.zero_()  # all clips get one score: the mean average precision of guessing, 3 of 12 clips a class
    good, bad = int8.compare({"good": to_onnx(network, "good"), "bad": to_onnx(blind, "bad")}, clips, 32000, 1)
    assert bad.mAP == pytest.approx(0.25) and good.mAP > 0.3
    assert good.megabytes == pytest.approx(len(to_onnx(network, "good").SerializeToString()) / 1e6)
    assert len(good.milliseconds) == len(int8.BATCHES) and min(good.milliseconds) > 0


def test_it_prints_both(tiny_audioset: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dataset_dir", tiny_audioset, "--clip_seconds", 1, "--calibration_clips", 4, "--rounds", 1]
    assert int8.main(["--model_name", str(tiny_checkpoint), *map(str, options)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][1:] == ["float", "int8"]


def test_other_classes_are_refused(tiny_audioset: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    checkpoints.save(tmp_path / "own.pt", get_model(num_classes=3, width_mult=0.1))
    assert "3 classes" in failing_message(int8.main, "--model_name", tmp_path / "own.pt", "--dataset_dir", tiny_audioset)
