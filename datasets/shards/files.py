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

    Hidden files and folders do not count, and links to folders are not followed. Raises FileNotFoundError where there are none.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.rglob(f"*{suffix}") if not _is_hidden(file.relative_to(path)))
        else:
            inside = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        files = [file for file in inside if file.suffix == suffix and file.is_file()]
        if not files:
            packed = "; decompress it first" if suffix in path.suffixes and path.is_file() else ""
            raise FileNotFoundError(
                f"{source} is no *{suffix} file, no folder of such files and no pattern that matches one{packed}"
            )
        found.update(dict.fromkeys(files))
    return list(found)


def read_shard(path: Path) -> Iterator[ShardClip]:
    """Yield the clips of a parquet file or a tar; errors as in `read_parquet` and `read_tar`."""
    return read_parquet(path) if path.suffix == ".parquet" else read_tar(path)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
