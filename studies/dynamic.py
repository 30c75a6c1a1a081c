"""Does a dynamic network learn more than a MobileNetV3 of the same width? On the open corpus, at equal budgets.

python -m datasets.prepare.opensounds --output_dir data/opensounds
python -m studies.dynamic --dataset_dir data/opensounds --audio_dir data/ESC-10 --output_dir runs/dynamic_study

Networks of both families start from random weights and learn from labels and the stored logits of a teacher, with the same seeds,
options and clips; the temperature of the dynamic ones falls to 1 in the first half of the epochs. They are evaluated with the
running statistics of their batch norms, and with statistics that are computed again from training clips. Then each of them is
fine-tuned on ESC-10, next to a network of its architecture from random weights. It is tested on the fold of its seed.

Writes results.csv, dynamic.png and esc10.csv and prints tables. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import torch
from torch.utils.data import Dataset, Subset

from datasets import audioset, esc50
from datasets.csv_table import write_table
from datasets.folders import folder
from helpers import cli
from helpers.training.builders import make_loader
from helpers.training.evaluation import Predictions, predict
from helpers.training.objectives import classification_scores, tagging_scores
from helpers.training.optimization import recompute_statistics
from models import checkpoints
from models.config import DyMNArch
from models.waveform import WaveformModel
from studies import common, esc10, few_clips

ARMS = {"mn": "MobileNetV3", "dymn": "DyMN"}
STARTS = {"scratch": "random weights", "trained": "the open corpus"}
BATCH_NORM_MOMENTUM = 0.03  # as trainings have about 1,000 steps
RECOMPUTED = "recomputed.pt"
STATISTICS_CLIPS, STATISTICS_BATCH = 960, 32
TUNING_LR = {"scratch": 3e-3, "trained": 1e-3}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    common.add_options(parser, clip_seconds=3.0, n_epochs=4)
    parser.set_defaults(batch_size=8)
    common.add_student_options(parser)
    parser.add_argument("--audio_dir", type=cli.absolute_path, required=True, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--tuning_epochs", type=cli.positive_int, default=4, help=f"of {esc10.EPOCH_CLIPS} clips of ESC-10 each")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    common.open_folders(args)
    common.open_teacher(args)
    data = esc10.open_clips(args.audio_dir, args.output_dir)
    args.epoch_len = min(args.epoch_len, len(audioset.training_set(args.dataset_dir)))
    common.write_teacher(args)
    common.train_all(plan(args), args.output_dir, args.jobs)
    curves = common.read_curves(args.output_dir, ARMS, args.seeds)
    common.write_curves(args.output_dir / "results.csv", curves)
    title = f"Networks of width {args.model_width:g} from random weights, {args.seeds} seeds"
    common.draw_curves(args.output_dir / "dynamic.png", curves, ARMS, title)
    scores = {arm: [recompute(args, arm, seed) for seed in range(args.seeds)] for arm in ARMS}
    for what, found in (("running statistics", common.last_scores(curves)), ("statistics computed again", scores)):
        print(f"\n{what}:\n")
        common.print_table(found, ARMS)
        common.print_gains(found, ARMS)
    print()

    jobs = list(product(ARMS, STARTS, range(args.seeds)))
    with few_clips.training_processes(args.jobs) as pool:
        accuracies = list(pool.map(tune, *([one] * len(jobs) for one in (args, data)), *zip(*jobs, strict=True)))
    names = {"running": "accuracy, running statistics", "recomputed": "accuracy, computed again"}
    rows = [
        (*job, fold_of(data, job[-1]), *(f"{found[name]:.4f}" for name in names))
        for job, found in zip(jobs, accuracies, strict=True)
    ]
    write_table(args.output_dir / "esc10.csv", [("network", "start", "seed", "fold", *names), *rows])
    tuned: common.Scores = {}
    for (arm, start, _), found in zip(jobs, accuracies, strict=True):
        tuned.setdefault(f"{arm}_{start}", []).append({names[name]: found[name] for name in names})
    common.print_table(tuned, {f"{arm}_{start}": f"{ARMS[arm]} from {STARTS[start]}" for arm, start in product(ARMS, STARTS)})
    return 0


def plan(args: argparse.Namespace) -> dict[tuple[str, int], list[object]]:
    """Options of the trainings on the open corpus by family and seed."""
    shared = [*common.student_options(args), *common.stored_logits_options(args), *common.AUGMENTATION]
    shared += [*common.student_schedule(args.n_epochs), "--batch_norm_momentum", BATCH_NORM_MOMENTUM]
    families = {"mn": [], "dymn": ["--arch", "dymn", *annealing(args.n_epochs)]}
    return {(arm, seed): [*shared, *families[arm]] for seed in range(args.seeds) for arm in ARMS}


def annealing(n_epochs: int) -> list[object]:
    """Options of a temperature that falls to 1 in the first half of a training."""
    return ["--T0_slope", (DyMNArch.T_max - 1) / max(n_epochs // 2, 1)]


def recompute(args: argparse.Namespace, arm: str, seed: int) -> dict[str, float]:
    """Compute the statistics of batch norms from training clips, store the network as recomputed.pt, and return its scores."""
    folder = common.run_folder(args.output_dir, arm, seed)
    path = folder / RECOMPUTED
    if not path.exists():
        model = WaveformModel(checkpoints.load_model(folder / "last.pt"))
        form = {"sample_rate": model.sample_rate, "clip_seconds": args.clip_seconds}
        training, evaluation = (clips(args.dataset_dir, **form) for clips in (audioset.training_set, audioset.evaluation_set))
        drawn = list(audioset.balanced_sampler(training, STATISTICS_CLIPS, torch.Generator().manual_seed(seed)))
        scores = tagging_scores(recomputed_predictions(model, Subset(training, drawn), evaluation))
        checkpoints.save(path, model.network, metrics={name: scores[name] for name in common.MEASURES})
    return dict(checkpoints.load(path).metrics)


def recomputed_predictions(model: WaveformModel, training: Dataset, evaluation: Dataset) -> Predictions:
    """Compute the model's statistics of batch norms from training clips, then what it says about those of the evaluation."""
    loading = argparse.Namespace(batch_size=STATISTICS_BATCH, num_workers=0, cuda=False)
    recompute_statistics(model, (clips.waveform for clips in make_loader(training, loading)))
    return predict(model, make_loader(evaluation, loading))


def fold_of(data: folder.FolderData, seed: int) -> str:
    """The fold that the networks of a seed are tested on."""
    folds = folder.fold_names(data)
    return folds[seed % len(folds)]


def tune(args: argparse.Namespace, data: folder.FolderData, arm: str, start: str, seed: int) -> dict[str, float]:
    """Train a network on ESC-10 and return its accuracies on the fold that was held out."""
    trained = str(common.run_folder(args.output_dir, arm, seed) / RECOMPUTED)
    options = few_clips.start_options(trained, scratch=start == "scratch")
    if arm == "dymn" and start == "scratch":
        options += annealing(args.tuning_epochs)
    training, test = esc10.divide(data, fold_of(data, seed))
    budget = few_clips.Budget(args.output_dir, esc50.CLIP_SECONDS, esc10.BATCH_SIZE, esc10.EPOCH_CLIPS, args.tuning_epochs)
    name = f"esc10_{arm}_{start}_{seed}"
    scores = few_clips.train(name, budget, options, data, training, test, max_lr=TUNING_LR[start], seed=seed)
    model = WaveformModel(checkpoints.load_model(args.output_dir / "runs" / name / "last.pt"))
    form = {"sample_rate": model.sample_rate, "clip_seconds": esc50.CLIP_SECONDS, "cache_dir": args.output_dir / "cache"}
    found = recomputed_predictions(model, data.clips(training, **form), data.clips(test, **form))
    return {"running": scores["accuracy"], "recomputed": classification_scores(found)["accuracy"]}


if __name__ == "__main__":
    cli.run(main)
