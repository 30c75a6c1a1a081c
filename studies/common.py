"""What studies of several AudioSet trainings share: options, runs, and the table of their scores."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from datasets import audioset
from datasets.csv_table import read_table, write_table
from helpers import cli
from models import checkpoints
from models.config import Architecture
from models.errors import UserError
from models.interrupts import Terminated

ROOT = Path(__file__).resolve().parent.parent
AUGMENTATION = ("--roll", "--gain_augment", 6)
TEACHER_LOGITS = "teacher.npy"
STUDENT_LR = 3e-3
MEASURES = ("mAP", "ROC_AUC", "d_prime", "val_loss")

Epochs = list[dict[str, float]]  # the metrics of each epoch of a training
Curves = dict[str, list[Epochs]]  # the trainings of each arm, by seed
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


def add_student_options(parser: argparse.ArgumentParser) -> None:
    """Options of studies whose networks learn from a teacher."""
    parser.add_argument("--epoch_len", type=cli.positive_int, default=2000, help="clips in an epoch of every training")
    parser.add_argument("--teacher", default="mn04_as", metavar="NAME", help="released or bundled name, or path of a checkpoint")
    parser.add_argument("--model_width", type=cli.positive_float, default=0.4, help="width of every student")
    parser.add_argument(
        "--kd_lambda", type=cli.unit_interval, default=0.1, help="share of the labels in the loss, next to a teacher"
    )


def student_options(args: argparse.Namespace) -> list[object]:
    """Options that all trainings of a study's students share."""
    return [*training_options(args), "--epoch_len", args.epoch_len, "--model_width", args.model_width]


def stored_logits_options(args: argparse.Namespace) -> list[object]:
    """Options of a training with what `write_teacher` writes."""
    return ["--teacher_preds", args.output_dir / TEACHER_LOGITS, "--kd_lambda", args.kd_lambda]


def student_schedule(n_epochs: int) -> list[object]:
    """Options of the learning rate of a student that learns end to end from random weights."""
    return schedule(n_epochs, STUDENT_LR, warm_up_len=1, ramp_down_start=max(n_epochs // 5, 1))


def open_teacher(args: argparse.Namespace) -> Architecture:
    """Return the architecture of `--teacher`, which must have AudioSet's classes; a path is made absolute."""
    if os.path.isfile(args.teacher):
        args.teacher = os.path.abspath(args.teacher)  # trainings run in another folder
    arch, _ = checkpoints.architecture(args.teacher)
    if arch.num_classes != audioset.NUM_CLASSES:
        raise UserError(f"--teacher {args.teacher} has {arch.num_classes} classes; give one with AudioSet's {audioset.NUM_CLASSES}")
    return arch


def write_teacher(args: argparse.Namespace) -> None:
    """Write the teacher's logits of the training clips into the output folder, unless they are there."""
    path = args.output_dir / TEACHER_LOGITS
    if path.exists():
        about = json.loads(path.with_suffix(".json").read_text())
        if (about["models"], about["clip_seconds"]) != ([args.teacher], args.clip_seconds):
            raise UserError(f"{path} was written with other options; give another --output_dir")
        return
    command = ["-m", "helpers.distillation", "--models", args.teacher, "--dataset_dir", args.dataset_dir, "--output", path]
    command += ["--clip_seconds", args.clip_seconds, *(["--cuda"] if args.cuda else [])]
    run_python(command, "teacher", args.output_dir, args.jobs)


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


def read_curves(output_dir: Path, arms: Iterable[str], seeds: int) -> Curves:
    """Read the metrics of all epochs of all trainings."""
    return {
        arm: [
            [{name: float(row[name]) for name in MEASURES} for row in read_table(folder / "metrics.csv", MEASURES)]
            for folder in (run_folder(output_dir, arm, seed) for seed in range(seeds))
        ]
        for arm in arms
    }


def last_scores(curves: Curves) -> Scores:
    """The scores of the last epoch."""
    return {arm: [epochs[-1] for epochs in runs] for arm, runs in curves.items()}


def write_curves(path: Path, curves: Curves) -> None:
    rows = [
        (arm, seed, epoch, *(f"{metrics[name]:.5f}" for name in MEASURES))
        for arm, runs in curves.items()
        for seed, epochs in enumerate(runs)
        for epoch, metrics in enumerate(epochs)
    ]
    write_table(path, [("training", "seed", "epoch", *MEASURES), *rows])


def draw_curves(path: Path, curves: Curves, names: Mapping[str, str], title: str) -> None:
    """Draw mAP over the epochs of two arms: the mean of the seeds in a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (arm, runs), style, colour in zip(curves.items(), ("--", "-"), ("tab:orange", "tab:blue"), strict=True):
        by_epoch = list(zip(*([metrics["mAP"] for metrics in epochs] for epochs in runs), strict=True))
        epochs = range(1, len(by_epoch) + 1)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.2, linewidth=0)
        mean = list(map(statistics.mean, by_epoch))
        axes.plot(epochs, mean, style, color=colour, label=f"{names[arm]}: {mean[-1]:.3f}")
    axes.set(xlabel="epoch", ylabel="mAP on the evaluation split")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_title(title)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
