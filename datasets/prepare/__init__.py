"""Preparers: from a download, or a folder and a CSV, to the files the data sets read. This file: what they share."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.hdf5_mp3 import Mp3Writer

_BATCH = 64  # recordings under conversion at a time; bounds the memory, whatever the size of the data set


@dataclass(frozen=True)
class Recording:
    """A recording that is to become an entry of an HDF5 file."""

    name: str  # key of the entry, up to 20 bytes
    path: str | Path | None  # audio file of any format, rate and number of channels; None when there is none
    classes: tuple[int, ...]  # indices of its classes


@dataclass(frozen=True)
class Report:
    """What became of the recordings: counts, and the ones that are not in the file."""

    written: int
    already_there: int  # from an earlier run that was broken off
    missing: tuple[str, ...]  # names
    unreadable: tuple[tuple[str, str], ...]  # (name, reason)


def write_recordings(recordings: Sequence[Recording], output: str | Path, num_classes: int, *, num_workers: int = 2) -> Report:
    """Convert recordings to mono 32 kHz mp3 in `num_workers` threads and write them to an HDF5 file, in order.

    Mono 32 kHz mp3s are stored byte for byte. A run that was broken off is continued by calling this again. What is
    missing or unreadable is left out and reported. Raises ValueError when nothing at all could be written, and the
    errors of `Mp3Writer`.
    """
    with Mp3Writer(output, num_classes) as writer:
        already_there = len(writer.names)
        left = [recording for recording in recordings if recording.name not in writer.names]
        missing = tuple(recording.name for recording in left if recording.path is None)
        found = [recording for recording in left if recording.path is not None]
        unreadable = []
        for recording, mp3 in tqdm(_converted(found, num_workers), total=len(found), unit="clip", disable=None):
            if isinstance(mp3, Exception):
                unreadable.append((recording.name, str(mp3)))
            else:
                target = np.zeros(num_classes, np.uint8)
                target[list(recording.classes)] = 1
                writer.add(recording.name, mp3, target)
        if not writer.names:
            raise ValueError(
                f"none of {len(recordings)} recordings could be written: {len(missing)} are missing, "
                f"{len(unreadable)} unreadable{f', the first: {unreadable[0][1]}' if unreadable else ''}"
            )
    return Report(len(found) - len(unreadable), already_there, missing, tuple(unreadable))


def write_report(report: Report, path: str | Path) -> None:
    """Write a TSV with a line for each clip that is missing or unreadable: name, what, reason."""
    rows = [(name, "missing", "") for name in report.missing]
    rows += [(name, "unreadable", " ".join(reason.split())) for name, reason in report.unreadable]
    lines = ["\t".join(row) for row in [("name", "what", "reason"), *rows]]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _converted(recordings: Sequence[Recording], num_workers: int) -> Iterator[tuple[Recording, bytes | Exception]]:
    """Each recording with its mp3, or with the reason why there is none."""
    with ThreadPoolExecutor(num_workers) as pool:  # threads do: decoding, resampling and encoding release the GIL
        for start in range(0, len(recordings), _BATCH):
            batch = recordings[start : start + _BATCH]
            yield from zip(batch, pool.map(_convert, batch), strict=True)


def _convert(recording: Recording) -> bytes | Exception:
    try:
        return audio.to_mp3(recording.path)
    except (audio.AudioError, OSError) as error:
        return error
