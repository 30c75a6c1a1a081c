r"""Write teacher logits to distil from, on one machine or on many.

python -m helpers.archive.logits --models mn40_as_ext mn40_as --dataset_dir data/audioset --output teacher.npy --cuda
python -m helpers.archive.logits --models runs/audioset/best.pt --hdf balanced_train_segments_mp3.hdf --output teacher.npy \
    --address auto

writes teacher.npy, teacher.txt and teacher.json as python -m helpers.distillation with the same options does. A task is one batch
of that command. An interrupted run resumes where it stopped when its command is repeated: what is computed is in the folder
teacher.parts until all is there. With --address, all machines see the data set and the output under the same paths.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from datasets import audioset
from datasets.audio import AudioError
from helpers import cli
from helpers.archive import ordered
from helpers.archive.decode import cpu_seconds, kind
from helpers.archive.inputs import Entry
from helpers.archive.parcels import Address, Parcel, Piece
from helpers.archive.pool import Resources
from helpers.devices import pick_device
from helpers.distillation import __main__ as distillation
from helpers.distillation.writer import (
    LogitsWriter,
    Windowed,
    computing,
    first_of_each,
    mean_logits,
    part_files,
    refuse_existing,
)
from models.ensemble import get_ensemble_model
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from helpers.archive.engine import GivenUp, Staged

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherLogits:
    """Logits of the windows of clips; an entry's offset is the clip's index in the data set. Sent to every worker."""

    args: argparse.Namespace  # of helpers.distillation
    sample_rate: int
    num_classes: int
    precision: str

    @property
    def window(self) -> int:
        return round(self.args.clip_seconds * self.sample_rate)  # samples

    def decoder(self) -> ClipDecoder:
        return ClipDecoder(self)

    def network(self, threads: int | None = None) -> TeacherNetwork:
        return TeacherNetwork(self, threads)


class ClipDecoder:
    """Cuts clips into windows; a task is a parcel."""

    def __init__(self, work: TeacherLogits) -> None:
        self._clips = Windowed(distillation.open_clips(work.args, work.sample_rate, work.num_classes), work.window)
        self._rate = work.sample_rate

    def __call__(
        self, shard: int, task: int, entries: Sequence[Entry], _: Staged, given_up: GivenUp
    ) -> Iterator[tuple[Parcel, np.ndarray]]:
        start = cpu_seconds()
        pieces, samples = [], []
        for number, entry in enumerate(entries):
            item = given_up(number) or self._clips[entry.offset]
            if isinstance(item, AudioError):
                pieces.append(Piece(entry.source, (number, 0), error=str(item), error_kind=kind(item)))
            else:
                samples.append(item[1].numpy().reshape(-1))
                pieces.append(Piece(entry.source, (number, 0), 0.0, len(samples[-1]) / self._rate, len(samples[-1])))
        address, end = Address(shard, task, 0, True), (len(entries), 0)
        parcel = Parcel(address, pieces, end, self._rate, cpu_seconds=cpu_seconds() - start)
        yield parcel, np.concatenate([np.zeros(0, np.float32), *samples])


class TeacherNetwork:
    """The teachers, loaded once."""

    def __init__(self, work: TeacherLogits, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._work = work
        self._model = get_ensemble_model(work.args.models).to(pick_device(work.args.cuda))

    def __call__(self, parcel: Parcel, samples: np.ndarray) -> pa.Table:
        """Return name, logits and error of each clip; no logits where there is an error."""
        import pyarrow as pa

        work = self._work
        counts = [piece.samples // work.window for piece in parcel.pieces if piece.error is None]
        rows: Iterator[list[float]] = iter(())
        if counts:
            waveforms = torch.from_numpy(samples.copy()).reshape(-1, work.window).to(self._model.device)
            with computing(self._model, work.precision):
                rows = iter(mean_logits(self._model, counts, waveforms, work.args.batch_size))
        logits = [next(rows) if piece.error is None else None for piece in parcel.pieces]
        return pa.table(
            {
                "source": pa.array([piece.source for piece in parcel.pieces], pa.string()),
                "logits": pa.array(logits, pa.list_(pa.float32(), work.num_classes)),
                "error": pa.array([piece.error for piece in parcel.pieces], pa.string()),
            }
        )


def build_parser() -> argparse.ArgumentParser:
    parser = distillation.build_parser()
    parser.prog, parser.description = "python -m helpers.archive.logits", __doc__
    ordered.add_options(parser)
    return parser


def with_absolute_paths(args: argparse.Namespace) -> argparse.Namespace:
    """Return options that mean the same in another working directory, as workers may have."""
    hdf = args.hdf and [path.absolute() for path in args.hdf]
    folder = None if args.hdf else audioset.LOCATION.resolve(args.dataset_dir).absolute()
    models = [os.path.abspath(name) if os.path.isfile(name) else name for name in args.models]
    return argparse.Namespace(**vars(args) | {"hdf": hdf, "dataset_dir": folder, "models": models})


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.frames:
        raise UserError("logits of frames are written on one machine, by python -m helpers.distillation --frames")
    refuse_existing(args.output)  # before anything is downloaded
    model, clips, settings = distillation.load(args)
    names = clips.names
    order = first_of_each(names)
    folder = args.output.absolute().with_suffix(".parts")
    if not any(part.exists() for part in part_files(args.output)):  # which hold the settings of what is in the folder
        shutil.rmtree(folder, ignore_errors=True)
    writer = LogitsWriter(args.output, model.num_classes, settings)
    work = TeacherLogits(with_absolute_paths(args), model.sample_rate, model.num_classes, settings["precision"])
    entries = (Entry(names[index], "", None, index, 0, "") for index in order)
    on_gpus = args.cuda and (args.address is not None or pick_device(True).type == "cuda")
    resources = Resources(args.address, gpus_per_network=float(on_gpus))
    batches = ordered.rows(work, entries, folder, args.batch_size, resources)
    writer.truncate(0)
    position = 0
    for batch in batches:
        found, expected = batch["source"].to_pylist(), [names[index] for index in order[position : position + len(batch)]]
        if found != expected:
            raise UserError(f"{folder} is of other clips; remove it to restart")
        position += len(batch)
        for error in batch["error"].drop_null().to_pylist():
            logger.warning("left out: %s", error)
        batch = batch.filter(batch["error"].is_null())
        writer.append(batch["source"].to_pylist(), batch["logits"].flatten().to_numpy().reshape(len(batch), -1))
    distillation.finish(writer, len(clips), len(names) - len(order))
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    cli.run(main)
