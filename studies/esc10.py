"""ESC-10 by a pre-trained model: tagging without training, linear probe, fine-tuning, and the same network from scratch.

python -m studies.esc10 --audio_dir data/ESC-10 --model_name mn04_as --output_dir runs/esc10 --jobs 2

1. The score of a class is the highest of its AudioSet labels; nothing is trained.
2. Logistic regression is fitted to the embeddings of 1, 2, 5, 10 and all training clips of each class, for each of the five folds.
3. Networks are fine-tuned on the same clips, and trained from scratch, with the same steps, schedule and augmentation.

The folder is that of ESC-10 ("001 - Dog bark", ...) or of ESC-50 (meta/esc50.csv). Writes results.csv and esc10.png and prints a
table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from datasets import esc50
from datasets.audio_folders import find_recordings
from datasets.csv_table import read_table, write_table
from datasets.folders import folder
from helpers import cli
from helpers.costs.macs import describe
from helpers.metrics import accuracy
from helpers.tagger.audio_tagger import AudioTagger
from models import checkpoints
from models.errors import UserError
from studies import few_clips

# Class by the name of its folder: its category in ESC-50, and its AudioSet labels.
CLASSES = {
    "Dog bark": ("dog", ("Bark", "Dog")),
    "Rain": ("rain", ("Rain", "Rain on surface", "Raindrop")),
    "Sea waves": ("sea_waves", ("Waves, surf", "Ocean")),
    "Baby cry": ("crying_baby", ("Baby cry, infant cry",)),
    "Clock tick": ("clock_tick", ("Tick", "Tick-tock", "Clock")),
    "Person sneeze": ("sneezing", ("Sneeze",)),
    "Helicopter": ("helicopter", ("Helicopter",)),
    "Chainsaw": ("chainsaw", ("Chainsaw",)),
    "Rooster": ("rooster", ("Chicken, rooster", "Crowing, cock-a-doodle-doo")),
    "Fire crackling": ("crackling_fire", ("Fire", "Crackle")),
}
CLIPS_OF_A_CLASS = (1, 2, 5, 10, None)  # None: all of the training folds
BATCH_SIZE, EPOCH_CLIPS = 8, 160
TAGGING, PROBE, TUNED, SCRATCH = "tagging without training", "linear probe", "fine-tuned", "from scratch"


class Job(NamedTuple):
    method: str
    model: str  # its name; from scratch, the architecture
    clips: int | None  # training clips of a class
    fold: str


Scores = dict[Job, float]  # accuracy on the clips of the fold


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--audio_dir", type=cli.absolute_path, required=True, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--model_name", nargs="+", default=["mn10_as"], help="released or bundled names, or paths of checkpoints")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of runs and results")
    few_clips.add_training_options(parser, n_epochs=8, epoch_clips=EPOCH_CLIPS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(args.model_name))
    data = open_clips(args.audio_dir, args.output_dir)
    print(data.report())
    start_of = {(TUNED, name): few_clips.start_options(name, scratch=False) for name in names}
    start_of |= {(SCRATCH, architecture(name)): few_clips.start_options(name, scratch=True) for name in names}  # fails early
    scores: Scores = {}
    for name in names:
        scores |= score_without_training(name, data, args.output_dir / "cache")
    print_tagging(scores)
    print_table(scores)  # of the linear probes
    jobs = [Job(*kind, *rest) for rest in product(CLIPS_OF_A_CLASS, folder.fold_names(data)) for kind in start_of]
    starts = [start_of[job.method, job.model] for job in jobs]
    with few_clips.training_processes(args.jobs) as pool:
        same = ([one] * len(jobs) for one in (args, data))
        scores |= zip(jobs, pool.map(train, *same, jobs, starts), strict=True)
    write_csv(args.output_dir / "results.csv", scores)
    draw(args.output_dir / "esc10.png", scores)
    print_table(scores)
    return 0


def open_clips(audio_dir: Path, output_dir: Path) -> folder.FolderData:
    """Open the clips of ESC-10, with their folds; clips.csv in the output folder lists them, as `ex_embeddings.py` reads it."""
    table = audio_dir / "meta" / "esc50.csv"
    if table.is_file():
        root, rows = esc50.audio_folder(audio_dir), list(_rows_of_esc50(table))
    else:
        root, rows = audio_dir, list(_rows_of_folders(audio_dir))
    if missing := CLASSES.keys() - {name for _, name, _ in rows}:
        raise UserError(
            f"{audio_dir} has no clips of {', '.join(sorted(missing))}; give the folder of ESC-10, with folders such as "
            "'001 - Dog bark', or the one of ESC-50, with meta/esc50.csv"
        )
    if wrong := [path for path, _, fold in rows if fold not in map(str, esc50.FOLDS)]:
        raise UserError(f"{wrong[0]} does not say its fold; names of clips begin with it, 1 to 5, as in 1-100032-A.ogg")
    clips = output_dir / "clips.csv"
    write_table(clips, [("path", "labels", "fold"), *rows])
    return folder.scan(root, clips)


def _rows_of_esc50(table: Path) -> Iterator[tuple[str, str, str]]:
    """Path, class and fold of the clips of ESC-50 that are in ESC-10."""
    name_of = {category: name for name, (category, _) in CLASSES.items()}
    for row in read_table(table, ("filename", "fold", "category")):
        if row["category"] in name_of:
            yield row["filename"], name_of[row["category"]], row["fold"]


def _rows_of_folders(audio_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Path, class and fold of the clips in folders called by number and class."""
    for path in find_recordings([audio_dir]):
        name = path.parent.name.partition(" - ")[2]
        if name in CLASSES:
            yield path.relative_to(audio_dir).as_posix(), name, path.name[:1]


def check_labels(labels: Sequence[str]) -> None:
    """Raise UserError unless a model has the AudioSet labels of the ten classes."""
    if missing := {label for _, of_class in CLASSES.values() for label in of_class} - set(labels):
        raise UserError(f"the model has no class {sorted(missing)[0]!r}; this study needs one with AudioSet's labels")


def class_scores(scores: np.ndarray, labels: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """(N, AudioSet labels) -> (N, classes): the highest score of each class's labels."""
    return np.stack([scores[:, [labels.index(label) for label in CLASSES[name][1]]].max(1) for name in class_names], 1)


def score_without_training(name: str, data: folder.FolderData, cache: Path) -> Scores:
    """Accuracy of tagging and of linear probes, by fold."""
    tagger = AudioTagger(name)
    check_labels(tagger.labels)
    clips = data.clips(range(len(data.paths)), sample_rate=tagger.sample_rate, clip_seconds=None, cache_dir=cache)
    waveforms = ((0, clips[i].waveform.numpy()) for i in tqdm(range(len(clips)), desc=f"tagging by {name}", disable=None))
    _, _, scores, embeddings = zip(*tagger.compute_windows(waveforms), strict=True)
    by_class = class_scores(np.stack(scores), tagger.labels, data.class_names)
    found: Scores = {}
    for fold in folder.fold_names(data):
        training, test = divide(data, fold)
        found[Job(TAGGING, name, None, fold)] = accuracy(data.targets[test], by_class[test])
        for count in CLIPS_OF_A_CLASS:
            chosen = few_clips.choose(data.targets, training, count, int(fold))
            found[Job(PROBE, name, count, fold)] = probe_accuracy(np.stack(embeddings), data.targets.argmax(1), chosen, test)
    return found


def divide(data: folder.FolderData, fold: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the clips to train on, those of the other folds, and to test on."""
    is_test = np.array(data.folds) == fold
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def probe_accuracy(embeddings: np.ndarray, classes: np.ndarray, chosen: np.ndarray, test: np.ndarray) -> float:
    """Accuracy of logistic regression on embeddings (N, C) that are standardised by the training clips."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(model.fit(embeddings[chosen], classes[chosen]).score(embeddings[test], classes[test]))


def architecture(name: str) -> str:
    """What a training from scratch takes of a model: those of equal architecture share it."""
    arch, _ = checkpoints.architecture(name)
    if arch.family != "mn":
        return describe(arch)
    return f"width {arch.width_mult:g}, {arch.head_type} head, SE {arch.se_dims}"


def train(args: argparse.Namespace, data: folder.FolderData, job: Job, start: Sequence[object]) -> float:
    """Train a network, in a folder of its own below `output_dir`, and return its accuracy on the fold after the last epoch."""
    training, test = divide(data, job.fold)
    scores = few_clips.train(
        quote(f"{job.method}_{job.model}_{job.clips or 'all'}_{job.fold}", safe=""),
        few_clips.Budget(args.output_dir, esc50.CLIP_SECONDS, BATCH_SIZE, EPOCH_CLIPS, args.n_epochs),
        start,
        data,
        few_clips.choose(data.targets, training, job.clips, int(job.fold)),
        test,
        max_lr=args.scratch_lr if job.method == SCRATCH else args.max_lr,
        seed=int(job.fold),
    )
    return scores["accuracy"]


def by_clips(scores: Scores, method: str) -> dict[str, dict[int | None, list[float]]]:
    """The accuracies of the folds by model and training clips of a class."""
    found: dict[str, dict[int | None, list[float]]] = {}
    for job, value in scores.items():
        if job.method == method:
            found.setdefault(job.model, {}).setdefault(job.clips, []).append(value)
    return found


def write_csv(path: Path, scores: Scores) -> None:
    """Write a row for each fold."""
    rows = [
        (job.method, job.model, "" if job.method == TAGGING else job.clips or "all", job.fold, f"{value:.4f}")
        for job, value in scores.items()
    ]
    write_table(path, [("method", "model", "clips_of_a_class", "fold", "accuracy"), *rows])


def print_tagging(scores: Scores) -> None:
    for name, values in by_clips(scores, TAGGING).items():
        print(f"{name}, {TAGGING}: accuracy {statistics.mean(values[None]):.4f}")


def print_table(scores: Scores) -> None:
    """Print mean and standard deviation of the accuracy over the folds as a Markdown table."""
    columns = [
        (f"{model}: {method}", values) for method in (PROBE, TUNED, SCRATCH) for model, values in by_clips(scores, method).items()
    ]
    print(f"| clips of a class | {' | '.join(title for title, _ in columns)} |\n|{'---|' * (len(columns) + 1)}")
    for clips in CLIPS_OF_A_CLASS:
        cells = [f"{statistics.mean(values[clips]):.3f} ± {statistics.stdev(values[clips]):.3f}" for _, values in columns]
        print(f"| {clips or 'all'} | {' | '.join(cells)} |")


def draw(path: Path, scores: Scores) -> None:
    """Draw accuracy over the clips of a class: mean and range over the folds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    positions = range(len(CLIPS_OF_A_CLASS))
    colours = {model: f"C{number}" for number, model in enumerate(dict.fromkeys(job.model for job in scores))}
    for method, style in ((PROBE, "o--"), (TUNED, "s-"), (SCRATCH, "^-.")):
        for model, values in by_clips(scores, method).items():
            folds = [values[clips] for clips in CLIPS_OF_A_CLASS]
            axes.plot(positions, list(map(statistics.mean, folds)), style, color=colours[model], label=f"{model}: {method}")
            axes.fill_between(
                positions, list(map(min, folds)), list(map(max, folds)), color=colours[model], alpha=0.15, linewidth=0
            )
    for model, values in by_clips(scores, TAGGING).items():
        axes.axhline(statistics.mean(values[None]), color=colours[model], linestyle=":", label=f"{model}: {TAGGING}")
    axes.set(ylim=(0, 1), xlabel="training clips of each class", ylabel="accuracy on ESC-10")
    axes.set_xticks(positions, [str(clips or "all") for clips in CLIPS_OF_A_CLASS])
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    cli.run(main)
