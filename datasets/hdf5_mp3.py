"""The mp3-in-HDF5 layout of PaSST: its schema, a resumable writer and a lazy reader.

A file holds three data sets of N entries: `audio_name` (N,) 'S20'; `mp3` (N,) variable-length uint8, one complete mp3 file
each; `target` (N, ceil(K / 8)) uint8, the K-hot labels packed by numpy.packbits (class 0 is the highest bit of byte 0).
Files written here also carry the attribute `num_classes`; the reader does not need it.
"""

import errno
import logging
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from datasets import audio
from datasets.audio import AudioError
from datasets.clip import Clip, ClipDataset
from datasets.damage_log import DamageLog
from datasets.hdf5_rows import Hdf5Error, Rows, find_rows
from models.errors import UserError
from models.files import publish

NAME_BYTES = 20
_KEYS = _NAMES, _MP3S, _TARGETS = "audio_name", "mp3", "target"
_CHUNK = 256  # entries per HDF5 chunk
_COMMIT_ENTRIES, _COMMIT_BYTES = 256, 32 * 2**20  # what is held back in memory, and lost by a kill, at most
_WRITING = "writing"  # attribute of a .part: True while a commit is under way

logger = logging.getLogger(__name__)


class Mp3Writer:
    """Write an mp3-in-HDF5 file so that it appears under its name only when it is complete.

    Entries go to `<name>.part` next to the destination. Leaving the `with` block without an error renames it; leaving
    with one keeps it, and the next writer for the same destination resumes from there: `names` lists its entries.

    Entries are committed in groups (256 entries or 32 MiB). A commit marks the .part, writes, flushes, and takes the
    mark off again. So a killed process loses the last group at most; if it died within a commit, the mark is found
    and the .part is written again from the start, with a warning. Nothing is synchronised to the disk before the end: after a power
    cut remove the .part.
    """

    def __init__(self, path: str | Path, num_classes: int) -> None:
        """`path` is the destination, which must not exist yet; its folder is created. `num_classes` is K."""
        if num_classes < 1:
            raise UserError(f"num_classes is {num_classes}; it must be 1 or more")
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.num_classes = num_classes
        self._file: h5py.File | None = None
        self._names: dict[str, None] = {}  # a dict keeps the order of a set of names
        self._pending: list[tuple[bytes, bytes, np.ndarray]] = []  # (name, mp3, packed target)
        self._pending_bytes = 0
        self._committed = 0

    @property
    def names(self) -> Set[str]:
        """Names of the entries that are there, in order, including those of the run that is resumed."""
        return self._names.keys()

    def __enter__(self) -> "Mp3Writer":
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists; remove it or write to another path")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.part.exists() or not self._resume():
            self._create()
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        try:
            self._commit()
            if exception_type is None:
                del self._file.attrs[_WRITING]
        finally:
            self._file.close()
        if exception_type is None:
            publish(self.part, self.path)
        elif not self._names:
            self.part.unlink()

    def add(self, name: str, mp3: bytes, target: npt.ArrayLike) -> None:
        """Append one entry: a name of up to 20 bytes, a complete mp3 file, and its (K,) labels, each 0 or 1.

        Raises Hdf5Error for a name that is too long or there already, an empty mp3, or a target that is not K-hot, and
        OSError when the disk is full (what was committed before stays usable).
        """
        raw_name = name.encode()
        if not 0 < len(raw_name) <= NAME_BYTES or "\0" in name:
            raise Hdf5Error(f"name {name!r} has {len(raw_name)} bytes; 1 to {NAME_BYTES}, none of them 0, fit")
        if name in self._names:
            raise Hdf5Error(f"{name!r} is in {self.part} already; names must be unique")
        if not mp3:
            raise Hdf5Error(f"the mp3 of {name!r} is empty; leave the entry out")
        target = np.asarray(target)
        if target.shape != (self.num_classes,) or not ((target == 0) | (target == 1)).all():
            raise Hdf5Error(f"the target of {name!r} must be ({self.num_classes},) of 0 and 1; shape {target.shape}")
        self._names[name] = None
        self._pending.append((raw_name, mp3, np.packbits(target.astype(bool))))
        self._pending_bytes += len(mp3)
        if len(self._pending) >= _COMMIT_ENTRIES or self._pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def _create(self) -> None:
        width = -(-self.num_classes // 8)
        self._file = h5py.File(self.part, "w")
        self._file.attrs["num_classes"] = self.num_classes
        for key, shape, dtype in (
            (_NAMES, (), f"S{NAME_BYTES}"),
            (_MP3S, (), h5py.vlen_dtype(np.uint8)),
            (_TARGETS, (width,), np.uint8),
        ):
            self._file.create_dataset(key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(_CHUNK, *shape))
        self._set_writing(False)

    def _resume(self) -> bool:
        """Open the .part of an earlier run; False when it was damaged and has been removed."""
        try:
            find_rows(self.part, _KEYS, locking=True)  # which a damaged file cannot crash
            self._file = h5py.File(self.part, "r+")
            if self._file.attrs[_WRITING]:
                raise OSError("it was being written to when its process died")
            num_classes = int(self._file.attrs["num_classes"])
            names = [name.decode() for name in self._file[_NAMES][:]]
        except BlockingIOError as error:
            raise Hdf5Error(f"{self.part} is being written by another process; wait for it or stop it") from error
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            logger.warning("%s is damaged (%s); restarting", self.part, error)
            if self._file is not None:
                self._file.close()
            self.part.unlink()
            return False
        if num_classes != self.num_classes:
            self._file.close()
            raise Hdf5Error(f"{self.part} has {num_classes} classes, not {self.num_classes}; remove it to restart")
        self._names = dict.fromkeys(names)
        self._committed = len(names)
        return True

    def _set_writing(self, writing: bool) -> None:
        self._file.attrs[_WRITING] = writing
        self._file.flush()

    def _commit(self) -> None:
        """Write what is pending. Repeating a commit that was broken off overwrites what it had done."""
        if not self._pending:
            return
        needed = self._pending_bytes + 2**20
        if shutil.disk_usage(self.part.parent).free < needed:  # asked before, so that a full disk damages nothing
            raise OSError(errno.ENOSPC, f"no space left for the next {needed} bytes", str(self.part))
        names, mp3s, targets = zip(*self._pending, strict=True)
        start, stop = self._committed, self._committed + len(names)
        self._set_writing(True)
        for key in _KEYS:
            self._file[key].resize(stop, axis=0)
        self._file[_NAMES][start:stop] = np.array(names, f"S{NAME_BYTES}")
        for row, mp3 in enumerate(mp3s, start):
            self._file[_MP3S][row] = np.frombuffer(mp3, np.uint8)
        self._file[_TARGETS][start:stop] = np.stack(targets)
        self._file.flush()
        self._set_writing(False)
        self._committed = stop
        self._pending, self._pending_bytes = [], 0


class Mp3Dataset(ClipDataset):
    """Read clips from one or several mp3-in-HDF5 files, which count as one, in the order given.

    A damaged clip, and links to other files, are errors that name the file: see `hdf5_rows`. A data set can be pickled, forked and
    used by any number of loader workers. Mp3s of any rate and number of channels are averaged to mono
    and resampled before cropping.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], *, num_classes: int, **options: Any) -> None:
        """`options` are those of `ClipDataset`.

        Raises FileNotFoundError, and Hdf5Error for a file that is not of this layout or has other classes.
        """
        super().__init__(**options)
        self.paths = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
        if not self.paths:
            raise UserError("no paths given; name at least one HDF5 file")
        self.num_classes = num_classes
        self._files = [_checked(path, num_classes) for path in self.paths]
        self._stops = list(accumulate(len(rows[_NAMES]) for rows in self._files))
        self._damage_log = DamageLog(len(self))

    def __len__(self) -> int:
        return self._stops[-1]

    def __getitem__(self, index: int) -> Clip:
        """Clip of a global index; its waveform is (clip_seconds * sample_rate,) and its target (K,) of 0 and 1.

        Raises IndexError, and AudioError for an entry that cannot be read or decoded; it names file, index and clip.
        """
        index = self._position(index)
        mp3, target, name, where = self.read(index)
        warnings: list[str] = []
        waveform = audio.load(mp3, self.sample_rate, seconds=self._head_seconds, name=where, warnings=warnings)
        self._damage_log(index, warnings)
        waveform = self._cut(waveform)
        return Clip(torch.from_numpy(waveform), torch.from_numpy(target).float(), name, index)

    def read(self, index: int) -> tuple[bytes, np.ndarray, str, str]:
        """A clip's mp3 file, its target, (K,) uint8, its name, and what errors call it. Raises AudioError."""
        which = bisect_right(self._stops, index)
        row = index - (self._stops[which - 1] if which else 0)
        path, rows = self.paths[which], self._files[which]
        where = f"clip {index} (row {row} of {path})"
        try:
            with open(path, "rb", buffering=0) as file:  # takes 15 us: nothing is kept open that a fork could share
                name = _name(rows[_NAMES].read_one(file, row))
                where = f"{name}, {where}"
                target = np.unpackbits(rows[_TARGETS].read(file, row, row + 1)[0], count=self.num_classes)
                return rows[_MP3S].read_one(file, row), target, name, where
        except (OSError, ValueError) as error:
            raise AudioError(f"{where} cannot be read ({error}); is the file complete?") from error

    @property
    def names(self) -> list[str]:
        """Names of all clips by index, read from the files each time: keep the list if you need it twice."""
        return [name for path, rows in zip(self.paths, self._files, strict=True) for name in _names(path, rows[_NAMES])]

    def targets(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Targets of the clips start to stop - 1, (n, K) uint8 of 0 and 1, read without touching the mp3s."""
        start, stop, _ = slice(start, stop).indices(len(self))
        packed = []
        for path, rows, first in zip(self.paths, self._files, [0, *self._stops], strict=False):
            packed.append(_stored(path, rows[_TARGETS], max(start - first, 0), max(min(stop - first, len(rows[_TARGETS])), 0)))
        return np.unpackbits(np.concatenate(packed), axis=1, count=self.num_classes)

    def lengths(self) -> np.ndarray:
        lengths = np.empty(len(self), np.int64)
        for index in tqdm(range(len(self)), desc="reading lengths", unit="clip", disable=None, leave=False):
            mp3, _, _, where = self.read(index)
            samples, rate = audio.measure(mp3, name=where, warnings=[])
            lengths[index] = audio.resampled_length(samples, rate, self.sample_rate)
        return lengths


def read_entries(path: Path, num_classes: int) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yield name, mp3 and target, (K,) uint8, of each entry of a file, without decoding; raises what `Mp3Dataset` does."""
    dataset = Mp3Dataset(path, num_classes=num_classes)
    for index in range(len(dataset)):
        mp3, target, name, _ = dataset.read(index)
        yield name, mp3, target


def _names(path: Path, rows: Rows) -> list[str]:
    try:
        if rows.kind == "bytes":
            return [_name(stored.tobytes()) for stored in _stored(path, rows, 0, len(rows))]
        with open(path, "rb", buffering=0) as file:
            return [_name(rows.read_one(file, row)) for row in range(len(rows))]
    except ValueError as error:
        raise Hdf5Error(f"{path} has names that cannot be read ({error}); fetch or build it again") from error


def _name(stored: bytes) -> str:
    return stored.rstrip(b"\0").decode()


def _stored(path: Path, rows: Rows, start: int, stop: int) -> np.ndarray:
    try:
        with open(path, "rb", buffering=0) as file:
            return rows.read(file, start, stop)
    except ValueError as error:
        raise Hdf5Error(f"{path} cannot be read ({error}); fetch or build it again") from error


def _checked(path: Path, num_classes: int) -> dict[str, Rows]:
    """The data sets of a file; FileNotFoundError or Hdf5Error if it cannot be read as `num_classes`-hot clips."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file); build it with a script of datasets.prepare")
    found, there, stated_classes = find_rows(path, _KEYS)
    if missing := [key for key in _KEYS if key not in found]:
        raise Hdf5Error(f"{path} lacks {', '.join(missing)}; it holds {', '.join(there) or 'nothing'}")
    names, mp3s, targets = (found[key] for key in _KEYS)
    width = -(-num_classes // 8)
    types = names.kind in ("bytes", "text") and mp3s.kind == "uint8s" and targets.kind == "uint8"
    if not types or not names.shape == mp3s.shape == targets.shape[:1] or targets.shape[1:] != (width,):
        shapes = ", ".join(f"{rows.shape} {rows.kind} {key}" for key, rows in found.items())
        raise Hdf5Error(f"{path} has {shapes}; mp3s of {num_classes} classes have (N, {width}) bytes of targets")
    if stated_classes not in (None, num_classes):
        raise Hdf5Error(f"{path} has {stated_classes} classes, not {num_classes}")
    return found
