"""studies.distillation: equal budgets, scores, what is refused, and the whole study with a tiny teacher."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ex_audioset
from helpers.training.evaluation import Predictions
from models import checkpoints
from models.MobileNetV3 import get_model
from studies import distillation


@pytest.fixture
def corpus(tiny_audioset: Path, tmp_path: Path) -> Path:
    """The tiny AudioSet, whose training clips are there once more without labels."""
    folder = tmp_path / "corpus"
    shutil.copytree(tiny_audioset, folder)
    shutil.copy(folder / "unbalanced_train_segments_mp3.hdf", folder / "unlabelled_segments_mp3.hdf")
    return folder


def options(corpus: Path, teacher: Path, *more: object) -> list[str]:
    words = ["--dataset_dir", corpus, "--output_dir", corpus / "study", "--teacher", teacher, "--model_width", 0.1]
    return list(map(str, [*words, *more]))


def planned(argv: list[str], can_learn_blockwise: bool) -> list[dict[tuple[str, int], argparse.Namespace]]:
    """What the script of the trainings understands of the plan."""
    args = distillation.build_parser().parse_args(argv)
    parser = ex_audioset.build_parser()
    runs = distillation.plan(args, can_learn_blockwise)
    parsed = [{key: parser.parse_args(["--train", *map(str, words)]) for key, words in stage.items()} for stage in runs]
    for training in (training for stage in parsed for training in stage.values()):
        ex_audioset.check_distillation_options(parser, training)
    return parsed


@pytest.mark.parametrize("n_epochs", [2, 6, 7])
def test_every_way_of_learning_has_the_same_budget(corpus: Path, tiny_checkpoint: Path, n_epochs: int) -> None:
    first, second = planned(options(corpus, tiny_checkpoint, "--n_epochs", n_epochs, "--seeds", 2), can_learn_blockwise=True)
    for arm in distillation.ARMS:
        for seed in range(2):
            parts = [stage[name, seed] for stage in (first, second) for name in (arm, f"{arm}_blocks") if (name, seed) in stage]
            assert sum(part.n_epochs for part in parts) == n_epochs
            assert {(part.epoch_len, part.batch_size, part.model_width) for part in parts} == {(2000, 16, 0.1)}
            assert {part.views[0] if part.views else part.clip_seconds for part in parts} == {3.0}
            blocks, *student = parts
            assert blocks.blockwise_epochs == (blocks.n_epochs if student else 0)
            for part in student:
                assert part.blockwise_epochs == 0
                assert part.pretrained_name == str(corpus / f"study/runs/{arm}_blocks_{seed}/last.pt")
    assert {arm for arm, _ in second} == {"features", "unlabelled"}


def test_a_teacher_of_another_width_teaches_end_to_end(corpus: Path, tiny_checkpoint: Path) -> None:
    first, second = planned(options(corpus, tiny_checkpoint), can_learn_blockwise=False)
    assert not second and {arm for arm, _ in first} == set(distillation.ARMS)
    assert all(training.n_epochs == 6 and not training.blockwise_epochs for training in first.values())
    assert first["unlabelled", 0].feature_kd == 1 and first["unlabelled", 0].kd_lambda == 0


def test_scores() -> None:
    targets = np.eye(4, dtype=np.float32)
    teacher = Predictions(list("abcd"), targets, np.where(targets, np.log(3), -np.log(3)))  # probabilities of 0.75 and 0.25
    opposite = Predictions(teacher.names, targets, -teacher.logits)
    assert distillation.scores_of(teacher, teacher) == {
        "mAP": 1, "ROC-AUC": 1, "difference from teacher": 0, "teacher's first tag": 1,
    }  # fmt: skip
    scores = distillation.scores_of(opposite, teacher)
    assert scores["difference from teacher"] == pytest.approx(0.5)
    assert (scores["ROC-AUC"], scores["teacher's first tag"]) == (0, 0)


def test_what_the_study_cannot_do_is_refused(corpus: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="--n_epochs"):
        distillation.main(options(corpus, tiny_checkpoint, "--n_epochs", 1))
    few_classes = corpus / "few_classes.pt"
    checkpoints.save(few_classes, get_model(3, width_mult=0.1))
    with pytest.raises(ValueError, match="--teacher"):
        distillation.main(options(corpus, few_classes))
    study = corpus / "study"
    study.mkdir(exist_ok=True)
    (study / "teacher.npy").touch()
    (study / "teacher.json").write_text(json.dumps({"models": ["another"], "clip_seconds": 3.0}))
    with pytest.raises(ValueError, match="--output_dir"):
        distillation.main(options(corpus, tiny_checkpoint))
    (corpus / "unlabelled_segments_mp3.hdf").unlink()
    with pytest.raises(ValueError, match="unlabelled"):
        distillation.main(options(corpus, tiny_checkpoint))


@pytest.mark.slow
def test_the_study_runs_and_resumes(
    corpus: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    short = ("--seeds", 1, "--clip_seconds", 0.5, "--n_epochs", 2, "--jobs", 2)
    argv = options(corpus, Path(tiny_checkpoint.name), *short)
    assert distillation.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in distillation.ARMS.values()) and printed.count("gain in mAP") == 4
    study = corpus / "study"
    with open(study / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["training"] for row in rows] == [*distillation.ARMS, "teacher"]
    assert (study / "distillation.png").read_bytes().startswith(b"\x89PNG")
    student = checkpoints.load(study / "runs/unlabelled_0/last.pt")
    assert student.args["epoch_len"] == 24 and student.args["views"] == [0.5, 0.5]
    runs = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/last.pt")}
    assert len(runs) == 7
    assert distillation.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
