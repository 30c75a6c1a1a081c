"""Train and evaluate a MobileNetV3 or a DyMN on AudioSet, or on any folder in its file format.

python ex_audioset.py --train --pretrained_name mn10_im_pytorch --batch_size 60 --max_lr 0.0004 --cuda
torchrun --nproc_per_node 2 ex_audioset.py --train --model_width 0.4 --dataset_dir data/opensounds --kd_lambda 1
python ex_audioset.py --train --model_width 0.4 --dataset_dir data/opensounds --teacher mn04_as --kd_lambda 0 --views 2 10
python ex_audioset.py --train --arch dymn --pretrained_name dymn10_im --max_lr 0.001 --cuda
python ex_audioset.py --model_name mn10_as --cuda
python ex_audioset.py --ensemble mn40_as_ext mn40_as mn40_as_no_im_pre --cuda
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, Sampler

from datasets import audioset
from datasets.clip import Clip, ClipDataset, DistillationClip
from datasets.labels import audioset_labels
from datasets.views import random_views
from helpers import cli, network_options
from helpers.distillation.online_teacher import load_online_teacher, total_loss
from helpers.distillation.options import add_distillation_options, check_distillation_options
from helpers.distillation.soft_targets import SoftTargetDataset, load_teacher, soft_target_bce_per_clip
from helpers.distillation.teacher_logits import TeacherLogits
from helpers.metrics import tagging_metrics
from helpers.seeding import seed_everything
from helpers.training import distributed, optimization, options
from helpers.training.builders import augmented, build_training_model, make_loader, make_training_loader
from helpers.training.class_figures import write_tagging
from helpers.training.evaluation import default_precision, predict
from helpers.training.loop import fit
from helpers.training.mixing import mixed_loss, mixup
from helpers.training.objectives import bce_per_clip, tagging_scores
from helpers.training.run import Run, parse_arguments
from models import checkpoints
from models.ensemble import get_ensemble_model
from models.errors import UserError
from models.waveform import WaveformModel


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", action="store_true", help="train a model")
    task.add_argument("--model_name", help="model to evaluate: a released or bundled name, or the path of a checkpoint")
    task.add_argument("--ensemble", nargs="+", metavar="NAME", help="models to evaluate together, by the mean of their logits")
    parser.add_argument("--per_class", type=Path, metavar="CSV", help="write the evaluation's metrics of each class to this file")
    parser.add_argument(
        "--per_class_figure", type=cli.figure_path, metavar="PNG", help="draw the best and the worst classes of the evaluation"
    )
    parser.add_argument("--pretrained_name", help="checkpoint to start training from")
    parser.add_argument("--dataset_dir", help="folder of the HDF5 files or shards (else AUDIOSET_DIR, else data/audioset)")
    parser.add_argument("--clip_seconds", type=cli.clip_seconds, default=10.0, help="length that clips are cropped or padded to")
    parser.add_argument("--epoch_len", type=cli.positive_int, default=100_000, help="clips drawn for an epoch of full batches")
    options.add_run_options(parser, batch_size=120)
    options.add_training_options(parser, experiment_name="audioset")
    network_options.add_network_options(parser)
    network_options.add_temperature_options(parser)
    network_options.add_front_end_options(parser)
    options.add_augmentation_options(parser, mixup_alpha=0.3)
    add_distillation_options(parser)
    options.add_schedule_options(
        parser, n_epochs=200, max_lr=8e-4, warm_up_len=8, ramp_down_start=80, ramp_down_len=95, last_lr_value=0.01, weight_decay=0.0
    )
    options.add_batch_norm_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parse_arguments(parser, argv)
    if args.pretrained_name and not args.train:
        parser.error("--pretrained_name is where training starts and needs --train; to evaluate a model, use --model_name")
    network_options.check_temperature_options(parser, args)
    if args.resume and not args.train:
        parser.error("--resume continues a training and needs --train")
    for path in filter(None, (args.per_class, args.per_class_figure)):
        if args.train or not path.absolute().parent.is_dir():
            parser.error("--per_class and --per_class_figure belong to an evaluation and name a file in a folder that exists")
    check_distillation_options(parser, args)
    args.dataset_dir = audioset.LOCATION.resolve(args.dataset_dir).absolute()  # before anything is downloaded or built
    with distributed.group(args.cuda) as device:
        args.precision = args.precision or default_precision(device)
        if args.train:
            train(args, device)
        else:
            evaluate(args, device)
    return 0


def train(args: argparse.Namespace, device: torch.device) -> None:
    """Train on the balanced and unbalanced segments, or on sound without labels, with an evaluation after each epoch."""
    seed_everything(args.seed)
    with Run(args) as run:
        model = build_training_model(args, run, audioset.NUM_CLASSES, audioset_labels(), args.clip_seconds).to(device)
        optimization.set_batch_norm_momentum(model.network, args.batch_norm_momentum)
        model.network.single_label = False  # whatever it was pre-trained on
        form = {"sample_rate": model.sample_rate, "clip_seconds": args.clip_seconds}
        with distributed.local_main_first():  # which writes the index of shards
            clips, sampler = training_clips(args, form)
            held_out = audioset.evaluation_set if needs_labels(args) else audioset.validation_set
            test_clips = held_out(args.dataset_dir, **form)
        teacher = None
        if args.teacher:
            teacher = load_online_teacher(args, model, run, blockwise=args.blockwise_epochs > 0)
        elif args.kd_lambda < 1:
            clips = with_stored_logits(clips, args, run)
        loader = make_training_loader(augmented(clips, args), sampler, args)
        test_loader = make_loader(test_clips, args)

        def training_loss(network: nn.Module, clips: Clip | DistillationClip) -> dict[str, Tensor]:
            waveform = random_views(clips.waveform, model.sample_rate, args.views) if args.views else clips.waveform
            spectrogram, mix = mixup(model.front_end(waveform), args.mixup_alpha)

            def label_loss(logits: Tensor) -> Tensor:
                return mixed_loss(bce_per_clip, logits, mix, clips.target).mean()

            if teacher is not None:
                is_blockwise = loader.batch_sampler.epoch < args.blockwise_epochs
                return teacher.training_losses(network, spectrogram, waveform, mix, label_loss, blockwise=is_blockwise)
            logits, _ = network(spectrogram.unsqueeze(1))  # (B, 527)
            if args.kd_lambda == 1:
                return {"loss": label_loss(logits)}
            losses = {"label_loss": label_loss(logits)} if args.kd_lambda > 0 else {}
            soft_targets = clips.soft_target, clips.soft_target_weight
            losses["distillation_loss"] = mixed_loss(soft_target_bce_per_clip, logits, mix, *soft_targets).mean()
            return total_loss(losses, args.kd_lambda)

        optimizer = torch.optim.Adam(
            model.parameters(), lr=args.max_lr, weight_decay=args.weight_decay, fused=device.type == "cuda"
        )
        fit(
            model, loader, training_loss, lambda: tagging_scores(predict(model, test_loader, args.precision)),
            optimizer=optimizer, schedule=optimization.schedule_from_options(args), n_epochs=args.n_epochs,
            run=run, selection="mAP", precision=args.precision, compile_network=args.compile, save_minutes=args.save_minutes,
            start_epoch=model.network.start_epoch, deterministic=args.deterministic,
        )  # fmt: skip


def needs_labels(args: argparse.Namespace) -> bool:
    """Whether training takes the labelled clips, those of the part "validation" among them; an online teacher alone does not."""
    return args.kd_lambda > 0 or not args.teacher


def training_clips(args: argparse.Namespace, form: dict[str, Any]) -> tuple[ClipDataset, Sampler]:
    """The clips and how they are drawn: by their classes, but all alike for an online teacher alone, which needs no labels."""
    if needs_labels(args):
        clips = audioset.training_set(args.dataset_dir, **form)
        return clips, audioset.balanced_sampler(clips, args.epoch_len)
    clips = audioset.unlabelled_set(args.dataset_dir, **form)
    return clips, RandomSampler(clips, num_samples=min(args.epoch_len, len(clips)))


def with_stored_logits(clips: ClipDataset, args: argparse.Namespace, run: Run) -> SoftTargetDataset:
    names = clips.names
    with distributed.local_main_first():
        teacher = load_teacher(args, names, audioset.NUM_CLASSES)
    run.require_same("teacher logits", fingerprint(teacher, names), "--teacher_preds")
    return SoftTargetDataset(clips, teacher, args.temperature)


def fingerprint(teacher: TeacherLogits, names: Sequence[str], sampled: int = 256) -> str:
    """A hash of a teacher's logits for a sample of the clips `names`: the same for the same logits in another file."""
    digest = hashlib.sha256(b"%d %d" % (teacher.clips, teacher.covered))
    for name in names[:: -(-len(names) // sampled)]:
        row = teacher.row(name)
        digest.update(b"" if row is None else row.tobytes())
    return digest.hexdigest()[:16]


def evaluate(args: argparse.Namespace, device: torch.device) -> None:
    """Print mean average precision and mean ROC-AUC on the eval segments."""
    names = args.ensemble or [args.model_name]
    for name in names:
        arch, _ = network_options.described_model(name, args)  # refuses options that contradict a checkpoint
        if arch.num_classes != audioset.NUM_CLASSES:
            raise UserError(f"{name} has {arch.num_classes} classes, AudioSet {audioset.NUM_CLASSES}")
    with distributed.local_main_first():  # which downloads
        model = get_ensemble_model(names) if args.ensemble else WaveformModel(checkpoints.load_model(args.model_name))
    model.to(device)
    with distributed.local_main_first():  # which writes the index of shards
        clips = audioset.evaluation_set(args.dataset_dir, sample_rate=model.sample_rate, clip_seconds=args.clip_seconds)
    predictions = predict(model, make_loader(clips, args), args.precision)
    if not distributed.is_main():
        return
    scores = tagging_metrics(predictions.targets, predictions.logits)
    print(f"Results on AudioSet test split for loaded model: {', '.join(names)}")
    print(f"  mAP: {scores.mAP:.3f}")
    print(f"  ROC: {scores.mean_roc_auc:.3f}")  # as the published evaluation prints it
    if scores.unscored_classes:
        print(f"  left out: {scores.unscored_classes} of {audioset.NUM_CLASSES} classes, which have no positive clip")
    if args.per_class:
        write_tagging(args.per_class, audioset_labels(), scores)
    if args.per_class_figure:
        from helpers.training.per_class_figure import per_class_figure

        per_class_figure(audioset_labels(), scores, args.per_class_figure)


if __name__ == "__main__":
    cli.run(main)
