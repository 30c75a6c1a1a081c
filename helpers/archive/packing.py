"""Turn AudioSet into the HDF5 file that training and evaluation read, on one machine or on many.

python -m helpers.archive.packing --csv eval_segments.csv --audio_dir eval_audio --output data/audioset/eval_segments_mp3.hdf
python -m helpers.archive.packing --parquet hub/data/eval --output data/audioset/eval_segments_mp3.hdf --address auto

has the options of python -m datasets.prepare.audioset and writes the same bytes. The workers convert; this process writes the HDF5
file at the end, from what they left in the folder <output>.parts, which takes as much space again until then. An interrupted run
resumes where it stopped. With --address, all machines see recordings and output under the same paths.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.decoding.isolated import Decoders
from datasets.prepare import audioset
from datasets.prepare.conversion import Converted, Recording, Source, convert
from datasets.shards.stored import Stored
from helpers import cli
from helpers.archive import ordered
from helpers.archive.decode import cpu_seconds, kind
from helpers.archive.inputs import Entry
from helpers.archive.parcels import Address, Parcel, Piece
from helpers.archive.pool import Resources
from models.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from helpers.archive.engine import GivenUp, Staged

TASK_RECORDINGS = 64


@dataclass(frozen=True)
class Packing:
    """Conversion to mono 32 kHz mp3s; an entry's address is its sources. Sent to every worker."""

    def decoder(self) -> RecordingConverter:
        return RecordingConverter()

    def network(self, threads: int | None = None) -> PackedTable:
        return PackedTable()


class RecordingConverter:
    """Converts recordings in a process that may crash or hang; a task is a parcel, whose samples are mp3s."""

    def __init__(self) -> None:
        self._decoders = ExitStack().enter_context(Decoders())

    def __call__(
        self, shard: int, task: int, entries: Sequence[Entry], _: Staged, given_up: GivenUp
    ) -> Iterator[tuple[Parcel, np.ndarray]]:
        start = cpu_seconds()
        pieces, converted = [], []
        for number, entry in enumerate(entries):
            recording = Recording(entry.source, read_sources(entry.address), ())
            result = given_up(number) or convert(self._decoders, recording)
            failed = isinstance(result, Exception)
            error = {"error": str(result), "error_kind": kind(result)} if failed else {}
            pieces.append(Piece(entry.source, (number, 0), **error))
            converted.append(None if failed else result)
        address, end = Address(shard, task, 0, True), (len(entries), 0)
        yield Parcel(address, pieces, end, rate=1, cpu_seconds=cpu_seconds() - start), to_samples(converted)


class PackedTable:
    """Makes rows of what is converted."""

    def __call__(self, parcel: Parcel, samples: np.ndarray) -> pa.Table:
        import pyarrow as pa

        converted = from_samples(samples) if len(samples) else [None] * len(parcel.pieces)  # given up, as a worker ended
        columns = {
            "source": ([piece.source for piece in parcel.pieces], pa.string()),
            "mp3": ([one and one.mp3 for one in converted], pa.large_binary()),
            "damage": ([one and one.damage for one in converted], pa.list_(pa.string())),
            "unused": ([one and one.unused for one in converted], pa.list_(pa.string())),
            "error": ([piece.error for piece in parcel.pieces], pa.string()),
        }
        return pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})


def to_samples(converted: list[Converted | None]) -> np.ndarray:
    """Return recordings as the float32 numbers that the engine carries."""
    content = pickle.dumps(converted)
    return np.frombuffer(content + bytes(-len(content) % 4), np.float32)


def from_samples(samples: np.ndarray) -> list[Converted | None]:
    return pickle.loads(samples.tobytes())


def write_sources(sources: Sequence[Source]) -> str:
    """Return the sources of a recording as text for the plan."""

    def path(source: Source) -> str | list:
        return [str(source.path.path), *source.path[1:]] if isinstance(source.path, Stored) else str(source.path)

    return json.dumps([(path(source), source.segment) for source in sources])


def read_sources(text: str) -> tuple[Source, ...]:
    def path(stored: str | list) -> Path | Stored:
        return Path(stored) if isinstance(stored, str) else Stored(Path(stored[0]), *stored[1:])

    return tuple(Source(path(stored), segment and tuple(segment)) for stored, segment in json.loads(text))


def build_parser() -> argparse.ArgumentParser:
    parser = audioset.build_parser()
    parser.prog, parser.description = "python -m helpers.archive.packing", __doc__
    ordered.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    folder = args.output.absolute().with_name(f"{args.output.name}.parts")
    args.audio_dir = args.audio_dir and args.audio_dir.absolute()  # workers may have another working directory
    for name in ("parquet", "webdataset"):
        setattr(args, name, getattr(args, name) and [os.path.abspath(path) for path in getattr(args, name)])

    def converter(recordings: Sequence[Recording]) -> Iterator[tuple[Recording, Converted | Exception]]:
        wanted = {recording.name: recording for recording in recordings}
        entries = (Entry(one.name, write_sources(one.sources), None, None, 0, "") for one in recordings)
        batches = ordered.rows(Packing(), entries, folder, TASK_RECORDINGS, Resources(args.address)) if wanted else ()
        for row in (row for batch in batches for row in batch.to_pylist()):
            if recording := wanted.pop(row["source"], None):  # not those that an earlier run wrote to the file
                is_error = row["error"] is not None
                yield recording, UserError(row["error"]) if is_error else Converted(row["mp3"], row["damage"], row["unused"])
        if wanted:
            raise UserError(f"{folder} is of other recordings, without {next(iter(wanted))}; remove it to restart")

    code = audioset.prepare(args, converter)
    shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    cli.run(main)
