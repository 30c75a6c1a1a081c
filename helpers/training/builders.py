"""What experiment scripts build from their options: the model to train and the loaders of its data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augment import Augmented
from datasets.clip import ClipDataset
from datasets.full_length import FullLengthClips
from helpers import network_options
from helpers.training import distributed
from helpers.training.run import Run
from helpers.training.sampling import SeededClips, TrainingBatches
from models import checkpoints, interrupts
from models.building import build_model, new_architecture
from models.errors import UserError
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel


def build_training_model(
    args: argparse.Namespace, run: Run, num_classes: int, labels: Sequence[str] | None, clip_seconds: float
) -> WaveformModel:
    """Build the network and its augmenting front end, fresh, from `--pretrained_name`, or those of the resumed run.

    Front-end options may differ from the pre-trained checkpoint's (that is how the other resolutions are trained from ImageNet
    weights); network options may not.
    """
    given = network_options.given_fields(args)
    if run.resumed:
        network = checkpoints.build(run.resumed[0])
        mel = network.mel
    elif args.pretrained_name:
        with distributed.local_main_first():
            network = build_model(
                network_options.chosen_family(args), num_classes, args.pretrained_name, given,
                pretrain_final_temp=getattr(args, "pretrain_final_temp", None), shown=network_options.as_option,
            )  # fmt: skip
        network_options.check_family(network.arch, args, args.pretrained_name)
        mel = network_options.front_end(args, network.mel)
        if mel.n_mels != network.mel.n_mels and "f" in network.arch.se_dims:
            raise UserError(f"--n_mels {mel.n_mels} contradicts the squeeze-and-excitation over bands of {args.pretrained_name}")
        network.arch, network.mel = network.arch.sized_for(mel.n_mels), mel
    else:
        family = network_options.chosen_family(args)
        mel = network_options.front_end(args, family.default_mel)
        frames = mel.frames(round(clip_seconds * mel.sample_rate))
        arch = new_architecture(family, {"num_classes": num_classes, **given}, network_options.as_option)
        network = arch.sized_for(mel.n_mels, frames).build(mel)
    network.labels = None if labels is None else tuple(labels)
    network.clip_seconds = clip_seconds
    front_end = AugmentMelSTFT.from_config(mel, args.freqm, args.timem, args.fmin_aug_range, args.fmax_aug_range)
    return WaveformModel(network, front_end)


def augmented(clips: Dataset, args: argparse.Namespace) -> Dataset:
    """Wrap training clips in what the options ask for of roll, gain and waveform mixing."""
    if args.roll or args.wavmix or args.gain_augment:
        return Augmented(clips, roll=args.roll, gain_db=args.gain_augment, wavmix=args.wavmix)
    return clips


def make_loader(clips: Dataset, args: argparse.Namespace) -> DataLoader:
    """Batch a data set for evaluation; of several ranks, each gets its own share of the clips.

    Clips that keep their own length come in batches of one length, see `FullLengthClips`; others in their order.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    batch_size = max(args.batch_size // world_size, 1)
    if isinstance(clips, ClipDataset) and clips.clip_seconds is None:
        whole = FullLengthClips(clips)
        return DataLoader(whole, batch_sampler=whole.batches(batch_size)[rank::world_size], **_worker_options(args))
    return DataLoader(clips, batch_size, sampler=range(rank, len(clips), world_size), **_worker_options(args))


def make_training_loader(clips: Dataset, sampler: Sampler[int], args: argparse.Namespace, names: Sequence[str] = ()) -> DataLoader:
    """Load what `sampler` draws from a data set, in the micro-batches that this rank trains on.

    A resumed run refuses clips of other `names` than it was started with.
    """
    batches = TrainingBatches(
        sampler,
        args.batch_size,
        seed=args.seed,
        accumulate=args.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        names=names,
    )
    return DataLoader(SeededClips(clips), batch_sampler=batches, **_worker_options(args))


def _worker_options(args: argparse.Namespace) -> dict[str, Any]:
    interrupts.kill_workers_at_exit()
    return {
        "num_workers": args.num_workers,
        "pin_memory": args.cuda and torch.cuda.is_available(),
        "persistent_workers": args.num_workers > 0,
        "worker_init_fn": interrupts.ignore,
    }
