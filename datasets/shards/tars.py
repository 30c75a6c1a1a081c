"""Clips of an uncompressed tar in the layout of webdataset: key.flac (or wav, mp3, ...) next to key.json.

A key ends at the first dot of a file's name, as in webdataset. The JSON holds labels, and perhaps the id (see
`datasets.shards.clips`); labels may also stand in key.txt. Nothing is extracted, so names, links and devices in the tar do no harm.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from datasets import audio
from datasets.shards.clips import ShardClip, ShardError, clip_key
from datasets.shards.stored import Stored

_TEXT_BYTES = 2**20  # of a JSON or a text


def read_tar(path: Path) -> Iterator[ShardClip]:
    """Yield the clips of a tar in order; several recordings of a key are several clips. Keys without a recording are clips as well.

    Raises ShardError for what is no tar and, behind the last clip, for a tar that ends too early.
    """
    recordings: dict[str, list[tuple[str, Stored]]] = {}
    records: dict[str, dict[str, Any]] = {}
    damage = None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # it would keep them all
                name = PurePosixPath(member.name).name
                suffix = PurePosixPath(name).suffix.lower()
                key = member.name.removesuffix(name) + name.partition(".")[0]
                if name.startswith(".") or not member.isreg() or member.issparse():
                    continue
                if suffix in audio.SUFFIXES:
                    stored = Stored(path, member.offset_data, member.size, 0, member.size, 0, member.size)
                    recordings.setdefault(key, []).append((name, stored))
                elif suffix in (".json", ".txt"):
                    record = records.setdefault(key, {})
                    record.update(_record(tar, member, suffix) | ({} if suffix == ".json" else record))
    except (tarfile.TarError, OSError, EOFError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        if not recordings:
            raise ShardError(f"{path} cannot be read as an uncompressed tar ({error}); fetch it again, or decompress it") from error
        damage = error
    for key in {**recordings, **records}:
        for name, stored in recordings.get(key, [(f"{key}.missing", None)]):
            record = records.get(key, {})
            yield ShardClip(clip_key(record, name), record, stored)
    if damage:
        raise ShardError(f"{path} is damaged behind its first {len(recordings)} recordings ({damage}); fetch it again") from damage


def _record(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> dict[str, Any]:
    """What a JSON or text says about its key; a message about it, under a key that means nothing, where it cannot be read."""
    if member.size > _TEXT_BYTES:
        return {f"a {suffix} of {member.size} bytes": True}
    content = tar.extractfile(member).read()
    try:
        if suffix == ".txt":
            return {"labels": content.decode()}
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {f"an unreadable {suffix}": True}
    return record if isinstance(record, dict) else {"labels": record}
