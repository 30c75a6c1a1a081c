"""Several processes, started by torchrun as a user does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from datasets.audioset import training_set
from datasets.prepare import characters
from models import checkpoints
from models.MobileNetV3 import get_model

SCRIPT = Path(__file__).resolve().parent.parent / "ex_audioset.py"
TRAIN = (
    "--train", "--clip_seconds", "0.5", "--num_workers", "0", "--batch_size", "16", "--n_epochs", "3", "--model_width", "0.1",
    "--warm_up_len", "0", "--max_lr", "0.003", "--roll", "--wavmix", "--gain_augment", "6", "--freqm", "8", "--wandb", "disabled",
)  # fmt: skip


def launch(*argv: object, cwd: Path, processes: int = 1, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *torchrun, script, *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def train_losses(folder: Path) -> list[float]:
    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_two_processes_train_as_one(tiny_audioset: Path, tmp_path: Path) -> None:
    """One process that cuts each batch in two computes what two processes do: same clips, same losses, same weights.

    Only the statistics of batch norms differ: in one process every part moves them.
    """
    for name, processes, parts in (("one", 1, 2), ("two", 2, 1)):
        result = launch(
            *TRAIN, "--kd_lambda", 1, "--dataset_dir", tiny_audioset, "--experiment_name", name, "--accumulate", parts,
            cwd=tmp_path, processes=processes,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    assert not (tmp_path / "runs/two-2").exists()
    np.testing.assert_allclose(train_losses(one), train_losses(two), rtol=1e-4)
    first, second = (checkpoints.load(folder / "last.pt").state for folder in (one, two))
    torch.manual_seed(0)
    start = get_model(width_mult=0.1).state_dict()
    weights = [name for name in first if "running" not in name and "num_batches" not in name]
    moved = torch.cat([(first[name] - start[name]).flatten() for name in weights])
    apart = torch.cat([(first[name] - second[name]).flatten() for name in weights])
    assert apart.norm() < 0.05 * moved.norm()


def test_two_processes_evaluate_as_one(tiny_audioset: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Of 11 clips, so that the shares differ."""
    folder = tmp_path / "eval"
    folder.mkdir()
    with h5py.File(tiny_audioset / "eval_segments_mp3.hdf") as source, h5py.File(folder / "eval_segments_mp3.hdf", "w") as file:
        for key in source:
            file.create_dataset(key, data=source[key][:11], dtype=source[key].dtype)
    outputs = []
    for processes in (1, 2):
        result = launch(
            "--model_name", tiny_checkpoint, "--dataset_dir", folder, "--num_workers", 0, "--batch_size", 2,
            "--per_class", f"{processes}.csv", cwd=tmp_path, processes=processes,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("mAP") == 1
    assert (tmp_path / "1.csv").read_text() == (tmp_path / "2.csv").read_text()


def test_a_dying_process_ends_all_with_its_error(tiny_audioset: Path, tmp_path: Path) -> None:
    names = training_set(tiny_audioset).names
    logits = np.zeros((len(names), 527), np.float16)
    logits[5] = np.nan
    np.save(tmp_path / "teacher.npy", logits)
    (tmp_path / "teacher.txt").write_text("".join(f"{name}\n" for name in names))
    result = launch(*TRAIN, "--dataset_dir", tiny_audioset, "--teacher_preds", "teacher.npy", cwd=tmp_path, processes=2)
    assert result.returncode != 0
    assert f"of {names[5]}, is not finite" in result.stderr


@pytest.mark.slow
def test_the_average_of_weights_is_one_over_two_processes(tmp_path: Path) -> None:
    """Two processes keep the average that one process keeps, and evaluate the same network."""
    pytest.importorskip("torchvision")
    assert characters.main(["digits", "--output_dir", str(tmp_path / "digits")]) == 0
    options = (
        "digits", "--model_width", 0.1, "--image_size", 16, "--batch_size", 64, "--n_epochs", 2, "--num_workers", 0,
        "--batch_norm_momentum", 0.2, "--wandb", "disabled",
    )  # fmt: skip
    for name, processes, parts in (("one", 1, 2), ("two", 2, 1)):
        result = launch(
            *options, "--experiment_name", name, "--accumulate", parts, cwd=tmp_path, processes=processes,
            script=SCRIPT.with_name("ex_imagenet.py"),
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(train_losses(tmp_path / "runs/one"), train_losses(tmp_path / "runs/two"), rtol=1e-3)
    one, two = (checkpoints.load(tmp_path / f"runs/{name}/last.pt") for name in ("one", "two"))
    for name, tensor in one.state.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, two.state[name], atol=0.02, rtol=0.05)
    evaluated = launch("digits", "--evaluate", "runs/two/last.pt", cwd=tmp_path, script=SCRIPT.with_name("ex_imagenet.py"))
    assert f"accuracy: {two.metrics['accuracy']:.3f}" in evaluated.stdout
