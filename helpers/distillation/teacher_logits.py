"""Stored teacher logits: the file format and its reader.

teacher.npy holds (N, K) float16 or float32. The index next to it maps clips to rows: teacher.txt has one name per line in the order
of the rows; the release has a pickled dict from name to row.
"""

from __future__ import annotations

import mmap
import pickle
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.errors import UserError

_AUDIOSET_NAME = re.compile(rb"Y[A-Za-z0-9_-]{11}\.mp3")  # Y, YouTube id, .mp3
_ENTRIES = 1 << 16  # of an index, looked up together
_OPCODES = b"".join([
    pickle.PROTO, pickle.FRAME, pickle.EMPTY_DICT, pickle.MARK, pickle.SETITEM, pickle.SETITEMS, pickle.STOP,
    pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8, pickle.BININT1, pickle.BININT2, pickle.BININT, pickle.LONG1,
])  # fmt: skip


class TeacherLogits:
    """A teacher's logits of clips, in a file that is never loaded: each row is mapped when it is read, then unmapped.

    So an epoch leaves no pages of the file in memory. Kept are the names that have a row, as fixed-width bytes, and their row
    numbers; forked processes share them.
    """

    def __init__(self, preds: str | Path, index: str | Path, names: Iterable[str], num_classes: int) -> None:
        """Look up the rows of `names`, the data set's clips.

        `preds` is a .npy of (N, K) float16 or float32. `index` is a .txt, whose line i names row i, or a pickle (.pkl) of a
        dict from name to row; the last of equal names counts. The row of a clip is that of its name, else, for
        AudioSet's names (Y, YouTube id, .mp3), that of the id. Raises FileNotFoundError, and ValueError for files that are
        damaged, hold anything else, or do not fit each other or `num_classes`.
        """
        self.preds, self.index = Path(preds), Path(index)
        self.num_classes = num_classes
        self._offset, self._dtype, num_rows = check_preds(self.preds, num_classes)  # bytes, type of one number
        sorted_names, counts = np.unique(np.array([name.encode() for name in names], dtype=bytes), return_counts=True)
        if not len(sorted_names):
            raise UserError("the data set has no clips to look up")
        # One byte more than the longest name has: no longer key equals a name when it is cut to fit.
        sorted_names = sorted_names.astype(f"S{sorted_names.itemsize + 1}")
        is_audioset = np.array([_AUDIOSET_NAME.fullmatch(name) is not None for name in sorted_names.tolist()])
        by_name = np.full(len(sorted_names), -1)
        by_id = by_name.copy()
        entries = _read_index(self.index)
        num_entries = 0
        first_key = b""
        while chunk := list(islice(entries, _ENTRIES)):
            keys, rows = zip(*chunk, strict=True)
            first_key = first_key or keys[0]
            num_entries += len(keys)
            if min(rows) < 0 or max(rows) >= num_rows:
                raise UserError(
                    f"{self.index} names row {min(rows) if min(rows) < 0 else max(rows)}, {self.preds} has rows 0 to "
                    f"{num_rows - 1}; give the index that belongs to it"
                )
            rows = np.array(rows)
            at = _find(sorted_names, keys)
            by_name[at[at >= 0]] = rows[at >= 0]
            if is_audioset.any():
                at = _find(sorted_names, [b"Y%b.mp3" % key for key in keys])
                is_found = (at >= 0) & is_audioset[at]
                by_id[at[is_found]] = rows[is_found]
        if self.index.suffix == ".txt" and num_entries != num_rows:
            raise UserError(f"{self.index} has {num_entries} lines, {self.preds} {num_rows} rows; each line names one row")
        rows = np.where(by_name >= 0, by_name, by_id)
        has_row = rows >= 0
        self._names, self._rows = sorted_names[has_row], rows[has_row]
        self.clips = int(counts.sum())  # of the data set
        self.covered = int(counts[has_row].sum())  # those with a row
        # Names as the data set and the index spell them.
        self.examples = sorted_names[0].decode(), first_key.decode(errors="replace")

    def row(self, name: str) -> np.ndarray | None:
        """Return a clip's logits, (K,) float32, or None if the teacher has none.

        Raises ValueError if they are not finite, or the file has become shorter.
        """
        at = _find(self._names, [name.encode()])[0] if self.covered else -1
        if at < 0:
            return None
        row = int(self._rows[at])
        start = self._offset + row * self.num_classes * self._dtype.itemsize
        try:
            logits = np.array(np.memmap(self.preds, self._dtype, "r", start, (self.num_classes,)), np.float32)
        except ValueError as error:
            raise UserError(f"{self.preds} has become shorter since it was opened ({error}); restart") from error
        if not np.isfinite(logits).all():
            raise UserError(f"row {row} of {self.preds}, of {name}, is not finite; write the file again, or leave the row out")
        return logits


def _find(names: np.ndarray, keys: Sequence[bytes]) -> np.ndarray:
    """Return the positions of keys in sorted fixed-width names, of which there is at least one; -1 for those not there."""
    keys = np.array(keys, names.dtype)
    at = np.minimum(np.searchsorted(names, keys), len(names) - 1)
    return np.where(names[at] == keys, at, -1)


def check_preds(path: Path, num_classes: int) -> tuple[int, np.dtype, int]:
    """Return where the numbers begin (in bytes), their type, and the number of rows; ValueError as `TeacherLogits`."""
    if not path.is_file():
        raise FileNotFoundError(f"teacher logits {path} not found; write them with python -m helpers.distillation")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's parser fails on damaged headers in many ways
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is not a whole .npy file of numbers ({error}); fetch or write it again"
        ) from error
    if array.ndim != 2 or array.shape[1] != num_classes or not len(array):
        raise UserError(f"{path} holds {array.shape}, but {num_classes} classes need (N, {num_classes}); give another file")
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4) or not array.flags.c_contiguous:
        order = "rows" if array.flags.c_contiguous else "columns"
        raise UserError(
            f"{path} holds {array.dtype} in {order}, but must hold float16 or float32 in rows; convert it with "
            "numpy.save(..., numpy.ascontiguousarray(logits, 'float16'))"
        )
    return array.offset, array.dtype, len(array)


def _read_index(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield name (UTF-8) and row of each entry; errors as `TeacherLogits`."""
    if path.suffix not in (".pkl", ".txt"):
        raise UserError(f"{path}: an index is a .txt, one name per line in the order of the rows, or a .pkl of a dict")
    if not path.is_file():
        raise FileNotFoundError(f"index {path} of the teacher's rows not found; pass --fname_to_index")
    if path.suffix == ".pkl":
        for name, row in read_pickle(path).items():
            yield name.encode(errors="surrogatepass"), row
        return
    with open(path, "rb") as file:
        for row, line in enumerate(file):
            yield line.rstrip(b"\r\n"), row


def read_pickle(path: Path) -> dict[str, int]:
    """Return a pickled dict of str to int (protocol 1 to 5), of which nothing else gets built or called.

    2 million entries take 260 MB.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            entries = _IndexUnpickler(data).load()
        if type(entries) is not dict or set(map(type, entries)) - {str} or set(map(type, entries.values())) - {int}:
            raise pickle.UnpicklingError("it holds something else")
    except OSError:
        raise
    except Exception as error:  # damaged pickles fail in many ways
        raise UserError(
            f"{path} ({path.stat().st_size} bytes) is not a whole pickle of a dict of str to int alone; fetch it again, or write "
            "such a dict (protocol 1 or newer, rows as int, not numpy's) or a .txt with one name per line in row order"
        ) from error
    return entries


class _IndexUnpickler(pickle._Unpickler):
    """Knows no more opcodes than a dict of str to int consists of: no class, no call, no reference to what was read before.

    In pure Python, as C's unpickler reserves what a few bytes of a file ask for. The memo, from which nothing is read, is not kept.
    """

    dispatch = {opcode: load for opcode, load in pickle._Unpickler.dispatch.items() if opcode in _OPCODES} | {
        pickle.MEMOIZE[0]: lambda self: None,
        pickle.BINPUT[0]: lambda self: self.read(1),
        pickle.LONG_BINPUT[0]: lambda self: self.read(4),
    }
