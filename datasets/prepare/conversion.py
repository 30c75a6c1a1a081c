"""Convert recordings of any format to mp3s in an HDF5 file or to wavs in a folder, and report what is missing."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.prepare import downloads
from models.errors import UserError
from models.files import write_bytes

_BATCH = 64  # recordings under conversion at a time; bounds the memory, whatever the size of the data set


@dataclass(frozen=True)
class Recording:
    """A recording to be written to an HDF5 file."""

    name: str  # key of the entry, up to 20 bytes
    path: str | Path | downloads.Entry | None  # audio file of any format, rate and number of channels; None when there is none
    classes: tuple[int, ...]  # indices of its classes


@dataclass(frozen=True)
class Report:
    """How many recordings were written, and which were not."""

    written: int
    already_there: int  # from an earlier run
    missing: tuple[str, ...]  # names
    unreadable: tuple[tuple[str, str], ...]  # (name, reason)

    @property
    def lost(self) -> set[str]:
        """Names of the recordings that were not written."""
        return {*self.missing, *(name for name, _ in self.unreadable)}

    def __str__(self) -> str:
        there, missing, unreadable = self.written + self.already_there, len(self.missing), len(self.unreadable)
        written = f"{self.written} written now, {self.already_there} in an earlier run"
        return f"{there} of {there + missing + unreadable} clips ({written}); {missing} missing, {unreadable} unreadable"


def write_recordings(recordings: Sequence[Recording], output: str | Path, num_classes: int, *, num_workers: int = 2) -> Report:
    """Convert recordings to mono 32 kHz mp3 in `num_workers` threads and write them to an HDF5 file, in order.

    Mono 32 kHz mp3s are stored byte for byte. Calling this again resumes an interrupted run. What is
    missing or unreadable is left out and reported. Raises UserError when nothing at all could be written, and the
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
            raise UserError(
                f"none of {len(recordings)} recordings could be written: {len(missing)} are missing, "
                f"{len(unreadable)} unreadable{f', the first: {unreadable[0][1]}' if unreadable else ''}"
            )
    return Report(len(found) - len(unreadable), already_there, missing, tuple(unreadable))


def write_report(report: Report, output: Path) -> None:
    """Print a summary, and list what is missing or unreadable (name, what, reason) in a TSV in a folder or next to a file."""
    rows = [(name, "missing", "") for name in report.missing]
    rows += [(name, "unreadable", " ".join(reason.split())) for name, reason in report.unreadable]
    path = output / "report.tsv" if output.is_dir() else output.with_name(f"{output.name}.report.tsv")
    write_table(path, [("name", "what", "reason"), *rows], delimiter="\t")
    print(f"{output}: {report}, listed in {path}")


def _converted(recordings: Sequence[Recording], num_workers: int) -> Iterator[tuple[Recording, bytes | Exception]]:
    """Yield each recording with its mp3, or with the reason why there is none."""
    with ThreadPoolExecutor(num_workers) as pool:  # threads do: decoding, resampling and encoding release the GIL
        for start in range(0, len(recordings), _BATCH):
            batch = recordings[start : start + _BATCH]
            yield from zip(batch, pool.map(_convert, batch), strict=True)


def _convert(recording: Recording) -> bytes | Exception:
    try:
        return audio.to_mp3(downloads.read(recording.path), name=str(recording.path))
    except (UserError, OSError) as error:  # AudioError, and damaged archives
        return error


@contextmanager
def worker_processes(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes that end at once when an error or an interrupt leaves the block."""
    with ProcessPoolExecutor(num_workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise UserError("a worker process was killed, perhaps for lack of memory; use fewer --num_workers") from error
            raise


def write_wavs(
    sources: dict[str, Path | downloads.Entry | None], output_dir: Path, sample_rate: int | None, *, num_workers: int = 2
) -> Report:
    """Write recordings, by the file names they are to have, as mono 16-bit wavs to a folder, in `num_workers` processes.

    `sample_rate` is in Hz; None copies the files as they are, if they can be decoded. Files that are there are kept: calling
    this again resumes an interrupted run. Raises OSError when a file cannot be written, as on a full disk.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for leftover in output_dir.glob(".*.part"):  # of workers that an interrupt ended
        leftover.unlink()
    there = {entry.name for entry in os.scandir(output_dir)}
    left = {name: source for name, source in sources.items() if name not in there}
    missing = tuple(name for name, source in left.items() if source is None)
    jobs = [(name, source) for name, source in left.items() if source is not None]
    unreadable = []
    with worker_processes(num_workers) as pool:
        results = pool.map(partial(_write_wav, output_dir, sample_rate), jobs, chunksize=8)
        for (name, _), reason in zip(jobs, tqdm(results, total=len(jobs), unit="clip", disable=None), strict=True):
            if reason:
                unreadable.append((name, reason))
    return Report(len(jobs) - len(unreadable), len(sources) - len(left), missing, tuple(unreadable))


def _write_wav(output_dir: Path, sample_rate: int | None, job: tuple[str, Path | downloads.Entry]) -> str | None:
    """Write one wav; returns why its source cannot be used."""
    name, source = job
    try:
        content = downloads.read(source)
        waveform, rate = audio.decode(content, name=str(source))
        if sample_rate is not None:
            content = audio.encode_wav(audio.resample(waveform, rate, sample_rate), sample_rate)
    except (UserError, OSError) as error:
        return str(error)
    write_bytes(output_dir / name, content)
    return None
