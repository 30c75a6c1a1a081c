"""Your own recordings: a folder with one folder per class, or a CSV of paths and labels.

Whatever cannot be used is found before training and named, so that nothing fails in the middle of an epoch.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.audio_folders import describe_skipped
from datasets.channels import mono
from datasets.folders.candidates import SPLITS, Candidate, Found, from_folders
from datasets.folders.tables import from_table
from datasets.recordings import Recordings
from datasets.same_content import groups_of_same_content
from datasets.stratified import draw_folds, draw_stratified
from models.command import printable
from models.errors import UserError

_BLOCK_SECONDS = 10  # decoded at a time to check a recording
_SHORTEST = 0.001  # seconds of a segment
_BEHIND_END = 0.1  # seconds behind its recording that a segment may end without a word, for tables are rounded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderData:
    """The usable clips of a folder, N of K classes, and what is not used of it. A clip is a recording or a segment of one."""

    class_names: tuple[str, ...]  # sorted
    paths: tuple[Path, ...]
    names: tuple[str, ...]  # of the clips: paths below the folder, with '/'; of segments followed by their times
    targets: np.ndarray  # (N, K) uint8
    seconds: np.ndarray  # (N,) float64
    single_label: bool  # every clip has exactly one class
    splits: tuple[str, ...] | None  # of `SPLITS`; None where neither folders nor a column name any
    folds: tuple[str, ...] | None
    groups: tuple[str, ...] | None  # clips of one group must not be on both sides of a split
    left_out: tuple[tuple[str, str], ...]  # (name, reason) of recordings, links, folders and rows that are not used
    skipped: dict[str, int]  # number of files whose suffix is that of no audio, by suffix
    warnings: tuple[tuple[str, str], ...] = ()  # (name, damage or something unusual) of recordings that are used nevertheless
    segments: tuple[tuple[float, float] | None, ...] | None = None  # start and end in seconds; None: whole recordings

    def report(self, limit: int = 10) -> str:
        """Summarise what is there and what was left out in lines of text; at most `limit` things are named."""
        kind = "one label each" if self.single_label else "several labels each"
        recordings = f"{len(set(self.paths))} recordings"
        what = f"{len(self.paths)} segments of {recordings} and" if self.segments else f"{recordings} of"
        lines = [
            f"{what} {len(self.class_names)} classes, {kind}; {self.seconds.min():.1f} to "
            f"{self.seconds.max():.1f} s, median {np.median(self.seconds):.1f} s, {self.seconds.sum() / 3600:.2f} h in all"
        ]
        for named, title in ((self.left_out, "left out:"), (self.warnings, "used although damaged or unusual:")):
            if named:
                lines.append(f"{len(named)} {title}")
                lines += [f"  {name}: {reason}" for name, reason in named[:limit]]
                lines += [f"  and {len(named) - limit} more"] if len(named) > limit else []
        if self.skipped:
            lines.append(describe_skipped(Counter(self.skipped)))
        return "\n".join(lines)

    def clips(self, indices: Iterable[int], **options: Any) -> Recordings:
        """Open some of the clips as a data set; `options` are those of `Recordings`."""
        indices = list(indices)
        paths, names = [self.paths[index] for index in indices], [self.names[index] for index in indices]
        segments = self.segments and [self.segments[index] for index in indices]
        return Recordings(paths, self.targets[indices], names, segments=segments, strict=False, **options)


class Split(NamedTuple):
    """Indices of the clips of each part, ascending, (n,) int64."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray  # empty where no folder or column names a test split


def scan(root: str | Path, csv: str | Path | None = None, *, decode_all: bool = False) -> FolderData:
    """Look through a folder, check the header and the end of every recording, and report what cannot be used.

    Without `csv`, a class is a folder below `root`, and holds every audio file below it (by suffix, upper or lower case). If these
    folders are called train, val and test (two of them at least), the classes are the folders one level deeper. `csv` is one of

    - a table with the columns path (below `root`) and labels (separated by ';'; multi-label if a row has several or none), maybe
      start and end (seconds), split (train, val or test) or fold, and group. A row with start or end is a segment; segments may
      overlap, and labels of equal ones are joined. All segments of a recording are of one group.
    - a Raven selection table or an Audacity label track, whose recording is the one it names or is named like
    - a folder of such label files

    Left out: files that are empty or not audio, copies (one file twice, or the same bytes), broken links, and segments that are
    empty or not in their recording. Hidden files do not count. Damaged recordings are used up to the damage. `decode_all` decodes
    every recording from beginning to end, which also finds damage in the middle and takes as long as an epoch.

    Raises NotADirectoryError, FileNotFoundError and UserError, also when nothing is left to train on.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the one that holds the recordings")
    root = Path(os.path.realpath(root))
    found = from_folders(root) if csv is None else from_table(root, Path(csv).expanduser())
    candidates = usable(found, decode_all)
    single_label = found.single_label and all(len(candidate.labels) == 1 for candidate in candidates)
    class_names = sorted({label for candidate in candidates for label in candidate.labels})
    unused = sorted(found.classes.difference(class_names))
    found.left_out += [(name, "class without a usable recording") for name in unused]
    left_out = listed(found.left_out)
    if len(class_names) < (2 if single_label else 1):
        reasons = [f"{name}: {reason}" for name, reason in left_out[:3]] + [describe_skipped(found.skipped)]
        reasons = "; ".join(filter(None, reasons))
        raise UserError(
            f"{root} has usable recordings of {len(class_names)} classes, which is nothing to learn from; "
            f"give a folder with one folder per class, or a CSV{reasons and f' ({reasons})'}"
        )
    index = {name: k for k, name in enumerate(class_names)}
    targets = np.zeros((len(candidates), len(class_names)), np.uint8)
    for target, candidate in zip(targets, candidates, strict=True):
        target[[index[label] for label in candidate.labels]] = 1
    segments = tuple(candidate.segment for candidate in candidates)
    return FolderData(
        class_names=tuple(class_names),
        paths=tuple(candidate.path for candidate in candidates),
        names=tuple(candidate.clip_name for candidate in candidates),
        targets=targets,
        seconds=np.array([candidate.seconds for candidate in candidates]),
        single_label=single_label,
        splits=tuple(candidate.split for candidate in candidates) if "split" in found.columns else None,
        folds=tuple(candidate.fold for candidate in candidates) if "fold" in found.columns else None,
        groups=groups_of(candidates) if "group" in found.columns or any(segments) else None,
        left_out=left_out,
        skipped=dict(found.skipped),
        warnings=listed(sorted(found.warnings)),
        segments=segments if any(segments) else None,
    )


def usable(found: Found, decode_all: bool) -> list[Candidate]:
    """The candidates that can be used, with their lengths, equal segments made one; the others are noted in `found`."""
    candidates = _within_recordings(_readable(found, decode_all), found)
    return _without_copies(_once_each(candidates, found), found)


def split(data: FolderData, val_share: float = 0.2, seed: int = 0, *, fold: str | None = None) -> Split:
    """Divide clips into training, validation and test, by their split or fold column or else at random.

    With a fold column, `fold` (default: the first) is validated on. Where no column names validation clips, about `val_share` of
    each class's training clips are drawn, at least one, and whole groups where there are groups. The last clip or group of a class
    always stays in training. Classes that have nothing to be trained on, or to be validated on, are logged. Equal data and seed
    give an equal split.

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
    if untrained := [data.class_names[k] for k in np.flatnonzero(~data.targets[result.train].any(0))]:
        _log_classes("classes have no clip to train on", untrained)
    if data.groups:
        part_of: dict[str, str] = {}
        for group, part in zip(data.groups, parts, strict=True):
            if part_of.setdefault(group, part) != part:
                raise UserError(f"group {group!r} is in {part_of[group]} and {part}; give all of its clips one split or fold")
    return result


def with_drawn_folds(data: FolderData, folds: int, seed: int = 0) -> FolderData:
    """Divide clips into folds "1", "2", ..., each with about the same share of each class, and whole groups where there are groups.

    Equal data and seed give equal folds. Raises UserError where a column or folders divide the clips already, and where there are
    too few.
    """
    for column, kind in ((data.folds, "fold"), (data.splits, "split")):
        if column is not None:
            raise UserError(f"the clips are divided by their {kind} already; leave --folds or that out")
    fold_of = draw_folds(data.targets, data.groups, folds, seed)
    return replace(data, folds=tuple(str(fold + 1) for fold in fold_of))


def fold_names(data: FolderData) -> list[str]:
    """The folds, in order. Raises UserError where there are fewer than two."""
    folds = sorted(set(data.folds or ()), key=lambda name: (len(name), name))
    if len(folds) < 2:
        raise UserError(f"there are {len(folds)} folds; give a table with a column fold of two at least, or --folds")
    return folds


def _listed_parts(data: FolderData, fold: str | None) -> np.ndarray:
    """The part of each clip, (N,) of `SPLITS`, by the fold or split column; all clips are for training where there is none."""
    if data.folds is None:
        if fold is not None:
            raise UserError(f"fold {fold} is asked for, but there is no fold column (and no --folds)")
        return np.array(data.splits or ["train"] * len(data.paths))
    folds = fold_names(data)
    fold = folds[0] if fold is None else fold
    if fold not in folds:
        raise UserError(f"fold {fold!r} cannot be held out; there are {', '.join(folds)}")
    return np.where(np.array(data.folds) == fold, "val", "train").astype("U5")


def _log_unvalidated(data: FolderData, training: np.ndarray, drawn: np.ndarray) -> None:
    """Log the classes of the training clips of which none is drawn to validate on."""
    targets = data.targets[training]
    names = [data.class_names[k] for k in np.flatnonzero(targets.any(0) & ~targets[drawn].any(0))]
    if names:
        what = "group" if data.groups else "clip"
        _log_classes(f"classes have no {what} to spare and are not validated on", names)


def _log_classes(what: str, names: Sequence[str]) -> None:
    logger.warning("%d %s: %s", len(names), what, ", ".join(names[:5]) + (", ..." if len(names) > 5 else ""))


def _readable(found: Found, decode_all: bool) -> list[Candidate]:
    """Candidates whose recordings can be read, with the lengths of these."""
    paths = {candidate.real_path: candidate.path for candidate in found.candidates}
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda path: _measure(path, decode_all), paths.values())
        bar = tqdm(results, total=len(paths), desc="checking", unit="file", disable=None, leave=False)
        measured = dict(zip(paths, bar, strict=True))
    readable = []
    for candidate in found.candidates:
        seconds, remarks = measured[candidate.real_path]
        if seconds is None:
            found.left_out += [(candidate.name, remark) for remark in remarks]
        else:
            found.warnings.update((candidate.name, remark) for remark in remarks)
            readable.append(replace(candidate, seconds=seconds, recording_seconds=seconds))
    return readable


def _measure(path: Path, decode_all: bool) -> tuple[float | None, list[str]]:
    """Seconds of a recording and what is unusual about it, or None and why it cannot be read."""
    warnings: list[str] = []
    try:
        if not decode_all:
            samples, rate = audio.measure(path, check_end=True, warnings=warnings, name="it")
            return samples / rate, warnings
        blocks = audio.read_blocks(path, "it", lambda rate: _BLOCK_SECONDS * rate, warnings=warnings)
        rate = next(blocks)
        return sum(map(len, mono(blocks, rate, "it", warnings=warnings))) / rate, warnings
    except (audio.AudioError, OSError) as error:
        return None, [str(error)]


def _within_recordings(candidates: Iterable[Candidate], found: Found) -> list[Candidate]:
    """Candidates whose segments, if they have any, begin in their recordings; cut at the end of these, and with their lengths."""
    kept = []
    for candidate in candidates:
        if candidate.segment is None:
            kept.append(candidate)
            continue
        start, end = candidate.segment
        length = candidate.seconds
        if start < 0 or start >= length:
            found.left_out.append((candidate.clip_name, f"is not within its recording of {length:.3f} s"))
            continue
        end = min(end, round(length, 6))
        if end - start < _SHORTEST:
            reason = "ends before it starts" if end < start else f"is empty (shorter than {_SHORTEST} s)"
            found.left_out.append((candidate.clip_name, reason))
            continue
        if length + _BEHIND_END < candidate.segment[1] < inf:
            found.warnings.add((candidate.clip_name, f"is cut at the end of its recording of {length:.3f} s"))
        kept.append(replace(candidate, segment=(start, end), seconds=end - start))
    return kept


def _once_each(candidates: Iterable[Candidate], found: Found) -> list[Candidate]:
    """The first candidate of each recording or segment, with the labels of equal segments."""
    first: dict[tuple, Candidate] = {}
    for candidate in candidates:
        key = (candidate.real_path, candidate.segment)
        kept = first.setdefault(key, candidate)
        if kept is candidate:
            continue
        if candidate.segment and (kept.split, kept.fold, kept.group) == (candidate.split, candidate.fold, candidate.group):
            first[key] = replace(kept, labels=tuple(dict.fromkeys(kept.labels + candidate.labels)))
        else:
            what = "segment" if candidate.segment else "file"
            found.left_out.append((candidate.clip_name, f"the same {what} as {kept.clip_name}{_other_class(kept, candidate)}"))
    return list(first.values())


def _without_copies(candidates: Sequence[Candidate], found: Found) -> list[Candidate]:
    """The candidates of the first recording of each content."""
    first_of: dict[str, Candidate] = {}
    for candidate in candidates:
        first_of.setdefault(candidate.real_path, candidate)
    groups = groups_of_same_content([Path(path) for path in first_of])
    original = {str(copy): first_of[str(first)] for first, *copies in groups for copy in copies}
    kept = []
    for candidate in candidates:
        if first := original.get(candidate.real_path):
            other = "" if candidate.segment or first.segment else _other_class(first, candidate)
            found.left_out.append((candidate.name, f"has the same bytes as {first.name}{other}"))
        else:
            kept.append(candidate)
    return kept


def groups_of(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The group of each candidate, which is the same for all segments of a recording: its name where no row gives one."""
    groups: dict[str, str] = {}
    for candidate in candidates:
        if candidate.group and groups.setdefault(candidate.real_path, candidate.group) != candidate.group:
            both = f"{groups[candidate.real_path]} and {candidate.group}"
            raise UserError(f"segments of {candidate.name} are in the groups {both}; a recording must not be divided, so give one")
    return tuple(groups.setdefault(candidate.real_path, candidate.name) for candidate in candidates)


def _other_class(kept: Candidate, copy: Candidate) -> str:
    return "" if kept.labels == copy.labels else f" (which is of {'; '.join(kept.labels) or 'no class'})"


def listed(remarks: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Names and remarks that can be printed, each pair once."""
    counts = Counter((printable(name), remark) for name, remark in remarks)
    return tuple((name, f"{remark} ({count} rows)" if count > 1 else remark) for (name, remark), count in counts.items())
