"""Write teacher logits to distil from.

python -m helpers.distillation --models mn40_as_ext mn40_as --dataset_dir data/audioset --output teacher.npy --cuda
python -m helpers.distillation --models runs/audioset/best.pt --hdf balanced_train_segments_mp3.hdf --output teacher.npy

writes teacher.npy, the mean of the models' logits, (N, K) float16; teacher.txt, the clips' names, one per line in the order of the
rows; and teacher.json, the settings. An interrupted run resumes where it stopped when its command is repeated.

python -m helpers.distillation --frames --models fmn10_strong fmn20_strong --dataset_dir data/audioset --output teacher.hdf5 --cuda

writes teacher.hdf5, the logits of frames of frame-wise models: filenames, and strong_logits (N, K, T) float16, in the layout of the
published file of AudioSet Strong's teachers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import audioset
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.shards.dataset import ShardDataset
from helpers import cli
from helpers.devices import loader_workers, pick_device
from helpers.distillation.frame_writer import refuse_existing_frames, write_frame_logits
from helpers.distillation.writer import LogitsWriter, refuse_existing, write_logits
from helpers.training.evaluation import PRECISIONS, autocast, default_precision
from models.ensemble import EnsembleModel, get_ensemble_model
from models.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.distillation", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="NAME", help="models whose logits are averaged: names or paths"
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--hdf", nargs="+", type=Path, metavar="FILE", help="HDF5 files of mp3s")
    data.add_argument("--dataset_dir", type=Path, help="folder in AudioSet's format, for its training files")
    parser.add_argument("--frames", action="store_true", help="write logits of frames, of frame-wise models, to an HDF5 file")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: a .npy, with a .txt and a .json; an .hdf5 of frames",
    )
    parser.add_argument(
        "--clip_seconds", type=cli.clip_seconds, default=10.0,
        help="length of a window; the logits of a longer clip are the mean over its windows, but --frames takes the first one",
    )  # fmt: skip
    parser.add_argument("--batch_size", type=cli.positive_int, default=32, help="windows in a batch")
    parser.add_argument(
        "--num_workers", type=cli.non_negative_int, default=loader_workers(), help="processes that decode; 0: the main process"
    )
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    parser.add_argument(
        "--precision", choices=tuple(PRECISIONS), help="of the networks (CUDA: bf16, or fp16 where there is no bf16; CPU: fp32)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.frames:
        refuse_existing_frames(args.output)
    else:
        refuse_existing(args.output)  # before anything is downloaded
    device = pick_device(args.cuda)
    model, clips, settings = load(args)
    model.to(device)
    if args.frames:
        with autocast(device, settings["precision"]):
            rows, left_out = write_frame_logits(model, clips, args.output, settings, args)
        print(
            f"{args.output}: {rows} rows of logits of frames; left out: {left_out} clips that cannot be decoded or have no own name"
        )
        return 0
    writer = LogitsWriter(args.output, model.num_classes, settings)
    repeated = write_logits(model, clips, writer, args, settings["precision"])
    finish(writer, len(clips), repeated)
    return 0


def load(args: argparse.Namespace) -> tuple[EnsembleModel, Mp3Dataset | ShardDataset, dict[str, Any]]:
    """Load the models and open the clips that the options name; returns the settings that the results depend on as well."""
    model = get_ensemble_model(args.models)
    clips = open_clips(args, model.sample_rate, audioset.NUM_CLASSES if args.frames else model.num_classes)
    if not args.frames and model.num_classes != clips.num_classes:
        raise UserError(f"the models have {model.num_classes} classes, AudioSet {clips.num_classes}; give other models or --hdf")
    settings = {
        "models": args.models,
        "weights_sha256": [_digest(member) for member in model.members],
        "files": [os.fspath(path) for path in clips.paths],
        "clips": len(clips),
        "clip_seconds": args.clip_seconds,
        "sample_rate": model.sample_rate,
        "num_classes": model.num_classes,
        "precision": args.precision or default_precision(pick_device(args.cuda)),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    }
    return model, clips, settings


def open_clips(args: argparse.Namespace, sample_rate: int, num_classes: int) -> Mp3Dataset | ShardDataset:
    """Open the clips that the options name, at the models' rate in Hz; `num_classes`, those of HDF5 files, are not used."""
    seconds = args.clip_seconds if args.frames else None
    if args.hdf:
        return Mp3Dataset(args.hdf, num_classes=num_classes, sample_rate=sample_rate, clip_seconds=seconds)
    clips = audioset.training_set(args.dataset_dir, sample_rate=sample_rate, clip_seconds=seconds)
    clips.random_crop = False
    return clips


def finish(writer: LogitsWriter, num_clips: int, repeated: int) -> None:
    """Finish the files and print what they hold, and how many of the clips they do not."""
    undecodable = num_clips - repeated - len(writer.names)
    writer.finish()
    print(f"{writer.output}: {len(writer.names)} rows of {writer.num_classes} logits")
    if undecodable or repeated:
        print(f"left out: {undecodable} clips that cannot be decoded, {repeated} clips whose name an earlier clip has")


def _digest(model: torch.nn.Module) -> str:
    """Return a hash of a model's weights, to notice another checkpoint under the same path."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    cli.run(main)
