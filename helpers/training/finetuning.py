"""What the fine-tuning scripts share: options and recipes, the training from a pre-trained model, the evaluation of its result."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from datasets.clip import Clip, ClipDataset
from helpers import cli, network_options
from helpers.seeding import seed_everything
from helpers.training import distributed, optimization, options
from helpers.training.balance import balanced_loss, balanced_sampler
from helpers.training.builders import augmented, build_training_model, make_loader, make_training_loader
from helpers.training.evaluation import Predictions, default_precision, predict
from helpers.training.loop import fit
from helpers.training.mixing import Mix, Style, freq_mixstyle, mixed_loss, mixup
from helpers.training.objectives import Objective
from helpers.training.optimization import parameter_groups, set_batch_norm_momentum
from helpers.training.run import Run, parse_arguments, parse_as_trained
from models import checkpoints
from models.errors import UserError
from models.waveform import WaveformModel

logger = logging.getLogger(__name__)

Recipe = Mapping[str, Any]  # defaults of options
TUNED_AUGMENTATION = {"mixup_alpha": 0.3, "roll": 4000, "wavmix": True, "gain_augment": 12.0}


class Teacher(Protocol):
    """What a network learns from besides the labels, such as `helpers.distillation.online_teacher.OnlineTeacher`."""

    def training_losses(
        self,
        network: nn.Module,
        spectrogram: Tensor,
        waveform: Tensor,
        mix: Mix | None,
        label_loss: Callable[[Tensor], Tensor],
        *,
        style: Style | None,
    ) -> dict[str, Tensor]:
        """Let the network hear its spectrograms (B, F, T) of waveforms (B, samples); return "loss" and the parts to log.

        `style` and `mix` were applied to the spectrograms, in this order; `label_loss` takes the network's logits (B, K).
        """


@dataclass(frozen=True)
class Task:
    """A data set to fine-tune on; its splits are opened at the sample rate in Hz that the model takes.

    A validation or test set that keeps each clip's own length (`clip_seconds` None) is evaluated in batches of one length.
    """

    objective: Objective
    num_classes: int
    labels: Sequence[str] | None
    clip_seconds: float  # of training clips
    training_set: Callable[[int], ClipDataset]
    validation_set: Callable[[int], ClipDataset]  # measured after each epoch
    test_set: Callable[[int], ClipDataset]  # what `--evaluate` measures
    epoch_clips: int | None = None  # drawn for an epoch, without repeats; None: all training clips
    balance: str = "none"  # one of `balance.CHOICES`
    description: str = ""  # of the data, for the log
    load_teacher: Callable[[argparse.Namespace, WaveformModel, Run], Teacher] | None = None  # that `--teacher` names, for a student


def add_options(
    parser: argparse.ArgumentParser,
    *,
    experiment_name: str,
    dataset_help: str | None = None,
    pretrained_name: str | None = None,
    recipes: Mapping[str, Recipe] | None = None,
) -> None:
    """Options of every fine-tuning; `--dataset_dir` if it has a help text, `--recipe` if there are recipes (see `parse`)."""
    parser.add_argument("--train", action="store_true", help="fine-tune (the default without --evaluate)")
    parser.add_argument("--evaluate", metavar="CHECKPOINT", help="evaluate a fine-tuned checkpoint instead of training")
    parser.add_argument(
        "--pretrained_name", default=pretrained_name, help="model or checkpoint to start from; without one, random weights"
    )
    if dataset_help:
        parser.add_argument("--dataset_dir", help=dataset_help)
    if recipes:
        _add_recipe_option(parser, recipes)
    options.add_run_options(parser, batch_size=64)
    options.add_training_options(parser, experiment_name=experiment_name)
    network_options.add_network_options(parser)
    network_options.add_front_end_options(parser)
    options.add_augmentation_options(parser, mixup_alpha=0.3)
    options.add_schedule_options(
        parser, n_epochs=80, max_lr=1e-4, warm_up_len=10, ramp_down_start=10, ramp_down_len=65, last_lr_value=0.01, weight_decay=0.0
    )
    parser.add_argument("--mixstyle_p", type=cli.unit_interval, default=0.0, help="share of batches with Freq-MixStyle; 0: off")
    parser.add_argument("--mixstyle_alpha", type=cli.positive_float, default=0.4, help="alpha of Freq-MixStyle")
    options.add_batch_norm_option(parser)
    parser.add_argument(
        "--patience", type=cli.positive_int, metavar="EPOCHS", help="end after so many epochs without a better validation score"
    )
    group = parser.add_argument_group("learning rates of parts of the network (--max_lr unless given; 0 freezes a part)")
    group.add_argument("--features_lr", type=cli.non_negative_float, help="of the convolutional blocks")
    group.add_argument("--classifier_lr", type=cli.non_negative_float, help="of the hidden layer of an mlp head")
    group.add_argument("--last_layer_lr", type=cli.non_negative_float, help="of the last layer; of the whole head if not mlp")
    group.add_argument("--linear_probe", action="store_true", help="train the last layer alone, on a frozen network")


def _add_recipe_option(parser: argparse.ArgumentParser, recipes: Mapping[str, Recipe]) -> None:
    """`--recipe`, whose first choice is the default."""
    parser.add_argument(
        "--recipe", choices=tuple(recipes), default=next(iter(recipes)),
        help="published defaults of learning rate, schedule, batch size and augmentation",
    )  # fmt: skip


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """`--cache_path` of data sets of audio files."""
    parser.add_argument("--cache_path", metavar="DIR", help="keep decoded, resampled recordings in this folder (128 kB per second)")


def published_recipes(*, later_tuned: Sequence[float], first_release: Sequence[float], dymn: Sequence[float]) -> dict[str, Recipe]:
    """The recipes of a data set, each as its peak rate, epochs, batch size, and warm-up, start and length of the ramp down.

    The later one, and that of dynamic networks, augment as published; what the first one did is not on record, here it is mixup
    alone.
    """
    names = ("max_lr", "n_epochs", "batch_size", "warm_up_len", "ramp_down_start", "ramp_down_len")
    return {
        "later_tuned": dict(zip(names, later_tuned, strict=True)) | TUNED_AUGMENTATION,
        "first_release": dict(zip(names, first_release, strict=True)),
        "dymn": dict(zip(names, dymn, strict=True)) | TUNED_AUGMENTATION,
    }


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    recipes: Mapping[str, Recipe] | None = None,
    as_trained: Sequence[str] = (),
) -> argparse.Namespace:
    """Parse a command line; options that are not given follow the chosen recipe, or, with `--resume`, the resumed run.

    With `--evaluate`, the options `as_trained` default to those of the training, see `parse_as_trained`.
    """
    if recipes:
        chooser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        _add_recipe_option(chooser, recipes)
        try:
            recipe = chooser.parse_known_args(argv)[0].recipe
        except argparse.ArgumentError:
            recipe = next(iter(recipes))  # the parser itself reports what is wrong
        parser.set_defaults(**recipes[recipe])
    args = parse_arguments(parser, argv)
    if args.evaluate and (args.train or args.resume):
        parser.error("--evaluate measures a fine-tuned checkpoint; leave --train and --resume out")
    if args.evaluate:
        args = parse_as_trained(parser, argv, args.evaluate, as_trained)
    if args.linear_probe and (args.features_lr or args.classifier_lr):
        parser.error("--linear_probe trains the last layer alone; leave --features_lr and --classifier_lr out")
    return args


def finetune(
    args: argparse.Namespace, device: torch.device, task: Task, folder: Path | None = None
) -> tuple[dict[str, float], Path | None]:
    """Train on a task and return the last epoch's metrics and, on the main rank, the run's folder (see `Run`)."""
    args.precision = args.precision or default_precision(device)
    seed_everything(args.seed)
    with Run(args, folder) as run:
        if task.description:
            logger.info("%s", task.description)
        if run.resumed:
            _check_classes(run.resumed[0].name, run.resumed[0].arch.num_classes, run.resumed[0].labels, task)
        if not args.pretrained_name:
            logger.info("no pre-trained model: training starts from random weights")
        model = build_training_model(args, run, task.num_classes, task.labels, task.clip_seconds).to(device)
        set_batch_norm_momentum(model.network, args.batch_norm_momentum)
        model.network.single_label = task.objective.single_label
        teacher = task.load_teacher(args, model, run) if task.load_teacher and args.teacher else None
        training_clips = task.training_set(model.sample_rate)
        sampler = RandomSampler(training_clips, num_samples=task.epoch_clips)
        loss_per_clip = task.objective.loss_per_clip
        if task.balance == "sampling":
            sampler = balanced_sampler(training_clips.targets())
        elif task.balance == "weights":
            loss_per_clip = balanced_loss(training_clips.targets(), task.objective.single_label)
        loader = make_training_loader(augmented(training_clips, args), sampler, args, training_clips.names)
        validation_loader = make_loader(task.validation_set(model.sample_rate), args)
        groups, is_cuda = parameter_groups(model.network, args), device.type == "cuda"
        optimizer = torch.optim.Adam(groups, weight_decay=args.weight_decay, fused=is_cuda)

        def training_loss(network: nn.Module, clips: Clip) -> dict[str, Tensor]:
            spectrogram = model.front_end(clips.waveform)  # (B, n_mels, frames)
            spectrogram, style = freq_mixstyle(spectrogram, args.mixstyle_p, args.mixstyle_alpha)
            spectrogram, mix = mixup(spectrogram, args.mixup_alpha)

            def label_loss(logits: Tensor) -> Tensor:
                return mixed_loss(loss_per_clip, logits, mix, clips.target).mean()

            if teacher is not None:
                return teacher.training_losses(network, spectrogram, clips.waveform, mix, label_loss, style=style)
            logits, _ = network(spectrogram.unsqueeze(1))
            return {"loss": label_loss(logits)}

        metrics = fit(
            model, loader, training_loss, lambda: task.objective.scores(predict(model, validation_loader, args.precision)),
            optimizer=optimizer, schedule=optimization.schedule_from_options(args), n_epochs=args.n_epochs,
            run=run, selection=task.objective.selection, patience=args.patience,
            precision=args.precision, compile_network=args.compile, save_minutes=args.save_minutes,
            deterministic=args.deterministic,
        )  # fmt: skip
        return metrics, run.folder


def evaluate(args: argparse.Namespace, device: torch.device, task: Task, checkpoint: str | Path) -> dict[str, float]:
    """Scores of a fine-tuned checkpoint on a task's test set."""
    return task.objective.scores(predict_with(checkpoint, args, device, task, task.test_set))


def predict_with(
    checkpoint: str | Path, args: argparse.Namespace, device: torch.device, task: Task, clips: Callable[[int], ClipDataset]
) -> Predictions:
    """Predictions of a fine-tuned checkpoint for one of a task's data sets."""
    model = WaveformModel(checkpoints.load_model(checkpoint)).to(device)
    _check_classes(str(checkpoint), model.num_classes, model.labels, task)
    loader = make_loader(clips(model.sample_rate), args)
    return predict(model, loader, args.precision or default_precision(device))


def print_scores(title: str, scores: Mapping[str, float]) -> None:
    """Print the scores of an evaluation, each on a line, on the main rank alone; losses and d' are left out."""
    if distributed.is_main():
        print(title)
        for name, value in scores.items():
            if name.startswith(("accuracy", "mAP", "ROC")):
                print(f"  {name.removesuffix('_AUC').replace('_', ' ')}: {value:.3f}")


def _check_classes(name: str, num_classes: int, labels: Sequence[str] | None, task: Task) -> None:
    """Raise UserError unless a model's classes are the task's."""
    if num_classes != task.num_classes:
        raise UserError(f"{name} has {num_classes} classes, the data {task.num_classes}; give a model that was fine-tuned on them")
    if labels is not None and task.labels is not None and tuple(labels) != tuple(task.labels):
        differing = next((one, other) for one, other in zip(labels, task.labels, strict=True) if one != other)
        raise UserError(f"the classes of {name} are not those of the data, such as {differing[0]!r} and {differing[1]!r}")
