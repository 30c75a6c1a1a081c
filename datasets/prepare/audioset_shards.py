"""Write a folder of AudioSet's HDF5 files, or one in that layout, as the shards that the Hugging Face Hub and webdataset have.

    python -m datasets.prepare.audioset_shards --from data/opensounds --format parquet --output_dir data/opensounds_parquet

The mp3s are copied byte for byte. So the open corpus becomes a stand-in for AudioSet's shards, to try training on them. A folder of
shards appears when it is complete, and one that is there is kept: after an interruption the same command resumes.
"""

import argparse
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.audioset import NUM_CLASSES
from datasets.hdf5_mp3 import read_entries
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare.command_line import command_parser
from models.command import run
from models.errors import UserError
from models.files import replacing, replacing_folder

FOLDERS = {"balanced_train": "bal_train", "unbalanced_train": "unbal_train", "eval": "eval"}  # the Hub's names
_SHARD_CLIPS, _ROW_GROUP_CLIPS = 1000, 100


class StoredClip(NamedTuple):
    """A clip as shards hold it."""

    video_id: str
    recording: bytes
    suffix: str  # of the recording's format, with the dot
    classes: tuple[int, ...]

    @property
    def mids(self) -> list[str]:
        return [audioset_mids()[index] for index in self.classes]

    @property
    def labels(self) -> list[str]:
        return [audioset_labels()[index] for index in self.classes]


def write_parquet(path: Path, clips: Iterable[StoredClip]) -> None:
    """Write clips in the Hub's layout, 100 in a row group: video_id, audio {bytes, path}, labels (MIDs), human_labels."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = pa.list_(pa.string())
    schema = pa.schema([("video_id", pa.string()), ("audio", audio), ("labels", texts), ("human_labels", texts)])
    with replacing(path) as temporary, ParquetWriter(temporary, schema) as writer:
        for group in _groups(clips, _ROW_GROUP_CLIPS):
            rows = [
                {
                    "video_id": clip.video_id,
                    "audio": {"bytes": clip.recording, "path": clip.video_id + clip.suffix},
                    "labels": clip.mids,
                    "human_labels": clip.labels,
                }
                for clip in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def write_tar(path: Path, clips: Iterable[StoredClip]) -> None:
    """Write clips in webdataset's layout: <video_id>.<suffix> and <video_id>.json with video_id and labels (MIDs)."""
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for clip in clips:
            about = json.dumps({"video_id": clip.video_id, "labels": clip.mids}).encode()
            for name, content in ((clip.video_id + clip.suffix, clip.recording), (f"{clip.video_id}.json", about)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


FORMATS: dict[str, Callable[[Path, Iterable[StoredClip]], None]] = {"parquet": write_parquet, "tar": write_tar}


def read_clips(path: Path) -> Iterator[StoredClip]:
    """Yield the clips of an HDF5 file of mp3s in AudioSet's classes. Raises FileNotFoundError and Hdf5Error."""
    for name, mp3, target in read_entries(path, NUM_CLASSES):
        yield StoredClip(name.removeprefix("Y").removesuffix(".mp3"), mp3, ".mp3", tuple(target.nonzero()[0].tolist()))


def _groups(clips: Iterable[StoredClip], size: int) -> Iterator[list[StoredClip]]:
    clips = iter(clips)
    while group := list(itertools.islice(clips, size)):
        yield group


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("audioset_shards", __doc__)
    parser.add_argument("--from", dest="source", required=True, type=Path, help="folder of *_segments_mp3.hdf files")
    parser.add_argument("--format", required=True, choices=FORMATS, help="parquet as on the Hub, or tar as for webdataset")
    parser.add_argument(
        "--output_dir", required=True, type=Path, help="folder to write, which gets bal_train, unbal_train and eval"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    files = {part: args.source / f"{part}_segments_mp3.hdf" for part in FOLDERS}
    files = {part: path for part, path in files.items() if path.is_file()}
    if not files:
        raise FileNotFoundError(f"{args.source} has none of {', '.join(f'{part}_segments_mp3.hdf' for part in FOLDERS)}")
    for part, source in files.items():
        folder = args.output_dir / FOLDERS[part]
        if list(folder.glob(f"*.{args.format}")):
            print(f"{folder}: there already; remove it to write it again")
            continue
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists; remove it or give another --output_dir")
        count = 0
        with replacing_folder(folder) as building:
            for number, clips in enumerate(_groups(read_clips(source), _SHARD_CLIPS)):
                FORMATS[args.format](building / f"{number:03d}.{args.format}", clips)
                count += len(clips)
            if not count:
                raise UserError(f"{source} holds no clips")
        print(f"{folder}: {count} clips")
    return 0


if __name__ == "__main__":
    run(main)
