"""Find files of the same bytes."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_HEAD_BYTES = 65536


def groups_of_same_content(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the groups of two or more files with the same bytes, each in the order of `paths`.

    Only files of one size are opened, and only those with the same first 64 KiB are read to the end.
    """
    groups = [list(paths)]
    with ThreadPoolExecutor() as pool:
        for key in (os.path.getsize, lambda path: _digest(path, _HEAD_BYTES), _digest):
            finer = []
            for group in groups:
                by_key = defaultdict(list)
                for path, value in zip(group, pool.map(key, group), strict=True):
                    by_key[value].append(path)
                finer += [same for same in by_key.values() if len(same) > 1]
            groups = finer
    return groups


def _digest(path: Path, size: int | None = None) -> bytes:
    """Hash of a file, or of its first `size` bytes."""
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        while block := file.read(size or 1 << 20):
            digest.update(block)
            if size:
                break
    return digest.digest()
