"""What the studies of few recordings share: which recordings to train on, and trainings on and without pre-trained weights."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch

from datasets.folders import folder
from datasets.recordings import Recordings
from helpers import cli, network_options
from helpers.training.finetuning import TUNED_AUGMENTATION, Task, add_cache_option, add_options, finetune, parse
from helpers.training.objectives import CLASSIFICATION
from models import checkpoints


@dataclass(frozen=True)
class Budget:
    """What all trainings of a study have in common."""

    output_dir: Path  # holds runs/ and cache/
    clip_seconds: float
    batch_size: int
    epoch_clips: int  # drawn from the few recordings again and again, so that all trainings have the same steps
    n_epochs: int


def add_training_options(parser: argparse.ArgumentParser, *, n_epochs: int, epoch_clips: int) -> None:
    """Options of trainings, with a study's own defaults."""
    parser.add_argument("--n_epochs", type=cli.positive_int, default=n_epochs, help=f"epochs of {epoch_clips} clips each")
    parser.add_argument("--max_lr", type=cli.positive_float, default=1e-3, help="peak learning rate of fine-tuning")
    parser.add_argument("--scratch_lr", type=cli.positive_float, default=3e-3, help="peak learning rate from scratch")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="trainings at a time, on one thread each")


def choose(targets: np.ndarray, training: np.ndarray, clips: int | None, seed: int) -> np.ndarray:
    """Indices of at most `clips` training recordings of each class, in random order; a seed draws the same for all methods."""
    shuffled = np.random.default_rng(seed).permutation(training)
    if clips is None:
        return shuffled
    classes = targets[shuffled].argmax(1)
    return shuffled[np.concatenate([np.flatnonzero(classes == k)[:clips] for k in range(targets.shape[1])])]


def start_options(pretrained_name: str, *, scratch: bool) -> list[object]:
    """Options of a training that starts from a model or, with `scratch`, from random weights of its architecture."""
    if not scratch:
        return ["--pretrained_name", pretrained_name]
    arch, _ = checkpoints.architecture(pretrained_name)
    return network_options.options_of(arch)


def train(
    name: str,
    budget: Budget,
    start: Sequence[object],
    data: folder.FolderData,
    chosen: np.ndarray,
    test: np.ndarray,
    *,
    max_lr: float,
    seed: int,
) -> dict[str, float]:
    """Train on the `chosen` clips, in a folder `name` of its own, and return the last epoch's scores on the clips `test`.

    `start` are `start_options`. An interrupted training resumes, a complete one gives its scores.
    """
    epochs = budget.n_epochs
    options = [
        "--clip_seconds", budget.clip_seconds, "--batch_size", budget.batch_size, "--n_epochs", epochs, "--num_workers", 0,
        "--warm_up_len", 1, "--ramp_down_start", 1, "--ramp_down_len", epochs - 1, "--seed", seed, "--wandb", "disabled",
        "--experiment_name", name, "--cache_path", budget.output_dir / "cache", "--max_lr", max_lr, *start,
    ]  # fmt: skip
    args = parse(_training_parser(), [str(option) for option in options])
    drawn = np.resize(chosen, max(budget.epoch_clips, len(chosen)))
    task = _make_task(args, budget.epoch_clips, data, drawn, test)
    scores, _ = finetune(args, torch.device("cpu"), task, budget.output_dir / "runs" / name)
    return scores


@contextmanager
def training_processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that train. Ctrl-C and SIGTERM end the trainings too, behind a checkpoint, and none begins after them."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=start_worker) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while workers := active_children():  # one may have begun with what was next
                for worker in workers:
                    worker.terminate()
                wait([worker.sentinel for worker in workers], timeout=5)
            raise


def start_worker() -> None:
    """Set up a process that trains: one thread, and a log of what it does."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def _training_parser() -> argparse.ArgumentParser:
    """Options of one training, with the defaults of ex_folder.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clip_seconds", type=cli.clip_seconds)
    add_options(parser, experiment_name="few_clips")
    add_cache_option(parser)
    parser.set_defaults(batch_norm_momentum=0.1, **TUNED_AUGMENTATION)
    return parser


def _make_task(args: argparse.Namespace, epoch_clips: int, data: folder.FolderData, training: np.ndarray, test: np.ndarray) -> Task:
    """Training clips are cropped at random, those tested on from their beginning."""
    options = {"clip_seconds": args.clip_seconds, "cache_dir": args.cache_path}

    def test_set(rate: int) -> Recordings:
        return data.clips(test, sample_rate=rate, **options)

    def training_set(rate: int) -> Recordings:
        return data.clips(training, sample_rate=rate, random_crop=True, **options)

    labels = data.class_names
    return Task(CLASSIFICATION, len(labels), labels, args.clip_seconds, training_set, test_set, test_set, epoch_clips)
