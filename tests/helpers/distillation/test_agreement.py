"""helpers.distillation.agreement: scores of a network next to those of a teacher."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from helpers.distillation import agreement
from models import checkpoints
from models.errors import UserError
from models.MobileNetV3 import get_model


def logit(p: list[float]) -> np.ndarray:
    return np.log(np.array([p]) / (1 - np.array([p])))


def test_by_hand() -> None:
    result = agreement.agreement(logit([0.5, 0.2]), logit([0.1, 0.2]))
    assert result.mean_difference == pytest.approx(0.2)
    assert result.equal_first_tags == 0
    assert result.divergence == pytest.approx((0.1 * np.log(0.1 / 0.5) + 0.9 * np.log(0.9 / 0.5)) / 2)
    certain = np.array([[100.0, -1000.0]])  # float32 scores of 0 and 1
    assert agreement.agreement(certain, certain) == agreement.Agreement(0, 1, 0)
    assert (
        agreement.agreement(np.repeat(logit([0.5, 0.2]), 2, 0), np.r_[logit([0.1, 0.2]), logit([0.9, 0.2])]).equal_first_tags == 0.5
    )


def run(model: object, teachers: list[object], data: Path) -> int:
    words = ["--model_name", model, "--teacher", *teachers, "--dataset_dir", data, "--clip_seconds", 0.5, "--num_workers", 0]
    return agreement.main([str(word) for word in words])


def test_the_command(tiny_audioset: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_checkpoint, [tiny_checkpoint], tiny_audioset) == 0
    assert [float(number) for number in re.findall(r": (\d\S+)$", capsys.readouterr().out, re.MULTILINE)] == [0, 1, 0]
    assert run("mn04_distilled", [tiny_checkpoint, tiny_checkpoint], tiny_audioset) == 0
    printed = capsys.readouterr().out
    difference, _, divergence = map(float, re.findall(r": (\d\S+)$", printed, re.MULTILINE))
    assert difference > 0.3 and divergence > 0.3  # random weights are undecided
    assert "on 12 clips" in printed and len(re.findall(r"mAP \d\.\d{3}, ROC-AUC \d\.\d{3}", printed)) == 2


def test_other_classes(tiny_audioset: Path, tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "three.pt", get_model(3, width_mult=0.1))
    with pytest.raises(UserError, match="3 classes"):
        run(tmp_path / "three.pt", ["mn04_distilled"], tiny_audioset)
