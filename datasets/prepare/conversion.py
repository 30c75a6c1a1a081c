"""Convert recordings of any format to mp3s in an HDF5 file or to wavs in a folder, and report what is missing."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.csv_table import write_results
from datasets.decoding.isolated import IS_AVAILABLE, Decoders
from datasets.decoding.reading import plain_format
from datasets.hdf5_mp3 import Mp3Writer
from datasets.prepare import downloads
from datasets.shards.stored import Stored
from models.command import printable
from models.errors import UserError
from models.files import remove_leftovers, write_bytes

_RATE = 32000  # Hz
_USUAL_SECONDS = 10  # more of a clip is not better
_Job, _Result = TypeVar("_Job"), TypeVar("_Result")
_SLACK = 1.0  # seconds that a recording of a segment may be longer than it
_BATCH = 64  # recordings under conversion at a time; bounds the memory, whatever the size of the data set


@dataclass(frozen=True)
class Source:
    """Where a recording is, and which part of it is wanted where it is longer."""

    path: str | Path | downloads.Entry | Stored  # audio or video of any format, rate and number of channels
    segment: tuple[float, float] | None = None  # start and end, seconds


@dataclass(frozen=True)
class Recording:
    """A recording to be written to an HDF5 file."""

    name: str  # key of the entry, up to 20 bytes
    sources: tuple[Source, ...]  # copies of it: the one that holds the most is used, of equal ones the first; empty when missing
    classes: tuple[int, ...]  # indices of its classes


@dataclass(frozen=True)
class Report:
    """How many recordings were written, and which were not, or not as they should be."""

    written: int
    already_there: int  # from an earlier run
    missing: tuple[str, ...]  # names
    unreadable: tuple[tuple[str, str], ...]  # (name, reason)
    damaged: tuple[tuple[str, str], ...] = ()  # written up to their damage: (name, what is missing)
    duplicates: tuple[tuple[str, str], ...] = ()  # (name, which copy was not used)
    problems: tuple[tuple[str, str], ...] = ()  # (folder, shard or clip in one, why it was not read, or not to its end)

    @property
    def lost(self) -> set[str]:
        """Names of the recordings that were not written."""
        return {*self.missing, *(name for name, _ in self.unreadable)}

    def __str__(self) -> str:
        there, missing, unreadable = self.written + self.already_there, len(self.missing), len(self.unreadable)
        written = f"{self.written} written now, {self.already_there} in an earlier run"
        others = {"damaged": self.damaged, "duplicate": self.duplicates, "other problems": self.problems}
        found = "".join(f", {len(rows)} {what}" for what, rows in others.items() if rows)
        return f"{there} of {there + missing + unreadable} clips ({written}); {missing} missing, {unreadable} unreadable{found}"


@dataclass(frozen=True)
class Converted:
    """A recording as it is stored."""

    mp3: bytes
    damage: list[str]
    unused: list[str]  # copies


# Yields each recording with what becomes of it, or with why it cannot be used, in order.
Converter = Callable[[Sequence[Recording]], Iterator[tuple[Recording, Converted | Exception]]]


def write_recordings(
    recordings: Sequence[Recording],
    output: str | Path,
    num_classes: int,
    *,
    num_workers: int = 2,
    converter: Converter | None = None,
) -> Report:
    """Convert recordings to mono 32 kHz mp3, `num_workers` at a time or by a `converter`, and write them to an HDF5 file, in order.

    Undamaged mono 32 kHz mp3s are stored byte for byte, and damaged recordings as far as they go. One that crashes or hangs its
    decoder is unreadable. Calling this again resumes an interrupted run. What is missing or unreadable is left out and reported.
    Raises UserError when nothing at all could be written, and the errors of `Mp3Writer`.
    """
    with Mp3Writer(output, num_classes) as writer:
        already_there = len(writer.names)
        notes = _Notes(Path(output), resumed=already_there > 0)
        left = [recording for recording in recordings if recording.name not in writer.names]
        missing = tuple(recording.name for recording in left if not recording.sources)
        found = [recording for recording in left if recording.sources]
        unreadable = []
        convert_all = converter or partial(_converted, convert, num_workers=num_workers)
        for recording, result in convert_all(found):
            if isinstance(result, Exception):
                unreadable.append((recording.name, str(result)))
            else:
                notes.add(recording.name, result)
                target = np.zeros(num_classes, np.uint8)
                target[list(recording.classes)] = 1
                writer.add(recording.name, result.mp3, target)
        if not writer.names:
            raise UserError(
                f"none of {len(recordings)} recordings could be written: {len(missing)} are missing, "
                f"{len(unreadable)} unreadable{f', the first: {unreadable[0][1]}' if unreadable else ''}"
            )
    damaged, duplicates = notes.close()
    return Report(len(found) - len(unreadable), already_there, missing, tuple(unreadable), damaged, duplicates)


def write_report(report: Report, output: Path) -> None:
    """Print a summary, and list what is amiss (name, what, reason) in a TSV in a folder or next to a file."""
    rows = [(name, "missing", "") for name in report.missing]
    listed = {"unreadable": report.unreadable, "damaged": report.damaged, "duplicate": report.duplicates}
    for what, found in (*listed.items(), ("problem", report.problems)):
        rows += [(name, what, " ".join(reason.split())) for name, reason in found]
    path = output / "report.tsv" if output.is_dir() else output.with_name(f"{output.name}.report.tsv")
    write_results(path, [("name", "what", "reason"), *rows], delimiter="\t")
    print(printable(f"{output}: {report}, listed in {path}"))


class _Notes:
    """What was noted of recordings that are written, kept in a file until the end so that a resumed run reports it as well."""

    def __init__(self, output: Path, *, resumed: bool) -> None:
        self._path = output.with_name(f"{output.name}.notes.part")
        if not resumed:
            self._path.unlink(missing_ok=True)

    def add(self, name: str, converted: Converted) -> None:
        if converted.damage or converted.unused:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps([name, converted.damage, converted.unused]))  # behind a line that a kill cut

    def close(self) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """Return (name, damage) and (name, copy) of all runs, and remove the file."""
        if not self._path.exists():
            return (), ()
        noted: dict[str, tuple[list[str], list[str]]] = {}
        for line in self._path.read_text(encoding="utf-8").split("\n"):
            with suppress(ValueError):  # an empty line, or one that a kill cut: its recording was not committed and is noted again
                name, damage, unused = json.loads(line)
                noted[name] = damage, unused
        self._path.unlink()
        damaged = tuple((name, text) for name, (damage, _) in noted.items() for text in damage)
        return damaged, tuple((name, text) for name, (_, unused) in noted.items() for text in unused)


def _converted(work: Callable[[Decoders, _Job], _Result], jobs: Sequence[_Job], num_workers: int) -> Iterator[tuple[_Job, _Result]]:
    """Yield each job with what `work` makes of it, in order, with a progress bar."""
    with Decoders(keep=num_workers) as decoders, ThreadPoolExecutor(num_workers) as pool:  # threads do: encoding releases the GIL
        progress = tqdm(total=len(jobs), unit="clip", disable=None)
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            for job, result in zip(batch, pool.map(partial(work, decoders), batch), strict=True):
                yield job, result
                progress.update()
        progress.close()


@dataclass(frozen=True)
class _Decoded:
    source: Source
    content: str | Path | bytes
    waveform: np.ndarray  # (samples,) float32 at 32 kHz
    damage: list[str]
    is_part: bool

    def mp3(self) -> bytes:
        if not self.damage and not self.is_part and plain_format(self.content, str(self.source.path)) == ("MP3", _RATE, 1):
            return self.content if isinstance(self.content, bytes) else Path(self.content).read_bytes()
        try:
            return audio.encode_mp3(self.waveform, _RATE)
        except audio.AudioError as error:
            raise audio.AudioError(f"{self.source.path}: {error}") from error


def convert(decoders: Decoders, recording: Recording) -> Converted | Exception:
    """Convert the copy that holds the most."""
    copies: list[_Decoded] = []
    reason: Exception | None = None
    for source in recording.sources:
        try:
            copies.append(_decode(decoders, source))
        except (UserError, OSError) as error:  # AudioError, and damaged archives
            reason = reason or error
    if not copies:
        return reason
    best = max(copies, key=lambda copy: min(len(copy.waveform), _USUAL_SECONDS * _RATE))  # the first of equal ones
    unused = [f"{source.path} is not used, but {best.source.path}" for source in recording.sources if source != best.source]
    try:
        return Converted(best.mp3(), best.damage, unused)
    except (UserError, OSError) as error:
        return error


def _decode(decoders: Decoders, source: Source) -> _Decoded:
    """Decode the wanted part where the recording is so much longer that it must be a whole video, else all of it."""
    content, name = _content(source.path), str(source.path)
    if source.segment:
        start, end = source.segment
        damage: list[str] = []
        with suppress(audio.AudioError):  # it ends before the segment, or is unreadable, which shows below
            waveform = _read(decoders, content, name, damage, start=start, end=end + 2 * _SLACK)
            length = end - start
            if len(waveform) / _RATE > max(length - _SLACK, length + _SLACK - start):
                return _Decoded(source, content, waveform[: round(length * _RATE)], damage, True)
    damage = []
    return _Decoded(source, content, _read(decoders, content, name, damage), damage, False)


def _read(
    decoders: Decoders, content: str | Path | bytes, name: str, damage: list[str], rate: int = _RATE, **part: float
) -> np.ndarray:
    """Decode to (samples,) float32 at `rate`, in Hz, in a process that may crash or hang."""
    if not IS_AVAILABLE:
        waveform, own_rate = audio.decode(content, name=name, warnings=damage, **part)
        return audio.resample(waveform, own_rate, rate)
    sound = decoders.open(content, rate, name=name, **part)
    waveform = np.concatenate([np.empty(0, np.float32), *sound.blocks])
    damage += sound.warnings
    return waveform


def _content(path: str | Path | downloads.Entry | Stored) -> str | Path | bytes:
    """A path as it is, for a video may be large; else the bytes."""
    if isinstance(path, Stored):
        return path.read()
    return downloads.read(path) if isinstance(path, downloads.Entry) else path


@contextmanager
def worker_processes(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes that end at once when an error or an interrupt leaves the block."""
    with ProcessPoolExecutor(num_workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():  # whom a signal to this process alone did not reach
                worker.terminate()
            if isinstance(error, BrokenProcessPool):
                raise UserError("a worker process was killed, perhaps for lack of memory; use fewer --num_workers") from error
            raise


def write_wavs(
    sources: dict[str, Path | downloads.Entry | None], output_dir: Path, sample_rate: int | None, *, num_workers: int = 2
) -> Report:
    """Write recordings, by the file names they are to have, as mono 16-bit wavs to a folder, `num_workers` at a time.

    `sample_rate` is in Hz; None copies the files as they are, if they can be decoded. Files that are there are kept: calling
    this again resumes an interrupted run. Raises OSError when a file cannot be written, as on a full disk.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for leftover in output_dir.glob(".*.????????.part"):  # of an earlier run that was killed
        if (written := leftover.name[1:].rpartition(".part")[0].rpartition(".")[0]) in sources:
            remove_leftovers(output_dir / written)
    there = {entry.name for entry in os.scandir(output_dir)}
    left = {name: source for name, source in sources.items() if name not in there}
    missing = tuple(name for name, source in left.items() if source is None)
    jobs = [(name, source) for name, source in left.items() if source is not None]
    unreadable, damaged = [], []
    for (name, _), result in _converted(partial(_write_wav, output_dir, sample_rate), jobs, num_workers):
        if isinstance(result, str):
            unreadable.append((name, result))
        else:
            damaged += [(name, damage) for damage in result]
    return Report(len(jobs) - len(unreadable), len(sources) - len(left), missing, tuple(unreadable), tuple(damaged))


def _write_wav(
    output_dir: Path, sample_rate: int | None, decoders: Decoders, job: tuple[str, Path | downloads.Entry]
) -> list[str] | str:
    """Write one wav; returns its damages, or why its source cannot be used."""
    name, source = job
    damage: list[str] = []
    try:
        content = downloads.read(source)
        waveform = _read(decoders, content, str(source), damage, sample_rate or _RATE)
        if sample_rate is not None:
            content = audio.encode_wav(waveform, sample_rate)
    except (UserError, OSError) as error:
        return str(error)
    write_bytes(output_dir / name, content)
    return damage
