"""Write teacher logits."""

from __future__ import annotations

import argparse
import json
import logging
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.audio import AudioError
from datasets.clip import Clip
from datasets.hdf5_mp3 import Mp3Dataset
from helpers.devices import copied_ahead
from helpers.training.evaluation import autocast, suit_device
from models.ensemble import EnsembleModel
from models.errors import UserError
from models.files import publish, remove_leftovers, write_bytes

logger = logging.getLogger(__name__)

FLOAT16_MAX = 65504
_HEADER_BYTES = 128  # of a .npy file


def windows(waveform: Tensor, length: int) -> Tensor:
    """Cover (samples,) with windows, (n, length): one after the other, the last one ends with the waveform.

    A waveform shorter than `length` samples is padded with zeros, one longer by up to a tenth, as decoded mp3s are, cut.
    """
    if len(waveform) <= 1.1 * length:
        waveform = waveform[:length]
        return torch.nn.functional.pad(waveform, (0, length - len(waveform)))[None]
    starts = [*range(0, len(waveform) - length, length), len(waveform) - length]
    return torch.stack([waveform[start : start + length] for start in starts])


def clip_or_error(clips: Dataset[Clip], index: int) -> Clip | AudioError:
    """Return a clip, or the error of decoding it; an error of the machine (too many open files, a broken disk) is raised."""
    try:
        return clips[index]
    except AudioError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise
        return error


class Windowed(Dataset):
    """A data set of full-length clips that yields a clip's name and its windows, (n, length), or the error of decoding it."""

    def __init__(self, clips: Dataset[Clip], length: int) -> None:
        self.clips = clips
        self.length = length  # samples

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[str, Tensor] | AudioError:
        clip = clip_or_error(self.clips, index)
        return clip if isinstance(clip, AudioError) else (clip.name, windows(clip.waveform, self.length))

    def collate(self, items: Sequence[tuple[str, Tensor] | AudioError]) -> tuple[list[str], list[int], Tensor, list[str]]:
        """Return names, numbers of windows, all windows in one tensor, and messages of the clips that cannot be decoded."""
        clips = [item for item in items if not isinstance(item, AudioError)]
        together = torch.cat([torch.empty(0, self.length), *(item[1] for item in clips)])
        errors = [str(item) for item in items if isinstance(item, AudioError)]
        return [item[0] for item in clips], [len(item[1]) for item in clips], together, errors


def write_logits(
    model: EnsembleModel, clips: Mp3Dataset, writer: LogitsWriter, args: argparse.Namespace, precision: str = "fp32"
) -> int:
    """Append the logits of all clips, each the mean over its windows, and return the number of repeated names, left out.

    Clips are processed in groups of `args.batch_size`, and an interrupted run resumes with a whole group: so its batches, on which
    the last bits of a result depend, are those of an uninterrupted run. Clips that cannot be decoded are logged. The networks
    compute in `precision`.
    """
    names = clips.names
    order = first_of_each(names)
    place = {names[index]: position for position, index in enumerate(order)}
    done = [place.get(name, -1) for name in writer.names]
    if -1 in done or done != sorted(set(done)):
        raise UserError(f"{writer.parts[1]} names other clips than the data set has; remove the .part files to restart")
    start = (done[-1] + 1) // args.batch_size * args.batch_size if done else 0
    writer.truncate(bisect_left(done, start))
    windowed = Windowed(clips, round(args.clip_seconds * model.sample_rate))
    device = model.device
    loader = DataLoader(
        windowed, args.batch_size, sampler=order[start:], num_workers=args.num_workers, collate_fn=windowed.collate,
        pin_memory=device.type == "cuda",
    )  # fmt: skip

    def copy(batch: tuple[list[str], list[int], Tensor, list[str]]) -> tuple[tuple, list[Tensor]]:
        group, counts, waveforms, errors = batch
        waveforms = waveforms.to(device, non_blocking=True)
        return (group, counts, waveforms, errors), [waveforms]

    with (
        tqdm(total=len(order), initial=start, desc="teacher", unit="clip", leave=False, disable=None) as progress,
        computing(model, precision),
    ):
        for group, counts, waveforms, errors in copied_ahead(loader, copy, device):
            for error in errors:
                logger.warning("left out: %s", error)
            if group:
                writer.append(group, mean_logits(model, counts, waveforms, args.batch_size))
            progress.update(len(group) + len(errors))
    return len(names) - len(order)


def first_of_each(names: Sequence[str]) -> list[int]:
    """Return the indices of the clips that get a row: the first one of each name. UserError for a name that no index can hold."""
    if any("\n" in name or "\r" in name for name in names):
        raise UserError("a clip's name holds an end of line, and the index has one name per line; rename the clip")
    return np.sort(np.unique(np.array(names), return_index=True)[1]).tolist()


@contextmanager
def computing(model: EnsembleModel, precision: str) -> Iterator[None]:
    """Within this, the model computes as logits are written, whatever writes them."""
    suit_device(model, model.device)
    with torch.inference_mode(), autocast(model.device, precision):
        yield


def mean_logits(model: EnsembleModel, counts: Sequence[int], waveforms: Tensor, batch_size: int) -> np.ndarray:
    """Mean logits of clips over their windows, (clips, K) float32; `counts` are the clips' shares of `waveforms` (n, samples)."""
    logits = torch.cat([model(batch)[0].float() for batch in waveforms.split(batch_size)]).cpu()
    return torch.stack([of_clip.mean(0) for of_clip in logits.split(counts)]).numpy()


class LogitsWriter:
    """Write teacher.json, teacher.txt and, when all is complete, teacher.npy.

    Until then they are `.part` files; the header of the .npy is of no rows. The next writer with the same settings resumes with
    them: after a kill or a full disk the rows that were written whole are kept.
    """

    def __init__(self, output: Path, num_classes: int, settings: dict[str, Any]) -> None:
        """`settings`, plain data, becomes the .json. Raises FileExistsError, and ValueError for parts with other settings."""
        self.output = output
        self.parts = about, names, rows = part_files(output)
        self.num_classes, self._row_bytes = num_classes, 2 * num_classes
        refuse_existing(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        for part in (about, names):  # a writer was killed while it finished
            if part.with_suffix("").exists():
                os.replace(part.with_suffix(""), part)
        if any(part.exists() for part in self.parts):
            _check_settings(about, settings)
        else:
            write_bytes(about, (json.dumps(settings, indent=2) + "\n").encode())
        remove_leftovers(about)
        names.touch()
        rows.touch()
        self._write_header(0)
        lines = names.read_bytes().split(b"\n")[:-1]  # what follows the last end of line is not whole
        num_rows = (rows.stat().st_size - _HEADER_BYTES) // self._row_bytes
        self.names = [line.decode() for line in lines[:num_rows]]  # of the rows that are there
        self.truncate(len(self.names))

    def truncate(self, num_rows: int) -> None:
        """Keep the first `num_rows` rows."""
        self.names = self.names[:num_rows]
        _, names, rows = self.parts
        os.truncate(names, sum(len(name.encode()) + 1 for name in self.names))
        os.truncate(rows, _HEADER_BYTES + num_rows * self._row_bytes)

    def append(self, names: Sequence[str], logits: np.ndarray) -> None:
        """Append rows, (n, K), clipped to the range of float16. ValueError if they are not finite."""
        for name, row in zip(names, logits, strict=True):
            if not np.isfinite(row).all():
                raise UserError(f"the logits of {name} are not finite; check the models")
        with open(self.parts[2], "ab") as file:
            file.write(np.clip(logits, -FLOAT16_MAX, FLOAT16_MAX).astype("<f2").tobytes())
        with open(self.parts[1], "ab") as file:
            file.write("".join(f"{name}\n" for name in names).encode())
        self.names += names

    def finish(self) -> None:
        """Give the files their names, the .npy last, or, with no row in them, remove them and raise ValueError."""
        if not self.names:
            for part in self.parts:
                part.unlink()
            raise UserError(f"none of the clips could be decoded, so {self.output} was not written")
        self.truncate(len(self.names))
        self._write_header(len(self.names))
        for part in self.parts:
            publish(part, part.with_suffix(""))

    def _write_header(self, num_rows: int) -> None:
        """Write the first 128 bytes of the .npy, as numpy does for up to 10^21 rows."""
        with open(self.parts[2], "r+b") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (num_rows, self.num_classes)}
            np.lib.format.write_array_header_1_0(file, header)


def refuse_existing(output: Path) -> None:
    """Raise FileExistsError if an output is there that no interrupted writer left, ValueError if it is not called .npy."""
    if output.suffix != ".npy":
        raise UserError(f"--output {output} must end in .npy")
    about, names, rows = part_files(output)
    # A writer that was killed while it finished leaves rows, and a .json and a .txt that are no longer parts.
    left = [part.with_suffix("") for part in (about, names) if rows.exists() and not part.exists()]
    for path in (output, names.with_suffix(""), about.with_suffix("")):
        if path.exists() and path not in left:
            raise FileExistsError(f"{path} exists; remove it or write to another --output")


def part_files(output: Path) -> tuple[Path, Path, Path]:
    """Return what is written for an --output until all is complete: settings, names and rows."""
    return output.with_suffix(".json.part"), output.with_suffix(".txt.part"), output.with_suffix(".npy.part")


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    # What was written before there was a choice was computed in float32.
    found, settings = ({"precision": "fp32"} | one for one in (found, json.loads(json.dumps(settings))))
    differing = sorted(key for key in settings.keys() | found.keys() if settings.get(key) != found.get(key))
    if differing:
        raise UserError(
            f"{path} was written with other settings ({', '.join(differing)}); repeat that command to resume, or remove the "
            ".part files next to it to restart"
        )
