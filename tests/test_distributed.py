"""Several processes, started by torchrun as a user does."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import torch

from models import checkpoints

SCRIPT = Path(__file__).resolve().parent.parent / "ex_audioset.py"
TRAIN = (
    "--train", "--kd_lambda", "1", "--clip_seconds", "0.5", "--num_workers", "0", "--batch_size", "16", "--n_epochs", "2",
    "--model_width", "0.1", "--roll", "--wavmix", "--gain_augment", "6", "--freqm", "8", "--wandb", "disabled",
)  # fmt: skip


def launch(*argv: object, cwd: Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *torchrun, SCRIPT, *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def train_losses(folder: Path) -> list[float]:
    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_two_processes_train_as_one(tiny_audioset: Path, tmp_path: Path) -> None:
    """One process that cuts each batch in two computes what two processes do: same clips, same losses, same weights."""
    for name, processes, parts in (("one", 1, 2), ("two", 2, 1)):
        result = launch(
            *TRAIN, "--dataset_dir", tiny_audioset, "--experiment_name", name, "--accumulate", parts,
            cwd=tmp_path, processes=processes,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    assert not (tmp_path / "runs/two-2").exists()
    np.testing.assert_allclose(train_losses(one), train_losses(two), rtol=1e-5)
    first, second = (checkpoints.load(folder / "last.pt").state for folder in (one, two))
    for name, tensor in first.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, second[name], atol=2e-4, rtol=1e-3)


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
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_audioset, folder)
    with h5py.File(folder / "unbalanced_train_segments_mp3.hdf", "r+") as file:
        file["mp3"][5] = file["mp3"][5][:40] * 0
    result = launch(*TRAIN, "--dataset_dir", folder, cwd=tmp_path, processes=2)
    assert result.returncode != 0
    assert "Yunba0000005.mp3" in result.stderr
