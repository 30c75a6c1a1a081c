"""A data set for ex_folder.py out of an archive: recordings, parts, windows or events with the labels that reach a threshold."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datasets.audio import AudioError
from datasets.sound import open_sound
from helpers.archive.inputs import Entry, open_entry
from helpers.archive.parcels import PART_SECONDS
from helpers.archive.plan import Plan
from helpers.archive.queries.joining import matrix
from helpers.archive.queries.reading import Archive, StoredModel
from helpers.archive.storage import is_remote
from helpers.tagger.selection import find_classes
from helpers.tagger.thresholds import class_thresholds
from models.command import printable
from models.errors import UserError
from models.files import replacing, replacing_folder

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "labels.csv"  # in the folder of a copy
COLUMNS = ("path", "labels", "start", "end")


class Clip(NamedTuple):
    """What becomes a row of the table."""

    source: str
    channel: int | None  # from 1; None: the mix of all
    start: float | None  # seconds; None: the whole recording
    end: float | None
    labels: list[str]


def export_table(
    archives: Sequence[Archive], model: StoredModel, path: Path, labels: Sequence[str] | None, threshold: str
) -> tuple[int, str]:
    """Write a table of path, labels, start and end, that ex_folder.py reads with --csv; return the number of rows and the folder.

    `labels` are those that count (None: all). `threshold` is a number or the path of a table of label and threshold. Rows without
    any of the labels are left out. Paths are the names in the archive, below the folder that is returned. Raises UserError for
    recordings that are not files of one folder, and for single channels of files, which ex_folder.py does not read.
    """
    choose = _Choice(model, labels, threshold)
    rows, root = 0, None
    if any(_channel(archive) is not None or "channel" in archive.columns for archive in archives):
        raise UserError("ex_folder.py mixes all channels, and these are results of single ones; give --copy")
    with replacing(path) as temporary, _table(temporary, COLUMNS) as table:
        for archive in archives:
            for shard in archive.shards:
                entries = _entries(archive, shard)
                for clip in choose(archive, shard):
                    folder = _root(_find(entries, clip.source))
                    if root not in (None, folder):
                        raise UserError(f"ex_folder.py reads one folder, and recordings are in {root} and {folder}; give --copy")
                    root = folder
                    table.writerow(_cells(clip.source, clip))
                    rows += 1
        _refuse_none(rows, threshold)
    return rows, root or "/"


def export_copy(
    archives: Sequence[Archive], model: StoredModel, folder: Path, labels: Sequence[str] | None, threshold: str
) -> tuple[int, int]:
    """Cut the recordings into a new folder, with a table of them; return the numbers of files and of recordings that failed.

    Files are FLAC at the rate of their recording, in one channel: the one that the row is about, or the mix of all. A recording (or
    channel) with events is one file, with its events in the table; of others, each row is one. The column group has the recording.
    Recordings that can no longer be read are reported and left out. Arguments are those of `export_table`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists; give a new folder for the recordings")
    choose = _Choice(model, labels, threshold)
    files = failed = 0
    with replacing_folder(folder) as temporary, _table(temporary / TABLE, (*COLUMNS, "group")) as table:
        for archive in archives:
            for shard in archive.shards:
                entries = _entries(archive, shard)
                for source, of_recording in groupby(choose(archive, shard), key=lambda clip: clip.source):
                    try:
                        for clips in _files(of_recording, archive.unit):
                            name = f"{files:07}-{PurePosixPath(source).stem[:40]}.flac"
                            start, end = (None, None) if archive.unit == "events" else clips[0][2:4]
                            _cut(_find(entries, source), clips[0], start, end, temporary / name)
                            files += 1
                            table.writerows([*_cells(name, clip, times=archive.unit == "events"), source] for clip in clips)
                    except (AudioError, FileNotFoundError, PermissionError) as error:
                        print(f"left out: {printable(error)}", file=sys.stderr)
                        (temporary / name).unlink(missing_ok=True)
                        failed += 1
        _refuse_none(files, threshold)
    return files, failed


class _Choice:
    """Picks the rows, and the labels of each, that reach their thresholds."""

    def __init__(self, model: StoredModel, labels: Sequence[str] | None, threshold: str) -> None:
        self.model = model
        try:
            given: float | str = float(threshold)
        except ValueError:
            given = threshold
        self.thresholds = np.broadcast_to(class_thresholds(given, model.labels), len(model.labels)).astype(float)
        classes = find_classes(labels, model.labels)
        if classes is not None:
            self.thresholds[np.setdiff1d(np.arange(len(model.labels)), classes)] = np.inf

    def __call__(self, archive: Archive, shard: int) -> Iterator[Clip]:
        archive.require_scores(self.model)
        label, listed, scored = (name + self.model.suffix for name in ("label", "labels", "scores"))
        shared, suffix = ["source", "start", "end", "error"], self.model.suffix
        shared += ["channel"] if "channel" in archive.columns else []
        names = [label, f"score{suffix}"] if archive.unit == "events" else [listed, f"label_scores{suffix}"]
        names = [scored] if scored in archive.columns else names
        for table in archive.batches([*shared, *names], shard):
            table = table.filter(table["error"].is_null())
            columns = [table[name].to_pylist() for name in ("source", "start", "end")]
            own = _channel(archive)
            channels = table["channel"].to_pylist() if "channel" in shared else [own] * len(table)
            for source, start, end, channel, classes in zip(*columns, channels, self._classes(table, names), strict=True):
                if classes:
                    found = [self._name(k) for k in classes]
                    # parts of long recordings are longer than this
                    is_whole = archive.unit == "recordings" and start == 0 and end < PART_SECONDS / 2
                    yield Clip(source, channel, None if is_whole else start, None if is_whole else end, found)

    def _classes(self, table: pa.Table, names: Sequence[str]) -> Iterator[list[int]]:
        """The classes of each row."""
        if len(names) == 1:
            chosen = matrix(table[names[0]]) >= self.thresholds
            yield from (np.flatnonzero(row).tolist() for row in chosen)
            return
        for found, scores in zip(*(table[name].to_pylist() for name in names), strict=True):
            if not isinstance(found, list):  # an event, or none
                found, scores = ([], []) if found is None else ([found], [scores])
            yield [k for k, score in zip(found, scores, strict=True) if score >= self.thresholds[k]]

    def _name(self, k: int) -> str:
        name = self.model.labels[k]
        if ";" in name:
            raise UserError(f"label {name!r} holds a ';', which separates labels in the table; choose others by --labels")
        return name


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        yield table


def _cells(path: str, clip: Clip, *, times: bool = True) -> list[str]:
    seconds = ("" if value is None or not times else f"{value:.6f}" for value in (clip.start, clip.end))
    return [path, ";".join(clip.labels), *seconds]


def _refuse_none(count: int, threshold: str) -> None:
    if not count:
        raise UserError(f"no recording has one of the labels with a score of at least {threshold}; lower --threshold")


def _files(clips: Iterable[Clip], unit: str) -> Iterator[list[Clip]]:
    """Yield the clips of each file that is cut of one recording."""
    if unit == "events":
        yield from (list(of_channel) for _, of_channel in groupby(clips, key=lambda clip: clip.channel))
    else:
        yield from ([clip] for clip in clips)


def _channel(archive: Archive) -> int | None:
    """The one channel that the recordings were reduced to, by --channel."""
    return archive.manifest["settings"].get("channel")


def _root(entry: Entry) -> str:
    """The folder that a recording's name is relative to."""
    if entry.member is not None or is_remote(entry.address) or not entry.address.endswith(entry.source):
        raise UserError(f"{entry.source} is no file below a folder, as ex_folder.py needs them; give --copy")
    return entry.address.removesuffix(entry.source).rstrip("/") or "/"


def _entries(archive: Archive, shard: int) -> dict[str, Entry]:
    """Where the recordings of a shard are."""
    plan = Plan(archive.address)
    if shard >= plan.num_shards:
        raise UserError(f"{archive.address} has no plan, which says where its recordings are; write the archive again")
    return {entry.source: entry for task in range(plan.tasks(shard)) for entry in plan.recordings(shard, task)}


def _find(entries: dict[str, Entry], source: str) -> Entry:
    if source not in entries:
        raise FileNotFoundError(f"{source} is not in the plan")
    return entries[source]


def _cut(entry: Entry, clip: Clip, start: float | None, end: float | None, path: Path) -> None:
    import soundfile

    sound = open_sound(_content(entry), name=clip.source, start=start or 0.0, end=end, channel=clip.channel)
    with soundfile.SoundFile(path, "w", sound.rate, 1, "PCM_16", format="FLAC") as file:
        for block in sound.blocks:
            file.write(block)


def _content(entry: Entry) -> str | bytes:
    try:
        return open_entry(entry)
    except OSError as error:  # such as of an object store
        raise AudioError(f"{entry.source} cannot be read ({error})") from error
