"""What studies of several AudioSet trainings share: options, runs, and the table, CSV and figure of their metrics."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import audioset
from datasets.csv_table import read_table, write_results
from helpers import cli
from models.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
MEASURES = ("mAP", "ROC_AUC", "d_prime", "val_loss")

Epochs = list[dict[str, float]]  # the metrics of each epoch of a training
Results = dict[str, list[Epochs]]  # the trainings of each arm, by seed


def add_options(parser: argparse.ArgumentParser, *, clip_seconds: float, n_epochs: int) -> None:
    """Options of every such study, with its own defaults."""
    parser.add_argument("--dataset_dir", type=cli.absolute_path, required=True, help="folder of the HDF5 files")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of runs and results")
    parser.add_argument("--seeds", type=cli.positive_int, default=3, help="trainings of each kind, seeds 0, 1, ...")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=clip_seconds, help="length of all clips")
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips in a batch")
    parser.add_argument("--n_epochs", type=cli.positive_int, default=n_epochs, help="epochs of every training")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="trainings at a time, on one thread each if more than 1")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")


def training_options(args: argparse.Namespace, max_lr: float, ramp_down_start: int) -> list[object]:
    """Options that all trainings of a study share; the learning rate falls from `ramp_down_start` to the epoch before the last."""
    return [
        "--dataset_dir", args.dataset_dir, "--clip_seconds", args.clip_seconds, "--batch_size", args.batch_size,
        "--n_epochs", args.n_epochs, "--max_lr", max_lr, "--warm_up_len", 1, "--ramp_down_start", ramp_down_start,
        "--ramp_down_len", max(args.n_epochs - ramp_down_start - 1, 0), "--roll", "--gain_augment", 6,
        *(["--cuda"] if args.cuda else []),
    ]  # fmt: skip


def open_folders(args: argparse.Namespace) -> None:
    audioset.LOCATION.resolve(args.dataset_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)


def run_folder(output_dir: Path, arm: str, seed: int) -> Path:
    return output_dir / "runs" / f"{arm}_{seed}"


def train_all(runs: Mapping[tuple[str, int], Sequence[object]], common: Sequence[object], output_dir: Path, jobs: int) -> None:
    """Train on AudioSet by arm and seed with these options and the common ones, `jobs` at a time.

    Trainings that exist are resumed; those with other options are refused.
    """

    def train(run: tuple[str, int]) -> None:
        arm, seed = run
        folder = run_folder(output_dir, arm, seed)
        command = ["--train", "--experiment_name", folder.name, "--seed", seed, "--wandb", "disabled", *common, *runs[run]]
        command += ["--num_workers", 0 if jobs > 1 else 1]
        if (folder / "config.json").exists():
            command += ["--resume", folder]  # with all options again, so that other ones are noticed
        run_python([ROOT / "ex_audioset.py", *command], folder.name, output_dir, jobs)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, runs))


def run_python(command: Sequence[object], name: str, output_dir: Path, jobs: int) -> None:
    """Run a script in the output folder, with what it prints in <name>.log; its failure is a `ValueError`."""
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)} | ({"OMP_NUM_THREADS": "1"} if jobs > 1 else {})
    log = output_dir / f"{name}.log"
    print(f"{name}: {log}", flush=True)
    with open(log, "a") as file:
        words = [sys.executable, *map(str, command)]
        code = subprocess.run(words, cwd=output_dir, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        last_line = log.read_text().strip().rpartition("\n")[2]
        raise UserError(f"{name} ended with exit code {code}: {last_line}; see {log}")


def read_results(output_dir: Path, arms: Sequence[str], seeds: int) -> Results:
    """Return the metrics of each epoch of each training."""
    return {arm: [_read_metrics(run_folder(output_dir, arm, seed)) for seed in range(seeds)] for arm in arms}


def _read_metrics(folder: Path) -> Epochs:
    return [{name: float(row[name]) for name in MEASURES} for row in read_table(folder / "metrics.csv", MEASURES)]


def write_csv(path: Path, results: Results) -> None:
    rows = [
        (arm, seed, epoch, *(f"{metrics[name]:.5f}" for name in MEASURES))
        for arm, runs in results.items()
        for seed, epochs in enumerate(runs)
        for epoch, metrics in enumerate(epochs)
    ]
    write_results(path, [("training", "seed", "epoch", *MEASURES), *rows])


def print_table(results: Results, names: Mapping[str, str], last_row: str | None = None) -> None:
    """Print mean and standard deviation over the seeds of each measure after the last epoch, as Markdown.

    Below it, how much the mAP of the second arm is above that of the first, by seed.
    """
    print(f"| training | {' | '.join(MEASURES)} |")
    print("|---" * (len(MEASURES) + 1) + "|")
    for arm, runs in results.items():
        columns = []
        for name in MEASURES:
            values = [epochs[-1][name] for epochs in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            columns.append(f"{statistics.mean(values):.4f}{spread}")
        print(f"| {names[arm]} | {' | '.join(columns)} |")
    if last_row:
        print(last_row)
    gains = [after[-1]["mAP"] - before[-1]["mAP"] for before, after in zip(*results.values(), strict=True)]
    print(f"gain in mAP by seed: {', '.join(f'{gain:+.4f}' for gain in gains)}")


def draw_epochs(path: Path, results: Results, names: Mapping[str, str], title: str, level: tuple[float, str] | None = None) -> None:
    """Draw mAP over the epochs of two arms: the mean of the seeds in a band from the lowest to the highest; and a named `level`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (arm, runs), style, colour in zip(results.items(), ("--", "-"), ("tab:orange", "tab:blue"), strict=True):
        by_epoch = list(zip(*([metrics["mAP"] for metrics in epochs] for epochs in runs), strict=True))
        epochs = range(1, len(by_epoch) + 1)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.2, linewidth=0)
        mean = list(map(statistics.mean, by_epoch))
        axes.plot(epochs, mean, style, color=colour, label=f"{names[arm]}: {mean[-1]:.3f}")
    axes.set(xlabel="epoch", ylabel="mAP on the evaluation split")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if level:
        axes.axhline(level[0], color="black", linestyle=":", label=f"{level[1]}: {level[0]:.3f}")
    axes.set_title(title)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
