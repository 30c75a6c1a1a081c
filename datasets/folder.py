"""Your own recordings: a folder with one folder per class, or a CSV of paths and labels.

Whatever cannot be used is found before training and named, so that nothing fails in the middle of an epoch.
"""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.csv_table import read_table
from datasets.recordings import Recordings
from datasets.same_content import groups_of_same_content
from datasets.stratified import draw_stratified
from models.errors import UserError

SPLITS = ("train", "val", "test")
_SPLIT_OF_WORD = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}
_SPLIT_OF_WORD |= dict.fromkeys(("val", "valid", "validation"), "val")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderData:
    """The usable recordings of a folder, N of K classes, and what is not used of it."""

    class_names: tuple[str, ...]  # sorted
    paths: tuple[Path, ...]
    names: tuple[str, ...]  # of the clips: paths below the folder, with '/'
    targets: np.ndarray  # (N, K) uint8
    seconds: np.ndarray  # (N,) float64, from the headers
    single_label: bool  # every recording has exactly one class
    splits: tuple[str, ...] | None  # of `SPLITS`; None where neither folders nor a column name any
    folds: tuple[str, ...] | None
    groups: tuple[str, ...] | None  # clips of one group must not be on both sides of a split
    left_out: tuple[tuple[str, str], ...]  # (name, reason) of recordings, links, folders and rows that are not used
    skipped: dict[str, int]  # number of files whose suffix is that of no audio, by suffix

    def report(self, limit: int = 10) -> str:
        """Summarise what is there and what was left out in lines of text; at most `limit` things are named."""
        kind = "one label each" if self.single_label else "several labels each"
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
            lines.append(f"{sum(self.skipped.values())} files that are not audio skipped: {suffixes}")
        return "\n".join(lines)

    def clips(self, indices: Iterable[int], **options: Any) -> Recordings:
        """Open some of the recordings as a data set; `options` are those of `Recordings`."""
        indices = list(indices)
        paths, names = [self.paths[index] for index in indices], [self.names[index] for index in indices]
        return Recordings(paths, self.targets[indices], names, **options)


class Split(NamedTuple):
    """Indices of the clips of each part, ascending, (n,) int64."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray  # empty where no folder or column names a test split


@dataclass(frozen=True)
class _Candidate:
    """A recording that may be used."""

    name: str
    path: Path
    real_path: str  # links resolved
    labels: tuple[str, ...]
    split: str = ""
    fold: str = ""
    group: str = ""
    seconds: float = 0.0  # 0: not measured yet


@dataclass
class _Found:
    """The recordings that a folder or a CSV names, and what of them cannot be used."""

    candidates: list[_Candidate] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)
    skipped: Counter[str] = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)  # those of split, fold and group that are there
    single_label: bool = True


def scan(root: str | Path, csv: str | Path | None = None, *, decode_all: bool = False) -> FolderData:
    """Look through a folder, check the header and the end of every recording, and report what cannot be used.

    Without `csv`, a class is a folder below `root`, and holds every audio file below it (by suffix, upper or lower case). If these
    folders are called train, val and test (two of them at least), the classes are the folders one level deeper. `csv` has the
    columns path (below `root`) and labels (separated by ';'; multi-label if a row has several or none), and may have split (train,
    val or test) or fold, and group.

    Left out: files that are empty, truncated or not audio, copies (one file twice, or the same bytes), and links that are broken,
    lead out of `root` or lead to folders. Hidden files do not count. `decode_all` decodes every recording from beginning to end,
    which also finds damage in the middle and takes as long as an epoch.

    Raises NotADirectoryError, FileNotFoundError and UserError, also when nothing is left to train on.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the one that holds the recordings")
    root = Path(os.path.realpath(root))
    found = _from_folders(root) if csv is None else _from_table(root, Path(csv).expanduser())
    candidates = _once_each(found.candidates, found.left_out)
    candidates = _readable(candidates, found.left_out, decode_all)
    candidates = _without_copies(candidates, found.left_out)
    class_names = sorted({label for candidate in candidates for label in candidate.labels})
    unused = sorted(found.classes.difference(class_names))
    found.left_out += [(name, "class without a usable recording") for name in unused]
    left_out = tuple((_printable(name), reason) for name, reason in found.left_out)
    if len(class_names) < (2 if found.single_label else 1):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out[:3])
        raise UserError(
            f"{root} has usable recordings of {len(class_names)} classes, which is nothing to learn from; "
            f"give a folder with one folder per class, or a CSV{reasons and f' ({reasons})'}"
        )
    index = {name: k for k, name in enumerate(class_names)}
    targets = np.zeros((len(candidates), len(class_names)), np.uint8)
    for target, candidate in zip(targets, candidates, strict=True):
        target[[index[label] for label in candidate.labels]] = 1
    return FolderData(
        class_names=tuple(class_names),
        paths=tuple(candidate.path for candidate in candidates),
        names=tuple(candidate.name for candidate in candidates),
        targets=targets,
        seconds=np.array([candidate.seconds for candidate in candidates]),
        single_label=found.single_label,
        splits=tuple(candidate.split for candidate in candidates) if "split" in found.columns else None,
        folds=tuple(candidate.fold for candidate in candidates) if "fold" in found.columns else None,
        groups=tuple(candidate.group or candidate.name for candidate in candidates) if "group" in found.columns else None,
        left_out=left_out,
        skipped=dict(found.skipped),
    )


def split(data: FolderData, val_share: float = 0.2, seed: int = 0, *, fold: str | None = None) -> Split:
    """Divide clips into training, validation and test, by their split or fold column or else at random.

    With a fold column, `fold` (default: the first) is validated on. Where no column names validation clips, about `val_share` of
    each class's training clips are drawn, at least one, and whole groups where there are groups. The last clip or group of a class
    always stays in training; classes that so have nothing to be validated on are logged. Equal data and seed give an equal split.

    Raises UserError if a part is empty, or a group is on both sides.
    """
    if not 0 < val_share < 1:
        raise UserError(f"val_share is {val_share}; it must be between 0 and 1")
    parts = _listed_parts(data, fold)
    training = np.flatnonzero(parts == "train")
    if "val" not in parts and len(training):
        groups = [data.groups[index] for index in training] if data.groups else None
        drawn = draw_stratified(data.targets[training], groups, val_share, seed)
        _log_unvalidated(data, training, drawn)
        parts[training[drawn]] = "val"
    result = Split(*(np.flatnonzero(parts == name) for name in SPLITS))
    if not len(result.train) or not len(result.val):
        raise UserError(f"{len(result.train)} clips to train and {len(result.val)} to validate on; both need some")
    if data.groups:
        part_of: dict[str, str] = {}
        for group, part in zip(data.groups, parts, strict=True):
            if part_of.setdefault(group, part) != part:
                raise UserError(f"group {group!r} is in {part_of[group]} and {part}; give all of its clips one split or fold")
    return result


def _listed_parts(data: FolderData, fold: str | None) -> np.ndarray:
    """The part of each clip, (N,) of `SPLITS`, by the fold or split column; all clips are for training where there is none."""
    if data.folds is None:
        if fold is not None:
            raise UserError(f"fold {fold} is asked for, but there is no fold column")
        return np.array(data.splits or ["train"] * len(data.paths))
    folds = sorted(set(data.folds), key=lambda name: (len(name), name))
    fold = folds[0] if fold is None else fold
    if fold not in folds or len(folds) < 2:
        raise UserError(f"fold {fold!r} cannot be held out; there are {', '.join(folds)}")
    return np.where(np.array(data.folds) == fold, "val", "train").astype("U5")


def _log_unvalidated(data: FolderData, training: np.ndarray, drawn: np.ndarray) -> None:
    """Log the classes of the training clips of which none is drawn to validate on."""
    targets = data.targets[training]
    names = [data.class_names[k] for k in np.flatnonzero(targets.any(0) & ~targets[drawn].any(0))]
    if names:
        what = "group" if data.groups else "clip"
        first = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        logger.warning("%d classes have no %s to spare and are not validated on: %s", len(names), what, first)


def _from_folders(root: Path) -> _Found:
    found = _Found()
    depth = 1 if _has_split_folders(root) else 0  # of the class folders
    if depth:
        found.columns.add("split")

    def unreadable(error: OSError) -> None:
        found.left_out.append((os.path.relpath(error.filename, root), f"cannot be listed ({error.strerror})"))

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        inside = Path(folder).relative_to(root).parts
        visible = sorted(name for name in subfolders if not name.startswith("."))
        links = {name for name in visible if os.path.islink(os.path.join(folder, name))}
        found.left_out += [("/".join((*inside, name)), "link to a folder, not followed") for name in visible if name in links]
        subfolders[:] = [name for name in visible if name not in links]  # the others are not entered
        if len(inside) == depth:
            found.classes.update(map(_normal, subfolders))
        for name in sorted(name for name in files if not name.startswith(".")):
            suffix = os.path.splitext(name)[1].lower()
            full_name, path = "/".join((*inside, name)), Path(folder, name)
            if suffix not in audio.SUFFIXES:
                found.skipped[suffix] += 1
            elif len(inside) <= depth:
                found.left_out.append((full_name, "lies in no class folder"))
            elif problem := _problem(path, root):
                found.left_out.append((full_name, problem))
            else:
                part = _SPLIT_OF_WORD[inside[0].lower()] if depth else ""
                found.candidates.append(
                    _Candidate(_normal(full_name), path, os.path.realpath(path), (_normal(inside[depth]),), part)
                )
    return found


def _has_split_folders(root: Path) -> bool:
    """Whether the folders in `root` are splits, two at least, rather than classes; UserError where some are and some are not."""
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    others = [name for name in names if name.lower() not in _SPLIT_OF_WORD]
    splits = {_SPLIT_OF_WORD[name.lower()] for name in names if name.lower() in _SPLIT_OF_WORD}
    if others and len(splits) > 1:
        raise UserError(
            f"{root} has folders for training and testing and others next to them ({', '.join(others[:3])}), so it is not clear "
            "what the classes are; move the others away, or list the recordings in a CSV"
        )
    return len(names) > 1 and not others


def _from_table(root: Path, csv: Path) -> _Found:
    rows = read_table(csv, ("path", "labels"), advice="give the CSV file that lists the recordings")
    if not rows:
        raise UserError(f"{csv} has no rows")
    found = _Found(columns={"split", "fold", "group"} & rows[0].keys())
    if {"split", "fold"} <= found.columns:
        raise UserError(f"{csv} has both a split and a fold column; keep one")
    for number, row in enumerate(rows, 1):
        name, part, fold, group = (row.get(column, "").strip() for column in ("path", "split", "fold", "group"))
        if "split" in row and part.lower() not in _SPLIT_OF_WORD:
            raise UserError(f"{csv}, row {number}: split {row['split']!r} is none of {', '.join(_SPLIT_OF_WORD)}")
        if "fold" in row and not fold:
            raise UserError(f"{csv}, row {number}: the fold is empty")
        labels = tuple(dict.fromkeys(_normal(label.strip()) for label in row["labels"].split(";") if label.strip()))
        found.classes.update(labels)
        found.single_label &= len(labels) == 1
        path = _spelled_as_on_disk(root, name)
        if problem := (_problem(path, root) if name else "no path"):
            found.left_out.append((name or f"row {number}", problem))
            continue
        clip_name = _normal(path.relative_to(root).as_posix())
        part = _SPLIT_OF_WORD.get(part.lower(), "")
        found.candidates.append(_Candidate(clip_name, path, os.path.realpath(path), labels, part, fold, group))
    return found


def _spelled_as_on_disk(root: Path, name: str) -> Path:
    """The path below `root`, with composed or decomposed letters (Unicode NFC, NFD), whichever is there."""
    if os.path.isabs(name):
        name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
    forms = [Path(os.path.normpath(root / form)) for form in (name, _normal(name), unicodedata.normalize("NFD", name))]
    return next((path for path in forms if os.path.lexists(path)), forms[0])


def _problem(path: Path, root: Path) -> str | None:
    """Why a path must not be opened; None if it may."""
    if any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in str(path)):
        return "its name is not UTF-8; rename it"
    target = Path(os.path.realpath(path))
    if not path.is_relative_to(root) or not target.is_relative_to(root):
        return f"leads out of {root}; copy it into the folder"
    if not os.path.exists(path):
        return "broken link" if path.is_symlink() else "not found"
    return None if target.is_file() else "no regular file"


def _once_each(candidates: Iterable[_Candidate], left_out: list[tuple[str, str]]) -> list[_Candidate]:
    """The first candidate of each file."""
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        kept = first.setdefault(candidate.real_path, candidate)
        if kept is not candidate:
            left_out.append((candidate.name, f"the same file as {kept.name}{_other_class(kept, candidate)}"))
    return list(first.values())


def _readable(candidates: Sequence[_Candidate], left_out: list[tuple[str, str]], decode_all: bool) -> list[_Candidate]:
    """Candidates that can be read, with their lengths."""

    def seconds(candidate: _Candidate) -> float | str:
        try:
            if decode_all:
                waveform, rate = audio.decode(candidate.path, name="it")
                return len(waveform) / rate
            samples, rate = audio.measure(candidate.path, check_end=True, name="it")
            return samples / rate
        except (audio.AudioError, OSError) as error:
            return str(error)

    readable = []
    with ThreadPoolExecutor() as pool:
        results = pool.map(seconds, candidates)
        bar = tqdm(results, total=len(candidates), desc="checking", unit="file", disable=None, leave=False)
        for candidate, result in zip(candidates, bar, strict=True):
            if isinstance(result, str):
                left_out.append((candidate.name, result))
            else:
                readable.append(replace(candidate, seconds=result))
    return readable


def _without_copies(candidates: Sequence[_Candidate], left_out: list[tuple[str, str]]) -> list[_Candidate]:
    """The first candidate of each content."""
    by_path = {candidate.path: candidate for candidate in candidates}
    original = {copy: by_path[first] for first, *copies in groups_of_same_content(list(by_path)) for copy in copies}
    kept = []
    for candidate in candidates:
        if first := original.get(candidate.path):
            left_out.append((candidate.name, f"has the same bytes as {first.name}{_other_class(first, candidate)}"))
        else:
            kept.append(candidate)
    return kept


def _other_class(kept: _Candidate, copy: _Candidate) -> str:
    return "" if kept.labels == copy.labels else f" (which is of {'; '.join(kept.labels) or 'no class'})"


def _normal(name: str) -> str:
    """Compose letters (Unicode NFC), so that a name has one spelling."""
    return unicodedata.normalize("NFC", name)


def _printable(name: str) -> str:
    """Name without line breaks or bytes that are not UTF-8, which cannot be printed."""
    return name if name.isprintable() else repr(name)[1:-1]
