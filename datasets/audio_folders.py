"""The recordings in a folder and its subfolders, and what lies there and is none.

Files and folders whose names begin with a dot, `._*` and `.Trash*` among them, do not count. A link to a folder is followed, unless
that folder is listed anyway.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datasets.audio import SUFFIXES

SUFFIXES_NAMED = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """A place in a folder that could not be listed, or was not."""

    path: Path
    reason: str
    is_harmless: bool = False  # what is there is listed elsewhere

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def list_recordings(
    folder: str | Path,
    *,
    problems: list[Problem],
    skipped: Counter[str] | None = None,
    suffixes: Sequence[str] = SUFFIXES,
) -> Iterator[Path]:
    """Yield the recordings below a folder, recognised by their suffix, as they are found, in the order of their paths.

    One folder is read at a time. `problems` gets what is found on the way: broken links, folders that cannot be read, links to
    folders that are listed already or hold the link, and devices and pipes with the suffix of a recording. `skipped` counts the
    other files by suffix, in lower case. Raises FileNotFoundError and NotADirectoryError.
    """
    root = Path(folder)
    if not root.is_dir():
        raise (NotADirectoryError if root.exists() else FileNotFoundError)(f"{root} is not a folder; give one with recordings")
    skipped = Counter() if skipped is None else skipped
    real_root = os.path.realpath(root)
    listed = {real_root: root}  # folders, by their paths without links
    pending = [_entries(root, problems, skipped, suffixes)]  # of the folder that is read and of those around it
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
        elif not entry.is_folder:
            yield entry.path
        else:
            real = os.path.realpath(entry.path)
            if real in listed:
                problems.append(Problem(entry.path, f"is the same folder as {listed[real]}; listed once", is_harmless=True))
            elif entry.is_link and _is_listed_itself(real, real_root):
                reason = f"is a link to {real}, which is listed itself; not followed"
                problems.append(Problem(entry.path, reason, is_harmless=True))
            elif entry.is_link and _is_inside(os.path.realpath(entry.path.parent), real):
                problems.append(Problem(entry.path, "is a link to a folder that holds it; not followed"))
            else:
                listed[real] = entry.path
                pending.append(_entries(entry.path, problems, skipped, suffixes))


def find_recordings(paths: Iterable[str | Path]) -> list[Path]:
    """Return files as they are, and the recordings in folders; what is wrong with these is logged. Errors as `list_recordings`."""
    found: list[Path] = []
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    for path in map(Path, paths):
        found += list_recordings(path, problems=problems, skipped=skipped) if path.is_dir() else [path]
    for problem in problems:
        logger.warning("%s", problem)
    if skipped:
        logger.info("%s", describe_skipped(skipped))
    return found


def describe_skipped(counts: Counter[str]) -> str:
    """Return what `list_recordings` counted: "3 files are no audio: .txt (2), .jpg (1)"; an empty text for nothing."""
    if not counts:
        return ""
    total = counts.total()
    named = [f"{suffix or 'without a suffix'} ({count})" for suffix, count in counts.most_common(SUFFIXES_NAMED)]
    more = ", ..." if len(counts) > SUFFIXES_NAMED else ""
    return f"{total} file{'s are' if total > 1 else ' is'} no audio: {', '.join(named)}{more}"


class _Entry(NamedTuple):
    path: Path
    is_folder: bool
    is_link: bool  # of a folder


def _entries(folder: Path, problems: list[Problem], skipped: Counter[str], suffixes: Sequence[str]) -> Iterator[_Entry]:
    """Yield the recordings and the folders in a folder, sorted by name."""
    names: list[str] = []
    folders: dict[str, bool] = {}  # whether they are links
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                    folders[entry.name] = entry.is_symlink()
                    names.append(entry.name)
                elif entry.is_symlink() and not os.path.exists(entry):
                    problems.append(Problem(folder / entry.name, "is a broken link"))
                elif suffix not in suffixes:
                    skipped[suffix] += 1
                elif entry.is_file():
                    names.append(entry.name)
                else:
                    problems.append(Problem(folder / entry.name, "is no regular file"))
    except OSError as error:
        problems.append(Problem(folder, f"cannot be read ({error.strerror})"))
    names.sort()
    for name in names:
        yield _Entry(folder / name, name in folders, folders.get(name, False))


def _is_inside(path: str, folder: str) -> bool:
    """Return whether a path is in a folder or is this folder itself; both are without links."""
    return Path(path).is_relative_to(folder)


def _is_listed_itself(path: str, root: str) -> bool:
    """Return whether a folder is below the root and not hidden; both are without links."""
    return _is_inside(path, root) and not any(name.startswith(".") for name in Path(path).relative_to(root).parts)
