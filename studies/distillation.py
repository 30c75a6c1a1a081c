"""Does a small CNN learn more from a teacher's logits and labels than from labels alone? On the open corpus, at equal budgets.

python -m studies.distillation --dataset_dir data/opensounds --output_dir runs/distillation_study --jobs 2

1. Networks of different seeds are trained on the labels alone.
2. The ensemble of the first few becomes the teacher: python -m helpers.distillation writes its logits.
3. Networks of the same size, seeds and budget are trained on labels and teacher together.

Writes results.csv and distillation.png and prints a table. Interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import audioset
from helpers import cli
from helpers.builders import make_loader
from helpers.metrics import tagging_metrics
from helpers.training import default_precision, predict
from models.ensemble import get_ensemble_model

ROOT = Path(__file__).resolve().parent.parent
ARMS = {"labels": "labels alone", "distilled": "labels and teacher"}
MEASURES = ("mAP", "ROC", "d_prime", "val_loss")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of the HDF5 files")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of runs, teacher and results")
    parser.add_argument("--seeds", type=cli.positive_int, default=3, help="trainings of each kind, seeds 0, 1, ...")
    parser.add_argument("--teacher_members", type=cli.positive_int, default=2, help="networks in the teacher, from the first on")
    parser.add_argument("--model_width", type=cli.positive_float, default=0.4, help="width of every network")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=3.0, help="length of training and evaluation clips")
    parser.add_argument("--batch_size", type=cli.positive_int, default=16, help="clips in a batch")
    parser.add_argument("--n_epochs", type=cli.positive_int, default=20, help="epochs of every training")
    parser.add_argument("--kd_lambda", type=cli.unit_interval, default=0.1, help="share of the labels in the loss of distillation")
    parser.add_argument("--temperature", type=cli.positive_float, default=1.0, help="what the teacher's logits are divided by")
    parser.add_argument("--jobs", type=cli.positive_int, default=1, help="trainings at a time, on one thread each if more than 1")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.dataset_dir, args.output_dir = args.dataset_dir.absolute(), args.output_dir.absolute()
    audioset.resolve_dir(args.dataset_dir)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.teacher_members > args.seeds:
        raise ValueError(f"a teacher of {args.teacher_members} networks needs as many --seeds, not {args.seeds}")
    members = [("labels", seed) for seed in range(args.teacher_members)]
    train_all(args, members)
    write_teacher(args)
    train_all(args, [(arm, seed) for seed in range(args.seeds) for arm in ARMS if (arm, seed) not in members])
    results = {arm: [read_metrics(run_folder(args, arm, seed)) for seed in range(args.seeds)] for arm in ARMS}
    teacher_scores = evaluate_teacher(args)
    write_csv(args.output_dir / "results.csv", results)
    draw(args.output_dir / "distillation.png", results, teacher_scores["mAP"], args.teacher_members)
    print_table(results, teacher_scores)
    return 0


def run_folder(args: argparse.Namespace, arm: str, seed: int) -> Path:
    return args.output_dir / "runs" / f"{arm}_{seed}"


def train_all(args: argparse.Namespace, runs: Sequence[tuple[str, int]]) -> None:
    """Train the networks of these arms and seeds, or go on with them, `args.jobs` at a time."""
    ramp_down = max(args.n_epochs // 5, 1)
    options = {
        "labels": ["--kd_lambda", 1],
        "distilled": ["--teacher_preds", teacher_path(args), "--kd_lambda", args.kd_lambda, "--temperature", args.temperature],
    }

    def train(run: tuple[str, int]) -> None:
        arm, seed = run
        folder = run_folder(args, arm, seed)
        command = [
            "--train", "--dataset_dir", args.dataset_dir, "--experiment_name", folder.name, "--seed", seed, "--wandb", "disabled",
            "--model_width", args.model_width, "--clip_seconds", args.clip_seconds, "--batch_size", args.batch_size,
            "--n_epochs", args.n_epochs, "--max_lr", 3e-3, "--warm_up_len", 1, "--ramp_down_start", ramp_down,
            "--ramp_down_len", max(args.n_epochs - ramp_down - 1, 0), "--roll", "--gain_augment", 6, *options[arm],
            "--num_workers", 0 if args.jobs > 1 else 1, *(["--cuda"] if args.cuda else []),
        ]  # fmt: skip
        if (folder / "config.json").exists():
            command += ["--resume", folder]  # with all options again, so that a run that was begun with others is refused
        run_python(args, [ROOT / "ex_audioset.py", *command], folder.name)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(train, runs))


def teacher_path(args: argparse.Namespace) -> Path:
    return args.output_dir / "teacher.npy"


def write_teacher(args: argparse.Namespace) -> None:
    """Write the logits that the ensemble of the teacher's members gives to the training clips."""
    members = list(map(str, teacher_members(args)))
    if teacher_path(args).exists():
        about = json.loads(teacher_path(args).with_suffix(".json").read_text())
        if (about["models"], about["clip_seconds"]) != (members, args.clip_seconds):
            raise ValueError(f"{teacher_path(args)} was written with other options; give another --output_dir")
        return
    options = ["--dataset_dir", args.dataset_dir, "--clip_seconds", args.clip_seconds, "--output", teacher_path(args)]
    options += ["--cuda"] if args.cuda else []
    run_python(args, ["-m", "helpers.distillation", "--models", *members, *options], "teacher")


def teacher_members(args: argparse.Namespace) -> list[Path]:
    return [run_folder(args, "labels", seed) / "last.pt" for seed in range(args.teacher_members)]


def run_python(args: argparse.Namespace, command: Sequence[object], name: str) -> None:
    """Run a script in the output folder, with what it prints in <name>.log; its failure is a `ValueError`."""
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)} | ({"OMP_NUM_THREADS": "1"} if args.jobs > 1 else {})
    log = args.output_dir / f"{name}.log"
    print(f"{name}: {log}", flush=True)
    with open(log, "a") as file:
        words = [sys.executable, *map(str, command)]
        code = subprocess.run(words, cwd=args.output_dir, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        last_line = log.read_text().strip().rpartition("\n")[2]
        raise ValueError(f"{name} ended with exit code {code}: {last_line}; see {log}")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the metrics of each epoch."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(row[name]) for name in MEASURES} for row in csv.DictReader(file)]


def evaluate_teacher(args: argparse.Namespace) -> dict[str, float]:
    device = cli.pick_device(args.cuda)
    model = get_ensemble_model([os.fspath(path) for path in teacher_members(args)]).to(device)
    clips = audioset.evaluation_set(args.dataset_dir, sample_rate=model.sample_rate, clip_seconds=args.clip_seconds)
    loader = make_loader(clips, argparse.Namespace(batch_size=32, num_workers=0, cuda=args.cuda))
    predictions = predict(model, loader, default_precision(device))
    scores = tagging_metrics(predictions.targets, predictions.logits)
    return {"mAP": scores.mAP, "ROC": scores.ROC, "d_prime": scores.d_prime}


def write_csv(path: Path, results: dict[str, list[list[dict[str, float]]]]) -> None:
    """Write one row for each arm, seed and epoch."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["training", "seed", "epoch", *MEASURES])
        for arm, runs in results.items():
            for seed, epochs in enumerate(runs):
                for epoch, metrics in enumerate(epochs):
                    writer.writerow([arm, seed, epoch, *(f"{metrics[name]:.5f}" for name in MEASURES)])


def print_table(results: dict[str, list[list[dict[str, float]]]], teacher: dict[str, float]) -> None:
    """Print mean and standard deviation over the seeds of each measure after the last epoch, as Markdown."""
    print(f"| training | {' | '.join(MEASURES)} |")
    print("|---" * (len(MEASURES) + 1) + "|")
    for arm, runs in results.items():
        columns = []
        for name in MEASURES:
            values = [epochs[-1][name] for epochs in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            columns.append(f"{statistics.mean(values):.4f}{spread}")
        print(f"| {ARMS[arm]} | {' | '.join(columns)} |")
    print(f"| the teacher | {' | '.join(f'{teacher[name]:.4f}' if name in teacher else '-' for name in MEASURES)} |")
    gains = [after[-1]["mAP"] - before[-1]["mAP"] for before, after in zip(results["labels"], results["distilled"], strict=True)]
    print(f"gain in mAP by seed: {', '.join(f'{gain:+.4f}' for gain in gains)}")


def draw(path: Path, results: dict[str, list[list[dict[str, float]]]], teacher_map: float, members: int) -> None:
    """Draw mAP over the epochs: the mean of the seeds in a band from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (arm, runs), style, colour in zip(results.items(), ("--", "-"), ("tab:orange", "tab:blue"), strict=True):
        by_epoch = list(zip(*([metrics["mAP"] for metrics in epochs] for epochs in runs), strict=True))
        epochs = range(1, len(by_epoch) + 1)
        axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.2, linewidth=0)
        mean = list(map(statistics.mean, by_epoch))
        axes.plot(epochs, mean, style, color=colour, label=f"{ARMS[arm]}: {mean[-1]:.3f}")
    axes.axhline(teacher_map, color="black", linestyle=":", label=f"the teacher, an ensemble of {members}: {teacher_map:.3f}")
    axes.set(xlabel="epoch", ylabel="mAP on the evaluation split", title=f"One network size, one budget, {len(runs)} seeds")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
