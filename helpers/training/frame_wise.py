"""Training of frame-wise networks on events in time, and on clips without times; their evaluation by events."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler

from datasets.augment import Augmented
from datasets.clip import FrameClip
from datasets.csv_table import write_results
from datasets.strong_clips import StrongClips
from helpers import cli, event_metrics, network_options
from helpers.median_filter import median_filter
from helpers.seeding import seed_everything
from helpers.training import distributed, options
from helpers.training.builders import build_training_model, make_loader, make_training_loader
from helpers.training.evaluation import PRECISIONS, clip_bar, default_precision
from helpers.training.frame_augment import draw_heard, draw_shifts, filter_augment, mask_spectrograms, shift
from helpers.training.loop import fit
from helpers.training.mixing import Mix, mixup
from helpers.training.optimization import linear_warmup_cosine_down
from helpers.training.run import Run
from helpers.training.sampling import KindSampler
from models import checkpoints
from models.base import FrameOutput, TaggingNetwork
from models.config import FrameWiseArch
from models.errors import UserError
from models.waveform import WaveformModel

# What an evaluation measures, see `event_metrics.summary`; the first one chooses the best epoch.
SCORES = ("psds1", "psds1_penalised", "psds2", "psds2_penalised", "event_f1", "segment_f1", "intersection_f1")

RARE_LOGIT = -4.0  # bias of a new head: events are rare, and Adam is slow to find that out (Lin et al., Focal Loss, ICCV 2017)

logger = logging.getLogger(__name__)


class Form(NamedTuple):
    """What a network takes and gives."""

    sample_rate: int  # Hz
    frames: int  # T of a clip
    step: float  # seconds of a frame


class Taught(NamedTuple):
    """A teacher's probabilities for the frames of B clips."""

    probabilities: Tensor  # (B, classes that both have, T)
    columns: Tensor  # of these classes among the student's
    weight: Tensor  # (B,): 0 for clips that the teacher says nothing about


class FrameTeacher(Protocol):
    """What a network learns from besides the labels, such as `helpers.distillation.frame_teachers.OnlineFrameTeacher`."""

    def __call__(self, waveform: Tensor, clips: FrameClip, mix: Mix | None) -> Taught:
        """Hear waveforms (B, samples), of which spectrograms are mixed; or mix what is stored with the clips."""


# What options name for a student: a teacher, if any, and the clips with what is stored about them.
LoadTeacher = Callable[[argparse.Namespace, WaveformModel, Run, StrongClips], tuple["FrameTeacher | None", Dataset[FrameClip]]]


@dataclass(frozen=True)
class FrameTask:
    """Clips to train on, to choose the epoch by, and to test on, in the form that a network takes."""

    labels: tuple[str, ...]
    clip_seconds: float
    training_set: Callable[[Form], StrongClips]
    validation_set: Callable[[Form], StrongClips]
    test_set: Callable[[Form], StrongClips]
    weak_classes: Sequence[int] | None = None  # whose presence in clips without times is known; None: all
    description: str = ""  # of the data, for the log


class FrameLogits(nn.Module):
    """A network whose `forward` is its `forward_frames`: what is compiled and distributed."""

    def __init__(self, network: TaggingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, spectrogram: Tensor) -> FrameOutput:
        return self.network.forward_frames(spectrogram)


def add_options(parser: argparse.ArgumentParser, *, experiment_name: str, n_epochs: int, epoch_len: int | None) -> None:
    """Options of every training of a frame-wise network; defaults are the published recipe where nothing else is said."""
    options.add_run_options(parser, batch_size=256)
    options.add_training_options(parser, experiment_name=experiment_name)
    network_options.add_network_options(parser, arch="fmn")
    network_options.add_front_end_options(parser)
    parser.add_argument(
        "--pretrained_name", help="checkpoint to start training from, frame-wise or an mn; without one, random weights"
    )
    parser.add_argument("--epoch_len", type=cli.positive_int, default=epoch_len, help="clips drawn for an epoch (all, at most)")
    group = parser.add_argument_group("optimizer and schedule")
    group.add_argument("--n_epochs", type=cli.positive_int, default=n_epochs, help="number of epochs")
    group.add_argument("--max_lr", "--lr", type=cli.positive_float, default=1e-3, help="peak rate of Adam for the last convolution")
    group.add_argument(
        "--layer_decay", type=cli.unit_interval, default=0.9, help="factor of the rate from each block to the one before"
    )
    group.add_argument("--sequence_lr", type=cli.positive_float, help="peak rate of sequence model and heads (--max_lr)")
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=0.0, help="weight decay of Adam")
    group.add_argument("--warm_up_len", type=cli.non_negative_int, default=n_epochs // 8, help="epochs of the linear ramp up")
    group.add_argument(
        "--patience", type=cli.positive_int, metavar="EPOCHS", help="end after so many epochs without a better score"
    )
    options.add_batch_norm_option(group)
    group = parser.add_argument_group("augmentation")
    group.add_argument(
        "--wavmix", action=argparse.BooleanOptionalAction, default=True, help="mix half of the waveforms with others"
    )
    group.add_argument("--gain_augment", type=cli.non_negative_float, default=0.0, help="random gain of up to this many dB; 0: off")
    group.add_argument(
        "--frame_shift", type=cli.non_negative_float, default=1.25, help="standard deviation of shifts in time in seconds"
    )
    group.add_argument("--mixup_p", type=cli.unit_interval, default=0.3, help="share of batches with mixup of spectrograms")
    group.add_argument("--mixup_alpha", type=cli.positive_float, default=0.2, help="alpha of mixup")
    group.add_argument("--time_mask", type=cli.non_negative_float, default=0.0, help="mask up to this many seconds; 0: off")
    group.add_argument(
        "--filter_augment", type=cli.non_negative_float, default=0.0, help="FilterAugment of up to this many dB; 0: off"
    )
    group.add_argument("--freqm", type=cli.non_negative_int, default=0, help="mask up to this many mel bands; 0: off")
    group.add_argument("--fmin_aug_range", type=cli.positive_int, default=10, help="fmin is raised by up to this many Hz")
    group.add_argument("--fmax_aug_range", type=cli.positive_int, default=2000, help="fmax moves within a range of this many Hz")
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--evaluate_every", type=cli.positive_int, default=1, metavar="EPOCHS", help="epochs from one evaluation to the next"
    )


def train(
    args: argparse.Namespace,
    device: torch.device,
    task: FrameTask,
    load_teacher: LoadTeacher | None = None,
    folder: Path | None = None,
) -> tuple[dict[str, float], Path | None]:
    """Train on a task and return the last epoch's metrics and, on the main rank, the run's folder (see `Run`)."""
    if args.patience and args.patience < args.evaluate_every:
        raise UserError(f"--patience {args.patience} ends before the first evaluation; give {args.evaluate_every} or more")
    args.precision = args.precision or default_precision(device)
    seed_everything(args.seed)
    with Run(args, folder) as run:
        if task.description:
            logger.info("%s", task.description)
        without_time_masks = argparse.Namespace(**vars(args), timem=0)  # of the front end, which does not know the targets
        model = build_training_model(without_time_masks, run, len(task.labels), task.labels, task.clip_seconds).to(device)
        if isinstance(model.network.arch, FrameWiseArch) and model.network.arch.trained_heads == "weak":
            model.network.set_trained_heads("strong")  # it is not trained yet
        check_frame_wise(model, args.pretrained_name or "--arch")
        if not run.resumed and not keeps_head(args.pretrained_name, model.network):
            nn.init.constant_(model.network.strong_head.bias, RARE_LOGIT)
        form = form_of(model, task.clip_seconds)
        clips, validation_clips = task.training_set(form), task.validation_set(form)
        if not any(validation_clips.events):
            raise UserError("no clip to validate on has an event; choose others, or more")
        model.network.set_trained_heads("strong" if clips.has_times.all() else "both")
        for module in model.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = args.batch_norm_momentum
        teacher, taught_clips = load_teacher(args, model, run, clips) if load_teacher else (None, clips)
        sampler = draw_clips(clips, args)
        loader = make_training_loader(
            Augmented(taught_clips, gain_db=args.gain_augment, wavmix=args.wavmix), sampler, args, clips.names
        )
        validation_loader = make_loader(validation_clips, args)
        weak_classes = torch.tensor(range(len(task.labels)) if task.weak_classes is None else task.weak_classes, device=device)

        def training_loss(network: nn.Module, clips: FrameClip) -> dict[str, Tensor]:
            waveform, clips = shifted(clips, args.frame_shift, form)
            alpha = args.mixup_alpha if args.mixup_p and torch.rand(()) < args.mixup_p else 0.0
            spectrogram, mix = mixup(model.front_end(waveform), alpha)  # (B, F, frames)
            heard = draw_heard(len(waveform), form.frames, round(args.time_mask / form.step)).to(device)  # (B, T)
            if args.time_mask:
                spectrogram = mask_spectrograms(spectrogram, heard)
            if args.filter_augment:
                spectrogram = filter_augment(spectrogram, args.filter_augment)
            output = network(spectrogram.unsqueeze(1))
            logits = output.logits.transpose(1, 2)  # (B, K, T)
            target, weight = mix_weighted(mix, clips.target, clips.target_weight)
            losses = {"strong_loss": weighted_bce(logits, target * heard[:, None], weight)}
            if model.arch.trained_heads == "both":
                clip_target, weak_weight = mix_weighted(mix, clips.clip_target, 1 - clips.target_weight)
                losses["weak_loss"] = weighted_bce(output.clip_logits[:, weak_classes], clip_target[:, weak_classes], weak_weight)
            label_loss = sum(losses.values())
            if teacher is None:
                return {"loss": label_loss} | losses
            taught = teacher(waveform, clips, mix)
            losses["distillation_loss"] = weighted_bce(
                logits[:, taught.columns], taught.probabilities * heard[:, None], taught.weight
            )
            loss = args.kd_lambda * label_loss + (1 - args.kd_lambda) * losses["distillation_loss"]
            return {"loss": loss} | losses

        def validation_scores() -> dict[str, float]:
            epoch = loader.batch_sampler.epoch
            if (epoch + 1) % args.evaluate_every and epoch + 1 < args.n_epochs:
                return dict.fromkeys(SCORES, math.nan)
            return evaluate(model, validation_loader, form, args.precision)

        groups = parameter_groups(model.network, args.max_lr, args.layer_decay, args.sequence_lr or args.max_lr)
        metrics = fit(
            model, loader, training_loss, validation_scores,
            optimizer=torch.optim.Adam(groups, weight_decay=args.weight_decay, fused=model.device.type == "cuda"),
            schedule=lambda epoch: linear_warmup_cosine_down(epoch, args.n_epochs, min(args.warm_up_len, args.n_epochs - 1)),
            n_epochs=args.n_epochs, run=run, selection=SCORES[0], patience=args.patience, precision=args.precision,
            compile_network=args.compile, save_minutes=args.save_minutes, forward=FrameLogits,
            deterministic=args.deterministic,
        )  # fmt: skip
        return metrics, run.folder


def evaluate(
    model: WaveformModel, loader: DataLoader, form: Form, precision: str, per_class: Path | None = None
) -> dict[str, float]:
    """Score the events that a model finds in clips, see `event_metrics.summary`; `per_class` is a CSV to write, if any."""
    clips: StrongClips = loader.dataset
    scores = {clip: median_filter(of_clip) for clip, of_clip in predict_frames(model, loader, precision).items()}
    truth = {name: events or () for name, events in zip(clips.names, clips.events, strict=True)}
    inputs = scores, form.step, truth, form.frames * form.step, model.labels
    if per_class and distributed.is_main():
        write_class_scores(per_class, *inputs)
    return event_metrics.summary(*inputs)


def write_class_scores(path: Path, *inputs: Any) -> None:
    """Write a CSV of the metrics of each class, from what the functions of `event_metrics` take."""
    psds1, psds2 = (event_metrics.psds(*inputs, parameters) for parameters in (event_metrics.PSDS1, event_metrics.PSDS2))
    event_f1, segment_f1 = event_metrics.event_f1(*inputs), event_metrics.segment_f1(*inputs)
    columns = [metric.by_class for metric in (psds1, psds2, event_f1, segment_f1)]
    rows = [[label, *(f"{column[label]:.4f}" for column in columns)] for label in columns[0]]
    write_results(path, [["class", "psds1", "psds2", "event_f1", "segment_f1"], *rows])


def print_scores(title: str, scores: Mapping[str, float]) -> None:
    """Print the scores of an evaluation, each on a line, on the main rank alone."""
    if distributed.is_main():
        print(title)
        for name, value in scores.items():
            print(f"  {name.replace('_', ' ').replace('psds', 'PSDS')}: {value:.3f}")


def load_frame_wise(name: str, labels: Sequence[str], device: torch.device) -> WaveformModel:
    """Load a frame-wise model whose classes are `labels`; UserError for any other."""
    model = WaveformModel(checkpoints.load_model(name)).to(device)
    check_frame_wise(model, name)
    if model.labels is not None and tuple(model.labels) != tuple(labels):
        raise UserError(
            f"the {model.num_classes} classes of {name} are not the {len(labels)} of the data; evaluate a model trained on them"
        )
    return model


def check_frame_wise(model: WaveformModel, name: str) -> None:
    if getattr(model.network.arch, "seq_len", None) is not None:
        raise UserError(f"{name} resamples the time axis to seq_len {model.network.arch.seq_len}; start from a network without")
    if model.network.step_seconds is None:
        raise UserError(f"{name} gives a network that scores whole clips; training on events needs a frame-wise one, --arch fmn")


def keeps_head(pretrained_name: str | None, network: TaggingNetwork) -> bool:
    """Whether a frame-wise network that starts from a checkpoint has its trained strong head, too."""
    if pretrained_name is None:
        return False
    own, (arch, _) = network.arch, checkpoints.architecture(pretrained_name)
    is_same = type(arch) is type(own) and (arch.num_classes, arch.sequence_model) == (own.num_classes, own.sequence_model)
    return is_same and arch.trained_heads != "weak"


def form_of(model: WaveformModel, clip_seconds: float) -> Form:
    """The form of clips of so many seconds for a model."""
    network = model.network
    frames = -(-model.mel.frames(round(clip_seconds * model.sample_rate)) // network.arch.frames_per_step)
    return Form(model.sample_rate, frames, network.step_seconds)


def draw_clips(clips: StrongClips, args: argparse.Namespace) -> RandomSampler | KindSampler:
    """Draw the clips of an epoch: all alike or, where some are without times, these with the share `--weak_share`."""
    count = min(args.epoch_len or len(clips), len(clips))
    has_times = clips.has_times
    if has_times.all():
        return RandomSampler(clips, num_samples=count)
    if not has_times.any():
        raise UserError("no training clip has events in time; without any, train a clip model by ex_audioset.py or ex_folder.py")
    return KindSampler(~has_times, args.weak_share, count)


def parameter_groups(network: TaggingNetwork, max_lr: float, layer_decay: float, sequence_lr: float) -> list[dict[str, Any]]:
    """The network's parameters with their rates: the last convolution's is `max_lr`, each stage before it has a lower one.

    Sequence model and heads have `sequence_lr`. Frozen parameters are left out.
    """
    stages = reversed(list(network.features))
    groups = [{"params": list(stage.parameters()), "lr": max_lr * layer_decay**depth} for depth, stage in enumerate(stages)]
    backbone = {id(parameter) for group in groups for parameter in group["params"]}
    others = [parameter for parameter in network.parameters() if id(parameter) not in backbone and parameter.requires_grad]
    return [*groups, {"params": others, "lr": sequence_lr}]


def mix_weighted(mix: Mix | None, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mix targets (B, ...) of the weights (B,), 0 for clips without one; return the mixed targets and their weights.

    Binary cross entropy on them is the weighted mean of that on both clips' targets, as it is affine in its target.
    """
    if mix is None:
        return target, weight
    shares = mix.weight * weight, (1 - mix.weight) * weight[mix.partner]
    total = shares[0] + shares[1]
    own, other = ((share / total.clamp(min=1e-12)).view(-1, *(1 for _ in target.shape[1:])) for share in shares)
    return own * target + other * target[mix.partner], total


def weighted_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross entropy of logits (B, ...): the mean over each clip, weighted by (B,), averaged over the clips."""
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
    return (weight * loss.flatten(1).mean(1)).mean()


@torch.inference_mode()
def predict_frames(model: WaveformModel, loader: DataLoader, precision: str = "fp32") -> dict[str, np.ndarray]:
    """Scores in [0, 1] of the frames of each clip by name, (T, K) float32, in evaluation mode; all ranks get those of all."""
    was_training = model.training
    model.eval()
    scores: dict[str, np.ndarray] = {}
    autocast = torch.autocast(model.device.type, PRECISIONS[precision], enabled=precision != "fp32")
    with autocast, clip_bar("evaluating", len(loader.dataset)) as bar:
        for clips in loader:
            spectrogram = model.front_end(clips.waveform.to(model.device, non_blocking=True)).unsqueeze(1)
            of_clips = model.network.forward_frames(spectrogram).logits.float().sigmoid().cpu().numpy()
            scores |= zip(clips.name, of_clips, strict=True)
            bar.update(len(clips.name) * distributed.world_size())
    model.train(was_training)
    return {name: of_clip for share in distributed.gather(scores) for name, of_clip in share.items()}


def shifted(clips: FrameClip, seconds: float, form: Form) -> tuple[Tensor, FrameClip]:
    """Waveforms and targets shifted in a circle by whole frames, each clip by its own number."""
    if not seconds:
        return clips.waveform, clips
    steps = draw_shifts(len(clips.waveform), seconds, form.step)
    samples = (steps * (form.step * form.sample_rate)).round().long()
    soft_target = shift(clips.soft_target, steps) if clips.soft_target.shape[1] else clips.soft_target
    clips = clips._replace(target=shift(clips.target, steps), soft_target=soft_target)
    return shift(clips.waveform, samples), clips
