"""Training processes killed at any moment and resumed: the weights are those of a run without interruption."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

import ex_audioset
from helpers.training import loop
from helpers.training.run import Run
from models import command
from models.interrupts import Terminated, sigterm_raises
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


@pytest.mark.parametrize("number", [4, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_while_saving(number: int, whole: Path, tiny_audioset: Path, tmp_path: Path) -> None:
    """The fourth or seventh file is half written: best.pt after the first epoch, or last.pt within the second."""
    killed_while_saving(number, (*TRAIN, "--dataset_dir", tiny_audioset), tmp_path)
    assert list((tmp_path / "runs/audioset").glob(".*.part"))
    finish("--train", "--resume", "runs/audioset", cwd=tmp_path)
    assert_same_run(whole, tmp_path / "runs/audioset")
    assert not list((tmp_path / "runs/audioset").glob(".*.part"))


STEP, EVALUATION, BEST = (loop._Stepper, "__call__"), (ex_audioset, "predict"), (Run, "save_if_best")


@pytest.mark.parametrize(
    ("place", "call", "number", "left"),
    [
        (STEP, 6, signal.SIGTERM, 2),
        pytest.param(STEP, 6, signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(EVALUATION, 2, signal.SIGTERM, 0, marks=pytest.mark.slow),
        (BEST, 2, signal.SIGINT, 0),
    ],
)
def test_a_signal_loses_nothing(
    place: tuple[object, str], call: int, number: int, left: int, whole: Path, tiny_audioset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It comes in the sixth of eight steps, whose work is kept, in the second evaluation, or when that epoch is being saved."""
    work, calls = getattr(*place), []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == call:
            signal.raise_signal(number)
        return work(*args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught, sigterm_raises():
        patch.chdir(tmp_path)
        patch.setattr(*place, interrupted)
        ex_audioset.main([*TRAIN, "--save_minutes", "60", "--dataset_dir", str(tiny_audioset)])
    assert isinstance(caught.value, Terminated) == (number == signal.SIGTERM)
    assert "--resume runs/audioset" in (tmp_path / "runs/audioset/log.txt").read_text()
    steps, step = [], loop._Stepper.__call__
    monkeypatch.setattr(loop._Stepper, "__call__", lambda *args: steps.append(args) or step(*args))
    finish("--train", "--resume", "runs/audioset", cwd=tmp_path)
    assert len(steps) == left
    assert_same_run(whole, tmp_path / "runs/audioset")


def test_a_signal_to_the_whole_process_group_spares_the_workers(whole: Path, tiny_audioset: Path, tmp_path: Path) -> None:
    """As batch systems send it: the command saves, ends with 143, and leaves no process."""
    options = ["--n_epochs", "99", "--num_workers", "2", "--save_minutes", "60", "--dataset_dir", str(tiny_audioset)]

    def train() -> None:
        os.setsid()
        os.chdir(tmp_path)
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv, sys.stderr = ["ex_audioset.py", *TRAIN, *options], open(2, "w", closefd=False)
        command.run(ex_audioset.main)

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    log = tmp_path / "runs/audioset/metrics.csv"
    started = time.monotonic()
    while not log.exists() and time.monotonic() - started < 120:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert "Traceback" not in (tmp_path / "errors").read_text()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert "SIGTERM" in (tmp_path / "runs/audioset/log.txt").read_text()
    assert not list((tmp_path / "runs/audioset").glob(".*.part"))
