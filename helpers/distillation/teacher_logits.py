"""A teacher's stored logits: the file format, its reader and its writer.

teacher.npy holds (N, K) float16 or float32; the index beside it says which clip a row belongs to: teacher.txt, one name a line in
the order of the rows, or, as the release has it, a pickled dict from name to row.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.errors import UserError

_AUDIOSET_NAME = re.compile(rb"Y[A-Za-z0-9_-]{11}\.mp3")  # Y, YouTube id, .mp3
_ENTRIES = 1 << 16  # of an index, looked up at a time
# What a pickled dict of str to int consists of beside EMPTY_DICT, MARK, SETITEM, SETITEMS and STOP (pickletools tells of each).
_UNUSED = {pickle.PROTO[0]: 1, pickle.FRAME[0]: 8, pickle.MEMOIZE[0]: 0, pickle.BINPUT[0]: 1, pickle.LONG_BINPUT[0]: 4}  # bytes
_STRINGS = {pickle.SHORT_BINUNICODE[0]: 1, pickle.BINUNICODE[0]: 4, pickle.BINUNICODE8[0]: 8}  # bytes of their length
_INTS = {pickle.BININT1[0]: 1, pickle.BININT2[0]: 2, pickle.BININT[0]: 4}  # bytes


class TeacherLogits:
    """Logits that a teacher gave to clips, in a file that is never loaded: each row is mapped anew when it is asked for.

    So an epoch leaves no pages of the file in memory. What is kept are the names that have a row, as fixed-width bytes, and
    their row numbers; a process forked from this one shares them.
    """

    def __init__(self, preds: str | Path, index: str | Path, names: Iterable[str], num_classes: int) -> None:
        """Look up the rows of `names`, the data set's clips.

        `preds` is a .npy of (N, K) float16 or float32. `index` is a .txt, whose line i names row i, or a pickle (.pkl) of a
        dict from name to row; of an entry that is there twice the last counts. The row of a clip is that of its name, else, for
        AudioSet's names (Y, YouTube id, .mp3), that of the id. Raises FileNotFoundError, and ValueError for files that are
        damaged, hold anything else, or do not fit each other or `num_classes`.
        """
        self.preds, self.index = Path(preds), Path(index)
        self.num_classes = num_classes
        self._offset, self._dtype, num_rows = check_preds(self.preds, num_classes)  # bytes, type of one number
        wanted, counts = np.unique(np.array([name.encode() for name in names], dtype=bytes), return_counts=True)
        if not len(wanted):
            raise UserError("the data set has no clips to look up")
        # One byte more than the longest name has: no longer key equals a name when it is cut to fit.
        wanted = wanted.astype(f"S{wanted.itemsize + 1}")
        is_audioset = np.array([_AUDIOSET_NAME.fullmatch(name) is not None for name in wanted.tolist()])
        by_name = np.full(len(wanted), -1)
        by_id = by_name.copy()
        entries = _read_index(self.index)
        num_entries = 0
        first_key = b""
        while part := list(islice(entries, _ENTRIES)):
            keys, rows = zip(*part, strict=True)
            first_key = first_key or keys[0]
            num_entries += len(keys)
            if min(rows) < 0 or max(rows) >= num_rows:
                raise UserError(
                    f"{self.index} names row {min(rows) if min(rows) < 0 else max(rows)}, {self.preds} has rows 0 to "
                    f"{num_rows - 1}; give the index that belongs to it"
                )
            rows = np.array(rows)
            at = _find(wanted, keys)
            by_name[at[at >= 0]] = rows[at >= 0]
            if is_audioset.any():
                at = _find(wanted, [b"Y%b.mp3" % key for key in keys])
                is_found = (at >= 0) & is_audioset[at]
                by_id[at[is_found]] = rows[is_found]
        if self.index.suffix == ".txt" and num_entries != num_rows:
            raise UserError(f"{self.index} has {num_entries} lines, {self.preds} {num_rows} rows; each line names one row")
        rows = np.where(by_name >= 0, by_name, by_id)
        has_row = rows >= 0
        self._names, self._rows = wanted[has_row], rows[has_row]
        self.clips = int(counts.sum())  # of the data set
        self.covered = int(counts[has_row].sum())  # those with a row
        self.examples = wanted[0].decode(), first_key.decode(errors="replace")  # names as the data set and the index spell them

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
            raise UserError(f"{self.preds} has become shorter since it was opened ({error}); start again") from error
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
            f"{path} ({path.stat().st_size} bytes) is no whole .npy file of numbers ({error}); fetch or write it again"
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
    readers = {".pkl": read_pickle, ".txt": _read_text}
    if path.suffix not in readers:
        raise UserError(f"{path}: an index is a .txt, one name a line in the order of the rows, or a .pkl of a dict")
    if not path.is_file():
        raise FileNotFoundError(f"index {path} of the teacher's rows not found; pass --fname_to_index")
    return readers[path.suffix](path)


def _read_text(path: Path) -> Iterator[tuple[bytes, int]]:
    with open(path, "rb") as file:
        for row, line in enumerate(file):
            yield line.rstrip(b"\r\n"), row


def read_pickle(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the entries of a pickled dict of str to int (protocol 1 to 5) without unpickling: nothing else gets built.

    Takes 3 s for 2 million entries, where the unpickler takes 1.5 s; and no memory but the mapped file, where that takes 260 MB.
    """
    if not path.stat().st_size:
        raise UserError(f"{path} is empty; fetch or write it again")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield from _pickle_entries(data)
        except IndexError as error:
            raise UserError(f"{path} ends at byte {len(data)}, before its pickle does; fetch or write it again") from error
        except ValueError as error:
            raise UserError(
                f"{path} is not a pickle of a dict of str to int alone: {error}. Write such a dict (protocol 1 or newer, rows as "
                "int, not numpy's), or a .txt with one name a line in the order of the rows"
            ) from error


def _pickle_entries(data: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    """As `read_pickle`; ValueError for an opcode that does not belong there, IndexError at an early end."""
    at = 0
    key: bytes | None = None
    in_dict, in_group, pending = False, False, 0  # pending: entries that SETITEM or SETITEMS is still to put into the dict
    while True:
        opcode = data[at]
        at += 1
        if opcode in _UNUSED:
            at += _UNUSED[opcode]
        elif opcode in _STRINGS and in_dict and key is None:
            start = at + _STRINGS[opcode]
            at = start + int.from_bytes(data[at:start], "little")
            key = data[start:at]
        elif opcode in _INTS and key is not None:
            start, at = at, at + _INTS[opcode]
            yield key, int.from_bytes(data[start:at], "little", signed=opcode == pickle.BININT[0])
            key = None
            pending += 1
        elif opcode == pickle.LONG1[0] and key is not None:
            start, at = at + 1, at + 1 + data[at]
            yield key, int.from_bytes(data[start:at], "little", signed=True)
            key = None
            pending += 1
        elif opcode == pickle.MARK[0] and in_dict and not in_group and not pending:
            in_group = True
        elif opcode == pickle.SETITEMS[0] and in_group and key is None:
            in_group, pending = False, 0
        elif opcode == pickle.SETITEM[0] and not in_group and key is None and pending == 1:
            pending = 0
        elif opcode == pickle.EMPTY_DICT[0] and not in_dict:
            in_dict = True
        elif opcode == pickle.STOP[0] and in_dict and not in_group and key is None and not pending:
            return
        else:
            known = pickletools.code2op.get(chr(opcode))
            raise UserError(f"{known.name if known else f'0x{opcode:02x}'} at byte {at - 1}")
