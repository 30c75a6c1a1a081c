"""The recordings in a folder, which may be used: a class is a folder."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from datasets.audio_folders import Problem, list_recordings
from models.errors import UserError

SPLITS = ("train", "val", "test")
SPLIT_OF_WORD = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}
SPLIT_OF_WORD |= dict.fromkeys(("val", "valid", "validation"), "val")


@dataclass(frozen=True)
class Candidate:
    """A recording, or a segment of one, that may be used."""

    name: str  # of the recording
    path: Path
    real_path: str  # links resolved
    labels: tuple[str, ...]
    segment: tuple[float, float] | None = None  # start and end in seconds, infinity: the end of the recording; None: all of it
    split: str = ""
    fold: str = ""
    group: str = ""
    seconds: float = 0.0  # 0: not measured yet
    recording_seconds: float = 0.0  # of all of the recording

    @property
    def clip_name(self) -> str:
        if self.segment is None:
            return self.name
        start, end = self.segment
        return f"{self.name} {start}-{'end' if end == inf else end} s"


@dataclass
class Found:
    """The recordings that a folder or a table names, and what of them cannot be used."""

    candidates: list[Candidate] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (name, reason)
    warnings: set[tuple[str, str]] = field(default_factory=set)  # (name, what is unusual about it)
    skipped: Counter[str] = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)  # those of split, fold and group that are there
    single_label: bool = True


def from_folders(root: Path) -> Found:
    """List the recordings below `root` (links resolved) by the folders they are in."""
    found = Found()
    depth = 1 if _has_split_folders(root) else 0  # of the class folders
    if depth:
        found.columns.add("split")
    for folder in _subfolders(root):
        found.classes.update(normal(inner.name) for inner in (_subfolders(folder) if depth else (folder,)))
    for path in list_below(root, found):
        inside = path.relative_to(root).parts
        name = "/".join(inside)
        if len(inside) <= depth + 1:
            found.left_out.append((name, "lies in no class folder"))
        elif reason := why_unusable(path, root):
            found.left_out.append((name, reason))
        else:
            part = SPLIT_OF_WORD[inside[0].lower()] if depth else ""
            labels = (normal(inside[depth]),)
            found.candidates.append(Candidate(normal(name), path, os.path.realpath(path), labels, split=part))
    return found


def list_below(root: Path, found: Found) -> list[Path]:
    """The recordings below a folder, by suffix; what cannot be listed and what is no audio is noted in `found`."""
    problems: list[Problem] = []
    paths = list(list_recordings(root, problems=problems, skipped=found.skipped))
    found.left_out += [(problem.path.relative_to(root).as_posix(), problem.reason) for problem in problems]
    return paths


def why_unusable(path: Path, root: Path) -> str | None:
    """Why a path must not be opened; None if it may. Links may lead anywhere."""
    if any("\udc80" <= letter <= "\udcff" or letter == "\0" for letter in str(path)):
        return "its name is not UTF-8; rename it"
    if not path.is_relative_to(root):
        return f"lies outside of {root}; move or link it into the folder"
    if not os.path.exists(path):
        return "broken link" if path.is_symlink() else "not found"
    return None if path.is_file() else "no regular file"


def normal(name: str) -> str:
    """Compose letters (Unicode NFC), so that a name has one spelling."""
    return unicodedata.normalize("NFC", name)


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # which `list_recordings` reports
        return []


def _has_split_folders(root: Path) -> bool:
    """Whether the folders in `root` are splits, two at least, rather than classes; UserError where some are and some are not."""
    names = [folder.name for folder in _subfolders(root)]
    others = [name for name in names if name.lower() not in SPLIT_OF_WORD]
    splits = {SPLIT_OF_WORD[name.lower()] for name in names if name.lower() in SPLIT_OF_WORD}
    if others and len(splits) > 1:
        raise UserError(
            f"{root} has folders for training and testing and others next to them ({', '.join(others[:3])}), so it is not clear "
            "what the classes are; move the others away, or list the recordings in a CSV"
        )
    return len(names) > 1 and not others
