"""What studies of several AudioSet trainings share: options, runs, and the table of their scores."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from datasets import audioset
from helpers import cli
from models.errors import UserError
from models.interrupts import Terminated

ROOT = Path(__file__).resolve().parent.parent
AUGMENTATION = ("--roll", "--gain_augment", 6)

Scores = dict[str, list[dict[str, float]]]  # the final scores of each arm's trainings, by seed

_running: set[subprocess.Popen] = set()


def add_options(parser: argparse.ArgumentParser, *, clip_seconds: float, n_epochs: int) -> None:
    """Options of every such study, with its own defaults."""
    parser.add_argument("--dataset_dir", type=cli.absolute_path, required=True, help="folder of the HDF5 files")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of runs and results")
    parser.add_argument("--seeds", type=cli.positive_int, default=3, help="trainings of each kind, seeds 0, 1, ...")
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=clip_seconds, help="length of all clips")
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips in a batch")
    parser.add_argument("--n_epochs", type=cli.positive_int, default=n_epochs, help="epochs of every training")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="trainings at a time, on one thread each if more than 1")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")


def training_options(args: argparse.Namespace) -> list[object]:
    """Options that all trainings of a study share."""
    return [
        "--dataset_dir", args.dataset_dir, "--clip_seconds", args.clip_seconds, "--batch_size", args.batch_size,
        "--wandb", "disabled", "--num_workers", 0 if args.jobs > 1 else 1, *(["--cuda"] if args.cuda else []),
    ]  # fmt: skip


def schedule(n_epochs: int, max_lr: float, warm_up_len: int, ramp_down_start: int) -> list[object]:
    """Options of a learning rate that falls from epoch `ramp_down_start` to the last one."""
    return [
        "--n_epochs", n_epochs, "--max_lr", max_lr, "--warm_up_len", warm_up_len, "--ramp_down_start", ramp_down_start,
        "--ramp_down_len", max(n_epochs - ramp_down_start - 1, 0),
    ]  # fmt: skip


def open_folders(args: argparse.Namespace) -> None:
    audioset.LOCATION.resolve(args.dataset_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)


def require_unlabelled(dataset_dir: Path) -> None:
    if not (dataset_dir / "unlabelled_segments_mp3.hdf").exists():
        raise UserError(
            f"{dataset_dir} has no unlabelled_segments_mp3.hdf; build it by python -m datasets.prepare.opensounds --unlabelled"
        )


def run_folder(output_dir: Path, arm: str, seed: int) -> Path:
    return output_dir / "runs" / f"{arm}_{seed}"


def train_all(
    runs: Mapping[tuple[str, int], Sequence[object]], output_dir: Path, jobs: int, scripts: Mapping[str, str] | None = None
) -> None:
    """Train on AudioSet by arm and seed with these options, `jobs` at a time, by ex_audioset.py or an arm's own script.

    Trainings that exist are resumed; those with other options are refused.
    """

    def train(run: tuple[str, int]) -> None:
        arm, seed = run
        folder = run_folder(output_dir, arm, seed)
        command = ["--train", "--experiment_name", folder.name, "--seed", seed, *runs[run]]
        if (folder / "config.json").exists():
            command += ["--resume", folder]  # with all options again, so that other ones are noticed
        run_python([ROOT / (scripts or {}).get(arm, "ex_audioset.py"), *command], folder.name, output_dir, jobs)

    with ThreadPoolExecutor(jobs) as pool, _ending_in_order():
        list(pool.map(train, runs))


def run_python(command: Sequence[object], name: str, output_dir: Path, jobs: int) -> None:
    """Run a script in the output folder, with what it prints in <name>.log; its failure is a `UserError`."""
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)} | ({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})
    if resources := environment.get("EFFICIENTAT_RESOURCES"):
        environment["EFFICIENTAT_RESOURCES"] = os.path.abspath(resources)
    log = output_dir / f"{name}.log"
    print(f"{name}: {log}", flush=True)
    words = [sys.executable, *map(str, command)]
    with (
        open(log, "a") as file,
        subprocess.Popen(words, cwd=output_dir, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
        _ending_in_order(),
    ):
        _running.add(process)
        code = process.wait()
        _running.discard(process)
    if code:
        last_line = log.read_text().strip().rpartition("\n")[2]
        raise UserError(f"{name} ended with exit code {code}: {last_line}; see {log}")


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """After Ctrl-C and SIGTERM, wait for the scripts that run: trainings finish a step and write a checkpoint."""
    try:
        yield
    except KeyboardInterrupt as error:
        waiting = list(_running)
        if isinstance(error, Terminated):  # Ctrl-C in a terminal has reached them already
            for process in waiting:
                process.terminate()
        for process in waiting:
            process.wait()
        _running.difference_update(waiting)
        raise


def print_table(scores: Scores, names: Mapping[str, str]) -> None:
    """Print mean and standard deviation over an arm's trainings of each score, as Markdown."""
    measures = list(next(iter(scores.values()))[0])
    print(f"| training | {' | '.join(measures)} |")
    print("|---" * (len(measures) + 1) + "|")
    for arm, runs in scores.items():
        columns = []
        for measure in measures:
            values = [run[measure] for run in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            columns.append(f"{statistics.mean(values):.4f}{spread}")
        print(f"| {names[arm]} | {' | '.join(columns)} |")


def print_gains(scores: Scores, names: Mapping[str, str]) -> None:
    """Print by seed how much the mAP of each further arm is above that of the first one."""
    first, *others = scores
    for arm in others:
        gains = [after["mAP"] - before["mAP"] for before, after in zip(scores[first], scores[arm], strict=True)]
        print(f"gain in mAP by seed, {names[arm]} against {names[first]}: {', '.join(f'{gain:+.4f}' for gain in gains)}")
