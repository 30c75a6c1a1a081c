"""Knowledge distillation from stored logits: a teacher's opinion of each clip, found by the clip's name.

python -m helpers.distillation --models mn40_as_ext mn40_as --dataset_dir data/audioset --output teacher.npy --cuda
python -m helpers.distillation --models runs/audioset/best.pt --hdf balanced_train_segments_mp3.hdf --output teacher.npy

writes such logits: the mean over the models, (N, K) float16, in teacher.npy; the clips' names, one a line in the order of the
rows, in teacher.txt; how they came about in teacher.json. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets import audioset
from datasets.audio import AudioError
from datasets.clip import Clip, TaughtClip
from datasets.hdf5_mp3 import Mp3Dataset
from helpers import cli
from helpers.losses import bce_per_clip
from helpers.teacher_logits import LogitsWriter, TeacherLogits, check_preds, read_pickle, refuse_existing
from models import assets
from models.assets import AssetError
from models.ensemble import EnsembleModel, get_ensemble_model

logger = logging.getLogger(__name__)

PREDS_ASSET = "passt_enemble_logits_mAP_495.npy"  # the release's spelling
INDEX_ASSET = "fname_to_index.pkl"


class Taught(Dataset):
    """A data set of `Clip` that yields `TaughtClip`: with sigmoid(logits / temperature) and weight 1 where the teacher has logits.

    Elsewhere both are 0.
    """

    def __init__(self, clips: Dataset[Clip], teacher: TeacherLogits, temperature: float = 1.0) -> None:
        """ValueError unless `temperature` is above 0."""
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.clips = clips
        self.teacher = teacher
        self.temperature = temperature

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> TaughtClip:
        clip = self.clips[index]
        logits = self.teacher.row(clip.name)
        if logits is None:
            return TaughtClip(*clip, teacher=torch.zeros(self.teacher.num_classes), teacher_weight=torch.tensor(0.0))
        said = torch.sigmoid(torch.from_numpy(logits) / self.temperature)
        return TaughtClip(*clip, teacher=said, teacher_weight=torch.tensor(1.0))


def taught_bce_per_clip(logits: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    """Binary cross entropy against a teacher: logits (B, K), teacher (B, K) in [0, 1], teacher_weight (B,) -> (B,)."""
    return teacher_weight * bce_per_clip(logits, teacher)


def add_distillation_options(parser: argparse.ArgumentParser) -> None:
    """Options of a teacher's stored logits and of what they count for."""
    group = parser.add_argument_group("distillation")
    group.add_argument(
        "--teacher_preds", type=Path, metavar="NPY", help=f"the teacher's logits, (clips, classes) (the release's {PREDS_ASSET})"
    )
    group.add_argument(
        "--fname_to_index", type=Path, metavar="FILE",
        help="names of their rows: a .txt, one name a line in their order, or a .pkl of a dict from name to row (the .txt beside "
        f"--teacher_preds if there is one, else the release's {INDEX_ASSET})",
    )  # fmt: skip
    group.add_argument(
        "--kd_lambda", type=cli.unit_interval, default=0.1,
        help="share of the labels in the loss, 0 to 1; the rest is the teacher's. 1 trains on labels alone and needs no teacher",
    )  # fmt: skip
    group.add_argument("--temperature", type=cli.positive_float, default=1.0, help="what the teacher's logits are divided by")


def load_teacher(args: argparse.Namespace, names: Iterable[str], num_classes: int) -> TeacherLogits:
    """Open the teacher that the options name, or the release's, for a data set's clips; logs how many of them it knows.

    Raises FileNotFoundError for a given path that is not there, AssetError where a download fails, and ValueError.
    """
    preds, index = args.teacher_preds, args.fname_to_index
    for option, path in (("--teacher_preds", preds), ("--fname_to_index", index)):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{option} {path} not found; correct it, or leave it out to use the release's")
    if preds is not None and index is None and preds.with_suffix(".txt").is_file():
        index = preds.with_suffix(".txt")
    index = index or _fetch(INDEX_ASSET, lambda path: all(True for _ in read_pickle(path)))
    preds = preds or _fetch(PREDS_ASSET, lambda path: check_preds(path, num_classes))
    teacher = TeacherLogits(preds, index, names, num_classes)
    logger.info("teacher: %d of %d clips have a row in %s", teacher.covered, teacher.clips, preds.name)
    if not teacher.covered:
        logger.warning(
            "THE TEACHER KNOWS NONE OF THE CLIPS, so nothing is distilled: the data set has names like %r, %s like %r",
            teacher.examples[0], index, teacher.examples[1],
        )  # fmt: skip
    return teacher


def _fetch(asset: str, check: Callable[[Path], Any]) -> Path:
    """As `assets.fetch`, for checks that raise ValueError."""

    def check_asset(path: Path) -> None:
        try:
            check(path)
        except ValueError as error:
            raise AssetError(str(error).replace(os.fspath(path), asset)) from error

    try:
        return assets.fetch(asset, check_asset)
    except AssetError as error:
        raise AssetError(f"{error}; --kd_lambda 1 trains without a teacher") from error


def windows(waveform: Tensor, length: int) -> Tensor:
    """Cover (samples,) with windows, (n, length): one after the other, the last flush with the end.

    A waveform shorter than `length` samples is padded with zeros, one longer by up to a tenth, as decoded mp3s are, cut.
    """
    if len(waveform) <= 1.1 * length:
        waveform = waveform[:length]
        return torch.nn.functional.pad(waveform, (0, length - len(waveform)))[None]
    starts = [*range(0, len(waveform) - length, length), len(waveform) - length]
    return torch.stack([waveform[start : start + length] for start in starts])


class Windowed(Dataset):
    """A data set of whole clips that yields a name and the clip's windows, (n, length), or the error of decoding it."""

    def __init__(self, clips: Dataset[Clip], length: int) -> None:
        self.clips = clips
        self.length = length  # samples

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[str, Tensor] | AudioError:
        try:
            clip = self.clips[index]
        except AudioError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                raise  # the machine failed (too many open files, a disk that cannot be read), not the recording
            return error
        return clip.name, windows(clip.waveform, self.length)

    def collate(self, items: Sequence[tuple[str, Tensor] | AudioError]) -> tuple[list[str], list[int], Tensor, list[str]]:
        """Return names, numbers of windows, all windows in one tensor, and messages of the clips that cannot be decoded."""
        clips = [item for item in items if not isinstance(item, AudioError)]
        together = torch.cat([torch.empty(0, self.length), *(item[1] for item in clips)])
        errors = [str(item) for item in items if isinstance(item, AudioError)]
        return [item[0] for item in clips], [len(item[1]) for item in clips], together, errors


def write_logits(model: EnsembleModel, clips: Mp3Dataset, writer: LogitsWriter, args: argparse.Namespace) -> int:
    """Append the logits of all clips, each the mean over its windows, and return the number of clips of a name seen before.

    Clips are worked through in groups of `args.batch_size`, and an interrupted run goes on with a whole group: so its batches,
    on which the last bits of a result depend, are those of an uninterrupted run. Clips that cannot be decoded are logged.
    """
    names = clips.names
    if any("\n" in name or "\r" in name for name in names):
        raise ValueError("a clip's name holds an end of line, and the index has one name a line; rename the clip")
    order = np.sort(np.unique(np.array(names), return_index=True)[1]).tolist()  # clips whose name was not there before
    place = {names[index]: position for position, index in enumerate(order)}
    done = [place.get(name, -1) for name in writer.names]
    if -1 in done or done != sorted(set(done)):
        raise ValueError(f"{writer.parts[1]} names other clips than the data set has; remove the .part files to start anew")
    start = (done[-1] + 1) // args.batch_size * args.batch_size if done else 0
    writer.truncate(bisect_left(done, start))
    windowed = Windowed(clips, round(args.clip_seconds * model.sample_rate))
    loader = DataLoader(
        windowed, args.batch_size, sampler=order[start:], num_workers=args.num_workers, collate_fn=windowed.collate
    )  # fmt: skip
    with (
        tqdm(total=len(order), initial=start, desc="teacher", unit="clip", leave=False, disable=None) as progress,
        torch.inference_mode(),
    ):
        for group, counts, waveforms, errors in loader:
            for error in errors:
                logger.warning("left out: %s", error)
            if group:
                logits = torch.cat([model(part.to(model.device))[0].float().cpu() for part in waveforms.split(args.batch_size)])
                writer.append(group, torch.stack([of_clip.mean(0) for of_clip in logits.split(counts)]).numpy())
            progress.update(len(group) + len(errors))
    return len(names) - len(order)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.distillation", description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="NAME", help="models whose logits are averaged: names or paths"
    )
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--hdf", nargs="+", type=Path, metavar="FILE", help="HDF5 files of mp3s")
    data.add_argument("--dataset_dir", type=Path, help="folder in AudioSet's format, for its training files")
    parser.add_argument("--output", type=Path, required=True, metavar="NPY", help="file to write; a .txt and a .json go beside it")
    parser.add_argument(
        "--clip_seconds", type=cli.positive_float, default=10.0,
        help="length of what the models hear at a time; the logits of longer clips are the mean over such windows",
    )  # fmt: skip
    workers = min(12, os.cpu_count() or 1)
    parser.add_argument("--batch_size", type=cli.positive_int, default=32, help="windows in a batch")
    parser.add_argument(
        "--num_workers", type=cli.non_negative_int, default=workers, help="processes that decode; 0: the command's own"
    )
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    refuse_existing(args.output)  # before anything is downloaded
    model = get_ensemble_model(args.models)
    if args.hdf:
        clips = Mp3Dataset(args.hdf, num_classes=model.num_classes, sample_rate=model.sample_rate, clip_seconds=None)
    else:
        clips = audioset.training_set(args.dataset_dir, sample_rate=model.sample_rate, clip_seconds=None)
    if model.num_classes != clips.num_classes:
        raise ValueError(f"the models have {model.num_classes} classes, AudioSet {clips.num_classes}; give other models or --hdf")
    settings = {
        "models": args.models,
        "weights_sha256": [_digest(member) for member in model.members],
        "files": [os.fspath(path) for path in clips.paths],
        "clips": len(clips),
        "clip_seconds": args.clip_seconds,
        "sample_rate": model.sample_rate,
        "num_classes": model.num_classes,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__},
    }
    writer = LogitsWriter(args.output, model.num_classes, settings)
    repeated = write_logits(model.to(cli.pick_device(args.cuda)), clips, writer, args)
    undecodable = len(clips) - repeated - len(writer.names)
    writer.finish()
    print(f"{args.output}: {len(writer.names)} rows of {model.num_classes} logits")
    if undecodable or repeated:
        print(f"left out: {undecodable} clips that cannot be decoded, {repeated} clips of a name that was there before")
    return 0


def _digest(model: torch.nn.Module) -> str:
    """Return a hash of a model's weights, which tells apart checkpoints of one path."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    cli.run(main)
