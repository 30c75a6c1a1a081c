"""When do sounds happen? A frame-wise network against a clip model in sliding windows of one second, on the same training scenes.

    python -m studies.events --dataset_dir data/soundscapes --output_dir runs/events

The scenes are those of datasets.prepare.soundscapes. Compared are the bundled clip model as it is; the same, fine-tuned on labels
of whole scenes; a frame-wise network of its size that starts from its convolutions and learns when events are; and that one with a
sequence model. All trainings have the same number of scenes, none mixed with another: they are mixtures already. A clip model's
frames are windows of 1 s every 0.2 s. Thresholds of F1 are those of each class that are best on the validation scenes.

Writes results.csv, events.png and events_scene.png and prints a table. After an interruption the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets import audioset, audioset_strong
from datasets.audioset_strong import Classes, clip_label_columns
from datasets.csv_table import write_table
from datasets.strong_labels import LabelledEvent
from helpers import cli, event_metrics
from helpers.median_filter import median_filter
from helpers.training.builders import make_loader
from helpers.training.frame_wise import Form, form_of, predict_frames
from models import checkpoints
from models.files import write_atomically
from models.waveform import WaveformModel
from studies import common, events_figures

START = "mn04_distilled"  # the bundled clip model
ARMS = {
    "bundled": f"{START}, windows of 1 s",
    "clip": "fine-tuned on the scenes, windows of 1 s",
    "frame": "fmn04",
    "frame_tf": "fmn04+tf-104, with a sequence model",
}
TRAINED = ("frame", "clip", "frame_tf")
SCRIPTS = {"frame": "ex_audioset_strong.py", "frame_tf": "ex_audioset_strong.py"}
WINDOW_SECONDS, HOP_SECONDS = 1.0, 0.2  # of clip models
CLIP_LR, FRAME_LR = 3e-4, 2e-3
PARTS = ("validation", "eval")


class Heard(NamedTuple):
    """A model's scores of the frames of scenes, (T, K) each, and what is true of these."""

    scores: dict[str, np.ndarray]
    step: float  # seconds
    truth: dict[str, Sequence[LabelledEvent]]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    common.add_options(parser, clip_seconds=10.0, n_epochs=7)
    parser.set_defaults(batch_size=4)
    parser.add_argument("--epoch_len", type=cli.positive_int, default=540, help="scenes drawn for an epoch, at most")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    common.open_folders(args)
    classes = audioset_strong.read_classes(args.dataset_dir)
    scores: common.Scores = {arm: [] for arm in ARMS}
    scores["bundled"] = [measure(args, classes, START, args.output_dir / "scores" / "bundled")]
    for seed in range(args.seeds):  # so that what is interrupted has seeds that are complete
        common.train_all({(arm, seed): options(args, arm) for arm in TRAINED}, args.output_dir, args.jobs, SCRIPTS)
        for arm in TRAINED:
            folder = common.run_folder(args.output_dir, arm, seed)
            scores[arm].append(measure(args, classes, str(folder / "last.pt"), args.output_dir / "scores" / folder.name))
        write_csv(args.output_dir / "results.csv", scores)
        events_figures.draw_scores(args.output_dir / "events.png", scores, ARMS)
    draw_scene(args, classes)
    common.print_table(scores, ARMS)
    for measure_name in ("psds1", "psds2", "event_f1"):
        gains = [frame[measure_name] - clip[measure_name] for frame, clip in zip(scores["frame"], scores["clip"], strict=True)]
        print(f"gain in {measure_name} by seed, frame against clip: {', '.join(f'{gain:+.3f}' for gain in gains)}")
    return 0


def options(args: argparse.Namespace, arm: str) -> list[object]:
    """Options of a training."""
    shared = [*common.training_options(args), "--pretrained_name", START, "--epoch_len", args.epoch_len]
    if arm == "clip":
        schedule = common.schedule(args.n_epochs, CLIP_LR, warm_up_len=1, ramp_down_start=1)
        return [*shared, "--kd_lambda", 1, *common.AUGMENTATION, "--mixup_alpha", 0, "--no-wavmix", *schedule]
    sequence = ["--sequence_model", "tf", "--sequence_size", 104] if arm == "frame_tf" else []
    return [
        *shared, "--arch", "fmn", *sequence, "--n_epochs", args.n_epochs, "--max_lr", FRAME_LR, "--layer_decay", 1,
        "--warm_up_len", 1, "--batch_norm_momentum", 0.1, "--evaluate_every", args.n_epochs, "--gain_augment", 6,
        "--mixup_p", 0, "--no-wavmix",
    ]  # fmt: skip


def measure(args: argparse.Namespace, classes: Classes, model_name: str, stored: Path) -> dict[str, float]:
    """The metrics of events of a model, see `event_metrics.summary`."""
    validation, evaluation = (heard(args, classes, model_name, stored, part) for part in PARTS)
    return event_metrics.summary(*evaluation, args.clip_seconds, classes.labels, best_thresholds(args, classes, validation))


def best_thresholds(args: argparse.Namespace, classes: Classes, validation: Heard) -> np.ndarray:
    return event_metrics.best_thresholds(*validation, args.clip_seconds, classes.labels)


def heard(args: argparse.Namespace, classes: Classes, model_name: str, stored: Path, part: str) -> Heard:
    """What a model says about the frames of a part's scenes, kept in a file for the next time."""
    model = WaveformModel(checkpoints.load_model(model_name)).eval()
    is_frame_wise = model.network.step_seconds is not None
    form = form_of(model, args.clip_seconds) if is_frame_wise else window_form(model, args.clip_seconds)
    options = {"sample_rate": form.sample_rate, "clip_seconds": args.clip_seconds}
    clips = audioset_strong.strong_set(part, args.dataset_dir, classes, frames=form.frames, step=form.step, **options)
    path = stored.with_name(f"{stored.name}_{part}.npz")
    if not path.is_file():
        loader = make_loader(clips, argparse.Namespace(batch_size=args.batch_size, num_workers=0, cuda=False))
        found = predict_frames(model, loader) if is_frame_wise else window_scores(model, loader, classes, form)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: np.savez_compressed(file, scores=np.stack([found[name] for name in clips.names])))
    scores = dict(zip(clips.names, np.load(path)["scores"], strict=True))
    if is_frame_wise:
        scores = {name: median_filter(of_clip) for name, of_clip in scores.items()}
    return Heard(scores, form.step, dict(zip(clips.names, clips.events, strict=True)))


def window_form(model: WaveformModel, clip_seconds: float) -> Form:
    """The frames of a clip model: one for each hop of its windows."""
    return Form(model.sample_rate, round(clip_seconds / HOP_SECONDS), HOP_SECONDS)


@torch.inference_mode()
def window_scores(model: WaveformModel, loader: DataLoader, classes: Classes, form: Form) -> dict[str, np.ndarray]:
    """Scores of each scene's frames, (T, K): those of the window whose middle is nearest, of the classes of the scenes."""
    columns = clip_label_columns(classes.mids)
    window, hop = (round(seconds * form.sample_rate) for seconds in (WINDOW_SECONDS, HOP_SECONDS))
    scores = {}
    for clips in loader:
        windows = clips.waveform.unfold(1, window, hop)  # (B, W, samples)
        logits, _ = model(windows.flatten(0, 1))
        of_windows = logits.sigmoid().unflatten(0, windows.shape[:2])[..., [columns[k] for k in range(len(columns))]]
        nearest = (torch.arange(form.frames) - (window - hop) // (2 * hop)).clamp(0, windows.shape[1] - 1)
        scores |= zip(clips.name, of_windows[:, nearest].numpy(), strict=True)
    return scores


def draw_scene(args: argparse.Namespace, classes: Classes) -> None:
    """Draw the evaluation scene with the most classes, and what the first seed's networks find in it."""
    found: dict[str, list[LabelledEvent]] = {}
    for arm, title in (("clip", "windows"), ("frame", "frames")):
        folder = common.run_folder(args.output_dir, arm, 0)
        stored = args.output_dir / "scores" / folder.name
        validation, evaluation = (heard(args, classes, str(folder / "last.pt"), stored, part) for part in PARTS)
        name = max(evaluation.truth, key=lambda name: (len({event.class_index for event in evaluation.truth[name]}), name))
        found[title] = runs_above(evaluation.scores[name], evaluation.step, best_thresholds(args, classes, validation))
    found = {"truth": evaluation.truth[name], **found}
    clips = audioset.evaluation_set(args.dataset_dir, clip_seconds=args.clip_seconds, sample_rate=events_figures.RATE)
    waveform = clips[clips.names.index(name)].waveform.numpy()
    events_figures.draw_scene(args.output_dir / "events_scene.png", waveform, found, classes.labels, name)


def runs_above(scores: np.ndarray, step: float, thresholds: np.ndarray) -> list[LabelledEvent]:
    """The events in scores (T, K) of frames: where they are above the threshold of their class."""
    active = np.pad(scores > thresholds, ((1, 1), (0, 0))).astype(np.int8)
    edges = np.diff(active, axis=0)  # (T + 1, K)
    return [
        LabelledEvent(first * step, last * step, k)
        for k in range(scores.shape[1])
        for first, last in zip(np.flatnonzero(edges[:, k] > 0), np.flatnonzero(edges[:, k] < 0), strict=True)
    ]


def write_csv(path: Path, scores: common.Scores) -> None:
    measures = list(scores["bundled"][0])
    rows = [
        (arm, "" if arm == "bundled" else seed, *(f"{run[measure]:.5f}" for measure in measures))
        for arm, runs in scores.items()
        for seed, run in enumerate(runs)
    ]
    write_table(path, [("model", "seed", *measures), *rows])


if __name__ == "__main__":
    cli.run(main)
