"""`ShardDataset`: clips read at random from parquet files and tars, by an index of where each one lies."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from datasets import audio
from datasets.audio import AudioError
from datasets.clip import Clip, ClipDataset
from datasets.damage_log import DamageLog
from datasets.shards.clips import ShardError, clip_name
from datasets.shards.files import read_shard
from datasets.shards.stored import Stored
from models.errors import UserError
from models.files import write_atomically

_VERSION = b"1"  # of the index
_STORED = (("offset", "i8"), ("stored", "u4"), ("codec", "u1"), ("size", "u4"), ("skip", "u4"), ("length", "u4"))
_NAME_BYTES = 32

logger = logging.getLogger(__name__)


class ShardDataset(ClipDataset):
    """Read clips from parquet files and tars, which count as one, in the order given.

    The first time, all clips are looked at once and an index is written: 139 bytes a clip of AudioSet, mapped into memory and so
    shared by all processes. It is built again when a file was replaced. Clips without a readable recording, without labels of
    AudioSet, or with a name that was there before are left out, which is logged. Nothing is kept open, so a data set can be
    pickled, forked and used by any number of loader workers.
    """

    def __init__(self, paths: Sequence[str | Path], index: str | Path, *, num_classes: int, **options: Any) -> None:
        """`index` is the path of the index without its suffix; `options` are those of `ClipDataset`.

        Raises ShardError for a file that is damaged or of another layout, and UserError when no clip can be used.
        """
        super().__init__(**options)
        self.paths = [Path(path) for path in paths]
        self.num_classes = num_classes
        self._index_path = Path(f"{index}.{_fingerprint(self.paths, num_classes)}.npy")
        self._index = _load(self._index_path)
        if self._index is None:
            self._index = _build(self.paths, num_classes)
            self._save(Path(index))
        self._damage_log = DamageLog(len(self))

    def _save(self, index: Path) -> None:
        try:
            write_atomically(self._index_path, lambda file: np.save(file, self._index))
        except OSError as error:
            logger.warning("the index of %s cannot be kept (%s); it is built again each time", self.paths[0].parent, error)
            return
        for old in index.parent.glob(f"{index.name}.????????????.npy"):
            if old != self._index_path:
                old.unlink(missing_ok=True)
        self._index = _load(self._index_path)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"_index": None} if isinstance(self._index, np.memmap) else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._index is None:
            self._index = _load(self._index_path)
            if self._index is None:
                raise UserError(f"{self._index_path} is gone; open the data set again")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Clip:
        """Clip of a global index, as in `Mp3Dataset`.

        Raises IndexError, and AudioError for a recording that cannot be read or decoded; it names file, index and clip.
        """
        index = self._position(index)
        recording, target, name, where = self.read(index)
        warnings: list[str] = []
        waveform = audio.load(recording, self.sample_rate, seconds=self._head_seconds, name=where, warnings=warnings)
        self._damage_log(index, warnings)
        waveform = self._cut(waveform)
        return Clip(torch.from_numpy(waveform), torch.from_numpy(target).float(), name, index)

    def read(self, index: int) -> tuple[bytes, np.ndarray, str, str]:
        """A clip's recording as it is stored, its target, (K,) uint8, its name, and what errors call it. Raises AudioError."""
        row = self._index[index]
        name = row["name"].decode()
        stored = Stored(self.paths[row["file"]], *(int(row[key]) for key, _ in _STORED))
        where = f"{name}, clip {index} (in {stored.path})"
        try:
            return stored.read(), np.unpackbits(row["target"], count=self.num_classes), name, where
        except OSError as error:
            raise AudioError(f"{where} cannot be read ({error}); is the file complete?") from error

    @property
    def names(self) -> list[str]:
        """Names of all clips by index: Y<YouTube id>.mp3, as in AudioSet's HDF5 files, or the shard's own."""
        return [name.decode() for name in self._index["name"].tolist()]

    def targets(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Targets of the clips start to stop - 1, (n, K) uint8 of 0 and 1, without touching the recordings."""
        return np.unpackbits(self._index["target"][start:stop], axis=1, count=self.num_classes)

    def lengths(self) -> np.ndarray:
        return -(-self._index["samples"] * self.sample_rate // self._index["rate"])


def _fingerprint(paths: Sequence[Path], num_classes: int) -> str:
    """Twelve characters that change when a file is replaced."""
    digest = hashlib.sha256(_VERSION + b"%d" % num_classes)
    for path in paths:
        status = path.stat()
        digest.update(f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]


def _load(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError):  # not there, or cut
        return None


def _build(paths: Sequence[Path], num_classes: int) -> np.ndarray:
    """Look at all clips of all files, several files at a time."""
    described = [("name", f"S{_NAME_BYTES}"), ("file", "u4"), ("target", "u1", -(-num_classes // 8))]
    dtype = np.dtype([*described, *_STORED, ("samples", "i8"), ("rate", "u4")])
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # reading, decompressing and opening release the GIL
        parts = pool.map(lambda job: _rows(*job, num_classes, dtype), enumerate(paths))
        rows, skipped = zip(*tqdm(parts, total=len(paths), desc="indexing shards", unit="file", disable=None), strict=True)
    index = np.concatenate(rows)
    _, first = np.unique(index["name"], return_index=True)
    for reasons in skipped:
        for reason in reasons[:3]:
            logger.warning("left out: %s", reason)
    left_out = sum(map(len, skipped))
    if left_out or len(first) < len(index):
        logger.warning("%d clips are left out: %d without a readable recording or labels, %d repeated",
                       left_out + len(index) - len(first), left_out, len(index) - len(first))  # fmt: skip
    if not len(first):
        first_reason = next(reason for reasons in skipped for reason in reasons) if left_out else f"{paths[0]} has no clips"
        raise UserError(f"no clip can be used of {len(paths)} shards, the first because: {first_reason}")
    return index[np.sort(first)]


def _rows(number: int, path: Path, num_classes: int, dtype: np.dtype) -> tuple[np.ndarray, list[str]]:
    """The part of the index for one file, and why clips are left out."""
    rows, skipped = [], []
    for clip in read_shard(path):
        name = clip_name(clip.key)
        if len(name.encode()) > _NAME_BYTES:
            raise UserError(f"{path} has a clip with a name of more than {_NAME_BYTES} bytes: {name}")
        target = np.zeros(num_classes, bool)
        try:
            target[list(clip.classes())] = True
            if clip.stored is None:
                raise AudioError(f"{name} in {path} has no recording")
            samples, rate = audio.measure(clip.stored.read(), name=f"{name} in {path}", warnings=[])  # reported when it is read
        except (ShardError, AudioError, OSError) as error:
            skipped.append(str(error))
            continue
        rows.append((name.encode(), number, np.packbits(target), *clip.stored[1:], samples, rate))
    return np.array(rows, dtype), skipped
