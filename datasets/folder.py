"""Anybody's own recordings: a folder with one folder a class, or a CSV of paths and labels.

Whatever cannot be used is found before training and named, so that nothing fails in the middle of an epoch.
"""

import hashlib
import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.csv_table import read_table
from datasets.recordings import Recordings
from models.errors import UserError

SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}
_SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation"), "val")
_HEAD_BYTES = 65536

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderData:
    """The usable recordings of a folder, N of K classes, and what became of everything else."""

    class_names: tuple[str, ...]  # sorted
    paths: tuple[Path, ...]
    names: tuple[str, ...]  # of the clips: paths below the folder, with '/'
    targets: np.ndarray  # (N, K) uint8
    seconds: np.ndarray  # (N,) float64, as headers tell
    is_multi_label: bool  # False: every recording has exactly one class
    splits: tuple[str, ...] | None  # of `SPLITS`; None where nothing says
    folds: tuple[str, ...] | None
    groups: tuple[str, ...] | None  # clips of one group must not be on both sides of a split
    left_out: tuple[tuple[str, str], ...]  # (name, reason) of recordings, links, folders and rows that are not used
    skipped: dict[str, int]  # number of files whose suffix is that of no audio, by suffix

    def report(self, limit: int = 10) -> str:
        """What is there and what was left out, as lines of text; no more than `limit` things are named."""
        kind = "several labels each" if self.is_multi_label else "one label each"
        lines = [
            f"{len(self.paths)} recordings of {len(self.class_names)} classes, {kind}; {self.seconds.min():.1f} to "
            f"{self.seconds.max():.1f} s, median {np.median(self.seconds):.1f} s, {self.seconds.sum() / 3600:.2f} h in all"
        ]
        if self.left_out:
            lines.append(f"{len(self.left_out)} left out:")
            lines += [f"  {name}: {reason}" for name, reason in self.left_out[:limit]]
            lines += [f"  and {len(self.left_out) - limit} more"] if len(self.left_out) > limit else []
        if self.skipped:
            suffixes = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(self.skipped.items()))
            lines.append(f"{sum(self.skipped.values())} files that are no audio skipped: {suffixes}")
        return "\n".join(lines)

    def clips(self, indices: Iterable[int], **options: Any) -> Recordings:
        """Data set of some of the recordings; `options` are those of `Recordings`."""
        indices = list(indices)
        paths, names = [self.paths[index] for index in indices], [self.names[index] for index in indices]
        return Recordings(paths, self.targets[indices], names, **options)


class Split(NamedTuple):
    """Indices of the clips of each part, ascending, (n,) int64."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray  # empty where nothing says what to test on


@dataclass(frozen=True)
class _Candidate:
    """A recording that may be used."""

    name: str
    path: Path
    labels: tuple[str, ...]
    split: str = ""
    fold: str = ""
    group: str = ""


@dataclass
class _Findings:
    """What a search finds on its way."""

    candidates: list[_Candidate] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)  # those of split, fold and group that are there
    is_multi_label: bool = False

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out.append((_printable(name), reason))


def scan(root: str | Path, csv: str | Path | None = None, *, decode_all: bool = False) -> FolderData:
    """Look through a folder, check the header and the end of every recording, and report what cannot be used.

    Without `csv`, a class is a folder below `root`, and holds every audio file below it (by suffix, upper or lower case). If these
    folders are called train, val and test (two of them at least), the classes are the folders one level deeper. `csv` has the
    columns path (below `root`) and labels (separated by ';'; multi-label if a row has several or none), and may have split (train,
    val or test) or fold, and group.

    Left out are files that are empty, truncated or no audio, copies (one file twice, or the same bytes), and links that are broken,
    lead out of `root` or lead to folders. Hidden files do not count. `decode_all` decodes every recording from beginning to end,
    which also finds damage in the middle and takes as long as an epoch.

    Raises NotADirectoryError, FileNotFoundError and ValueError, also when nothing is left to train on.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the one that holds the recordings")
    root = Path(os.path.realpath(root))
    found = _from_folders(root) if csv is None else _from_table(root, Path(csv).expanduser())
    checked = _without_copies(_checked(_once_each(found), found, decode_all), found)
    class_names = sorted({label for candidate, _ in checked for label in candidate.labels})
    for name in sorted(found.classes - set(class_names)):
        found.leave_out(name, "class without a usable recording")
    if not class_names or (len(class_names) < 2 and not found.is_multi_label):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left_out[:3])
        raise UserError(
            f"{root} has usable recordings of {len(class_names)} classes, which is nothing to learn from; "
            f"give a folder with one folder a class, or a CSV{reasons and f' ({reasons})'}"
        )
    targets = np.zeros((len(checked), len(class_names)), np.uint8)
    class_of = {name: index for index, name in enumerate(class_names)}
    for target, (candidate, _) in zip(targets, checked, strict=True):
        target[[class_of[label] for label in candidate.labels]] = 1
    candidates = [candidate for candidate, _ in checked]
    return FolderData(
        class_names=tuple(class_names),
        paths=tuple(candidate.path for candidate in candidates),
        names=tuple(candidate.name for candidate in candidates),
        targets=targets,
        seconds=np.array([seconds for _, seconds in checked]),
        is_multi_label=found.is_multi_label,
        splits=tuple(candidate.split for candidate in candidates) if "split" in found.columns else None,
        folds=tuple(candidate.fold for candidate in candidates) if "fold" in found.columns else None,
        groups=tuple(candidate.group or candidate.name for candidate in candidates) if "group" in found.columns else None,
        left_out=tuple(found.left_out),
        skipped=dict(found.skipped),
    )


def split(data: FolderData, val_share: float = 0.2, seed: int = 0, *, fold: str | None = None) -> Split:
    """Divide clips into training, validation and test, as their split or fold column says or else by chance.

    With a fold column, `fold` (default: the first) is validated on. Where nothing says what to validate on, about `val_share` of
    each class's training clips are drawn, at least one, and whole groups where there are groups. The last clip or group of a class
    always stays in training; classes that so have nothing to be validated on are logged. Equal data and seed give an equal split.

    Raises ValueError if a part lacks, or a group is on both sides.
    """
    if not 0 < val_share < 1:
        raise UserError(f"val_share is {val_share}; it must be between 0 and 1")
    if fold is not None and data.folds is None:
        raise UserError(f"fold {fold} is asked for, but there is no fold column")
    if data.folds is not None:
        folds = sorted(set(data.folds), key=lambda name: (len(name), name))
        fold = folds[0] if fold is None else fold
        if fold not in folds or len(folds) < 2:
            raise UserError(f"fold {fold!r} cannot be held out; there are {', '.join(folds)}")
        parts = ["val" if name == fold else "train" for name in data.folds]
    else:
        parts = list(data.splits or ["train"] * len(data.paths))
    training = [index for index, part in enumerate(parts) if part == "train"]
    if "val" not in parts and training:
        groups = [data.groups[index] for index in training] if data.groups else None
        for position in _draw(data.targets[training], groups, val_share, seed, data.class_names):
            parts[training[position]] = "val"
    result = Split(*(np.array([index for index, part in enumerate(parts) if part == name], np.int64) for name in SPLITS))
    if not len(result.train) or not len(result.val):
        raise UserError(f"{len(result.train)} clips to train and {len(result.val)} to validate on; both need some")
    if data.groups:
        part_of: dict[str, str] = {}
        for group, part in zip(data.groups, parts, strict=True):
            if part_of.setdefault(group, part) != part:
                raise UserError(f"group {group!r} is in {part_of[group]} and {part}; give all of its clips one split or fold")
    return result


def _from_folders(root: Path) -> _Findings:
    found = _Findings()
    top = [entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    depth = 1 if len(top) > 1 and all(name.lower() in _SPLIT_WORDS for name in top) else 0  # of the class folders
    if depth:
        found.columns.add("split")
    elif len({_SPLIT_WORDS[name.lower()] for name in top if name.lower() in _SPLIT_WORDS}) > 1:
        others = sorted(name for name in top if name.lower() not in _SPLIT_WORDS)
        raise UserError(
            f"{root} has folders for training and testing and others beside them ({', '.join(others[:3])}), so it is not clear "
            "what the classes are; move the others away, or say it in a CSV"
        )
    for folder, subfolders, files in os.walk(root, onerror=lambda error: _unreadable_folder(root, error, found)):
        inside = Path(folder).relative_to(root).parts
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in [name for name in subfolders if os.path.islink(os.path.join(folder, name))]:
            found.leave_out("/".join((*inside, name)), "link to a folder, not followed")
            subfolders.remove(name)
        if len(inside) == depth:
            found.classes.update(_normal(name) for name in subfolders)
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix not in audio.SUFFIXES:
                found.skipped[suffix] += 1
                continue
            full_name, path = "/".join((*inside, name)), Path(folder, name)
            if len(inside) <= depth:
                found.leave_out(full_name, "lies in no class folder")
            elif problem := _problem(path, root):
                found.leave_out(full_name, problem)
            else:
                part = _SPLIT_WORDS[inside[0].lower()] if depth else ""
                found.candidates.append(_Candidate(_normal(full_name), path, (_normal(inside[depth]),), part))
    return found


def _from_table(root: Path, csv: Path) -> _Findings:
    found = _Findings()
    rows = read_table(csv, ("path", "labels"), advice="give the CSV file that lists the recordings")
    if not rows:
        raise UserError(f"{csv} has no rows")
    found.columns = {"split", "fold", "group"} & set(rows[0])
    if {"split", "fold"} <= found.columns:
        raise UserError(f"{csv} has both a split and a fold column; keep one")
    for number, row in enumerate(rows, 1):
        labels = tuple(dict.fromkeys(_normal(label.strip()) for label in row["labels"].split(";") if label.strip()))
        found.classes.update(labels)
        found.is_multi_label |= len(labels) != 1
        part = row.get("split", "").strip().lower()
        if "split" in row and part not in _SPLIT_WORDS:
            raise UserError(f"{csv}, row {number}: split {row['split']!r} is none of {', '.join(_SPLIT_WORDS)}")
        fold = row.get("fold", "").strip()
        if "fold" in row and not fold:
            raise UserError(f"{csv}, row {number}: the fold is empty")
        name = row["path"].strip()
        path = _spelled_as_on_disk(root, name)
        if problem := ("no path" if not name else _problem(path, root)):
            found.leave_out(name or f"row {number}", problem)
        else:
            group = row.get("group", "").strip()
            found.candidates.append(
                _Candidate(_normal(path.relative_to(root).as_posix()), path, labels, _SPLIT_WORDS.get(part, ""), fold, group)
            )
    return found


def _spelled_as_on_disk(root: Path, name: str) -> Path:
    """Path below `root`, with composed or decomposed letters (Unicode NFC, NFD), whichever is there."""
    if os.path.isabs(name):
        name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    forms = [Path(os.path.normpath(root / form)) for form in (name, _normal(name), unicodedata.normalize("NFD", name))]
    return next((path for path in forms if os.path.lexists(path)), forms[0])


def _problem(path: Path, root: Path) -> str | None:
    """Why a path is not to be opened at all."""
    if any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in str(path)):
        return "its name is not UTF-8; rename it"
    target = Path(os.path.realpath(path))
    if not path.is_relative_to(root) or not target.is_relative_to(root):
        return f"leads out of {root}; copy it into the folder"
    if not os.path.exists(path):
        return "broken link" if path.is_symlink() else "not found"
    return None if target.is_file() else "no regular file"


def _once_each(found: _Findings) -> list[_Candidate]:
    first: dict[str, _Candidate] = {}
    for candidate in found.candidates:
        kept = first.setdefault(os.path.realpath(candidate.path), candidate)
        if kept is not candidate:
            found.leave_out(candidate.name, f"the same file as {kept.name}{_of_other_class(kept, candidate)}")
    return list(first.values())


def _checked(candidates: Sequence[_Candidate], found: _Findings, decode_all: bool) -> list[tuple[_Candidate, float]]:
    """Candidates that can be read, with their length in seconds."""

    def seconds(candidate: _Candidate) -> float | str:
        try:
            if decode_all:
                waveform, rate = audio.decode(candidate.path, name="it")
                return len(waveform) / rate
            samples, rate = audio.measure(candidate.path, check_end=True, name="it")
            return samples / rate
        except (audio.AudioError, OSError) as error:
            return str(error)

    checked = []
    with ThreadPoolExecutor() as pool:
        results = tqdm(
            pool.map(seconds, candidates), total=len(candidates), desc="checking", unit="file", disable=None, leave=False
        )
        for candidate, result in zip(candidates, results, strict=True):
            if isinstance(result, str):
                found.leave_out(candidate.name, result)
            else:
                checked.append((candidate, result))
    return checked


def _without_copies(checked: Sequence[tuple[_Candidate, float]], found: _Findings) -> list[tuple[_Candidate, float]]:
    """Leave out what has the same bytes as a file before it."""
    candidates = {candidate.path: candidate for candidate, _ in checked}
    original = {copy: paths[0] for paths in _alike(list(candidates)) for copy in paths[1:]}
    for path, candidate in candidates.items():
        if path in original:
            first = candidates[original[path]]
            found.leave_out(candidate.name, f"has the same bytes as {first.name}{_of_other_class(first, candidate)}")
    return [entry for entry in checked if entry[0].path not in original]


def _alike(paths: Sequence[Path]) -> list[list[Path]]:
    """Groups of files of the same bytes. Only files of one size are opened, and only those of one beginning read to the end."""
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


def _of_other_class(kept: _Candidate, copy: _Candidate) -> str:
    return "" if kept.labels == copy.labels else f" (which is of {'; '.join(kept.labels) or 'no class'})"


def _unreadable_folder(root: Path, error: OSError, found: _Findings) -> None:
    found.leave_out(os.path.relpath(error.filename, root), f"cannot be listed ({error.strerror})")


def _normal(name: str) -> str:
    """Compose letters (Unicode NFC), so that a name has one spelling."""
    return unicodedata.normalize("NFC", name)


def _printable(name: str) -> str:
    """Name without line breaks or bytes that are not UTF-8, which cannot be printed."""
    return name if name.isprintable() else repr(name)[1:-1]


def _draw(targets: np.ndarray, groups: Sequence[str] | None, share: float, seed: int, class_names: Sequence[str]) -> np.ndarray:
    """Indices of clips to validate on: whole groups, the rarest classes first (after Sechidis et al., ECML PKDD 2011).

    scikit-learn's stratified splitters may put the only group of a class on the validation side, which is not wanted here.
    """
    unlabelled = targets.sum(1, keepdims=True) == 0  # counts as a class
    targets = np.concatenate([targets, unlabelled], axis=1).astype(np.int32)
    unit_of = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1]
    clips = np.zeros((unit_of.max() + 1, targets.shape[1]), np.int32)  # of each unit and class
    np.add.at(clips, unit_of, targets)
    in_training = (clips > 0).sum(0)  # units of each class
    wanted = np.maximum(1, np.round(share * clips.sum(0)))
    drawn, taken = np.zeros(clips.shape[1]), np.zeros(len(clips), bool)
    order = np.random.default_rng(seed).permutation(len(clips))

    def can_be_spared(unit: int) -> bool:
        return bool((in_training[clips[unit] > 0] > 1).all())

    def take(unit: int) -> None:
        taken[unit] = True
        drawn[:] += clips[unit]
        in_training[:] -= clips[unit] > 0

    for k in np.argsort(in_training, kind="stable"):
        members = [unit for unit in order[clips[order, k] > 0] if not taken[unit]]
        for unit in members:
            if abs(drawn[k] + clips[unit, k] - wanted[k]) < abs(drawn[k] - wanted[k]) and can_be_spared(unit):
                take(unit)
        if not drawn[k] and (spare := [unit for unit in members if can_be_spared(unit)]):
            take(min(spare, key=lambda unit: clips[unit, k]))
    lacking = [name for name, count, there in zip(class_names, drawn, clips.sum(0), strict=False) if there and not count]
    if lacking:
        what = "clip" if groups is None else "group"
        first = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        logger.warning("%d classes have no %s to spare and are not validated on: %s", len(lacking), what, first)
    return np.flatnonzero(taken[unit_of])
