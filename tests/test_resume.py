"""Training processes killed at any moment and resumed: the weights are those of a run without interruption."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

import ex_audioset
from tests.finetuning import assert_same_run

TRAIN = (
    "--train", "--kd_lambda", "1", "--clip_seconds", "0.5", "--num_workers", "1", "--batch_size", "8", "--n_epochs", "2",
    "--model_width", "0.1", "--n_mels", "32", "--roll", "--wavmix", "--freqm", "8", "--wandb", "disabled", "--save_minutes", "0",
)  # fmt: skip


def killed_while_saving(number: int, argv: Sequence[object], folder: Path) -> None:
    """Train in a process of its own that kills itself when half of its `number`-th file is written."""

    def train() -> None:
        saved = 0

        def save(content: object, file: BinaryIO, really_save: Callable = torch.save) -> None:
            nonlocal saved
            saved += 1
            really_save(content, file)
            if saved == number:
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        os.chdir(folder)
        torch.save = save
        ex_audioset.main([*map(str, argv)])

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


def finish(*argv: object, cwd: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        assert ex_audioset.main([*map(str, argv)]) == 0


@pytest.fixture(scope="module")
def whole(tiny_audioset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without interruption: 2 epochs of 4 steps."""
    folder = tmp_path_factory.mktemp("whole")
    finish(*TRAIN, "--dataset_dir", tiny_audioset, cwd=folder)
    return folder / "runs/audioset"


@pytest.mark.parametrize("number", [4, 7])
def test_killed_while_saving(number: int, whole: Path, tiny_audioset: Path, tmp_path: Path) -> None:
    """The fourth or seventh file is half written: best.pt after the first epoch, or last.pt within the second."""
    killed_while_saving(number, (*TRAIN, "--dataset_dir", tiny_audioset), tmp_path)
    assert list((tmp_path / "runs/audioset").glob(".*.part"))
    finish("--train", "--resume", "runs/audioset", cwd=tmp_path)
    assert_same_run(whole, tmp_path / "runs/audioset")
    assert not list((tmp_path / "runs/audioset").glob(".*.part"))
