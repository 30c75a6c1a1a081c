"""Shards on disk: parquet files and tars."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.shards.clips import ShardClip
from datasets.shards.parquet import read_parquet
from datasets.shards.tars import read_tar

SUFFIXES = (".parquet", ".tar")


def find_shards(sources: Sequence[str | Path], suffix: str) -> list[Path]:
    """The files of a suffix in folders and their subfolders, and those that are named or matched by a pattern, sorted.

    Hidden files and folders do not count. Raises FileNotFoundError for a source that has none.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            pattern = str(Path(glob.escape(str(path)), "**", f"*{suffix}"))
        else:
            pattern = glob.escape(str(path)) if path.exists() else str(path)
        files = [
            Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if name.endswith(suffix) and Path(name).is_file()
        ]
        if not files:
            raise FileNotFoundError(f"{source} is no *{suffix} file, no folder of such files and no pattern that matches one")
        found.update(dict.fromkeys(files))
    return list(found)


def read_shard(path: Path) -> Iterator[ShardClip]:
    """Yield the clips of a parquet file or a tar; errors as in `read_parquet` and `read_tar`."""
    return read_parquet(path) if path.suffix == ".parquet" else read_tar(path)
