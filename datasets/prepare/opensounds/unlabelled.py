"""Sound without labels: every recording of the Debian packages that hold audio files, as material for distillation.

It belongs next to the labelled corpus, whose evaluation packages and near copies of whose evaluation recordings it leaves out.
Its files are `unlabelled_segments_mp3.hdf`, with targets of zeros, labelled training clips among them;
`validation_segments_mp3.hdf`, the labelled training recordings of fold 5, which are left out as well; `unlabelled.csv`, the
origin of each clip; and `unlabelled_rejected.tsv`. An interrupted build resumes with the packages that are left; where the file
is finished, the command prints what is in it.
"""

import contextlib
import csv
import functools
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from datasets.audio import SUFFIXES, AudioError, encode_mp3, load
from datasets.csv_table import read_table, write_results, write_table
from datasets.hdf5_mp3 import Mp3Writer, read_entries
from datasets.labels import audioset_labels
from datasets.prepare.archives import ArchiveError, ShortHeader, read_tarred, read_zipped
from datasets.prepare.conversion import worker_processes
from datasets.prepare.opensounds import debian
from datasets.prepare.opensounds.clips import DUPLICATE_SIMILARITY, clip_name, fingerprint
from datasets.prepare.opensounds.debian import PackageError
from datasets.prepare.opensounds.licences import hours_by_kind, licences
from datasets.prepare.opensounds.sounds import SAMPLE_RATE, trim_silence
from datasets.prepare.opensounds.tables import RESOURCES, packages
from models.errors import UserError

CLIP = 10 * SAMPLE_RATE  # samples, at most
SHORTEST = SAMPLE_RATE // 10  # samples of a recording that is worth keeping
PIECES = 4  # at most so many clips of one recording, spread over its length
PACKAGE_SECONDS = 3600.0  # of one package, at most
SILENT_RMS = 10 ** (-60 / 20)
VALIDATION_FOLD = "5"
ARCHIVES = (".zip", ".pk3", ".pk4", ".wz", ".jar", ".love", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
COLUMNS = ("package", "version", "source", "licence", "seconds")  # of unlabelled.csv, after the name
REJECTED, REJECTED_COLUMNS = "unlabelled_rejected.tsv", ("package", "source", "reason")
LABELLED = ("balanced_train", "unbalanced_train", "eval")


@dataclass
class Harvest:
    """What came out of one package."""

    package: str
    version: str = ""
    licence: str = ""
    clips: list[tuple[str, float, bytes]] = field(default_factory=list)  # source, seconds, mp3
    rejected: list[tuple[str, str]] = field(default_factory=list)  # source, reason
    copyright: bytes = b""
    failure: str = ""


@dataclass(frozen=True)
class Known:
    """Fingerprints of the labelled corpus, (n, d) each."""

    held_out: np.ndarray  # evaluation and validation: a recording that has one of them is left out
    training: np.ndarray  # a clip that is one of them is left out, as it is there already


@functools.cache
def load_known(path: Path) -> Known:
    with np.load(path) as arrays:
        return Known(**arrays)


def package_names() -> list[str]:
    """Packages that hold recordings, without those of the evaluation split."""
    with open(RESOURCES / "opensounds" / "audio_packages.tsv", encoding="utf-8", newline="") as file:
        names = [row["package"] for row in csv.DictReader(file, delimiter="\t")]
    evaluation = {package.name for package in packages() if package.split == "eval"}
    return [name for name in names if name not in evaluation]


def is_audio(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def recordings(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Audio files by path, those within archives too; an archive yields what is before its first damage."""
    for path, content in sorted(files.items()):
        if is_audio(path):
            yield path, content
        elif path.lower().endswith(ARCHIVES):
            yield from ((f"{path}/{inner}", data) for inner, data in _unpacked(content))


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in sorted(filter(is_audio, archive.namelist())):
                    with contextlib.suppress(ArchiveError):  # too large; the others are independent of it
                        yield name, read_zipped(archive, name)
        else:
            with tarfile.open(fileobj=io.BytesIO(content), tarinfo=ShortHeader) as archive:
                for member in archive:
                    if member.isfile() and is_audio(member.name):
                        yield member.name, read_tarred(archive, member)
    except (ArchiveError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError, RuntimeError, EOFError, OSError):
        return


def harvest(name: str, deb: Path, repeated: frozenset[str], known_file: Path) -> Harvest:
    """Make the clips of one package but of the files `repeated`, which another package has too; runs in a worker process."""
    result = Harvest(name)
    copyright_path = f"usr/share/doc/{name}/copyright"

    def is_needed(path: str) -> bool:
        return path == copyright_path or (path.lower().endswith((*SUFFIXES, *ARCHIVES)) and path not in repeated)

    known = load_known(known_file)
    try:
        result.version = debian.package_version(deb)
        files = debian.read_files(deb, is_needed)
        result.copyright = files.pop(copyright_path, b"")
        result.licence = licences(result.copyright)
        pieces = _pieces(recordings(files), known, result.rejected)
        seconds = 0.0
        for source, waveform in _joined(pieces):
            seconds += len(waveform) / SAMPLE_RATE
            if seconds > PACKAGE_SECONDS:
                result.rejected.append((source, f"the package has {PACKAGE_SECONDS / 3600:g} h already"))
                break
            result.clips.append((source, len(waveform) / SAMPLE_RATE, encode_mp3(waveform, SAMPLE_RATE)))
    except PackageError as error:
        result.failure = f"{name}: {error}"
    return result


def _pieces(files: Iterator[tuple[str, bytes]], known: Known, rejected: list[tuple[str, str]]) -> Iterator[tuple[str, np.ndarray]]:
    """Decode, trim and cut: sources with waveforms of at most CLIP samples."""
    seen: set[bytes] = set()
    for source, content in files:
        digest = hashlib.blake2b(content).digest()
        if digest in seen:
            rejected.append((source, "same bytes as another file of the package"))
            continue
        seen.add(digest)
        try:
            waveform = load(content, SAMPLE_RATE, warnings=[])  # what is there of a truncated recording is sound as well
        except AudioError as error:
            rejected.append((source, f"unreadable: {error}"))
            continue
        waveform = trim_silence(waveform - waveform.mean())
        if len(waveform) < SHORTEST:
            rejected.append((source, "too short"))
            continue
        parts = _cut(waveform)
        prints = np.stack([fingerprint(part) for part in parts])
        if (prints @ known.held_out.T > DUPLICATE_SIMILARITY).any():
            rejected.append((source, "near copy of a recording held out"))
            continue
        is_known = (prints @ known.training.T > DUPLICATE_SIMILARITY).any(1)
        for part, is_copy in zip(parts, is_known, strict=True):
            if is_copy:
                rejected.append((source, "near copy of a labelled clip"))
            elif np.sqrt((part**2).mean()) < SILENT_RMS:
                rejected.append((source, "nearly silent"))
            else:
                yield source, part / max(1.0, np.abs(part).max())


def _cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Up to PIECES parts of CLIP samples, spread over the recording; a short recording is its own part."""
    count = 1 if len(waveform) <= 1.2 * CLIP else len(waveform) // CLIP
    chosen = range(count) if count <= PIECES else [k * (count - 1) // (PIECES - 1) for k in range(PIECES)]
    return [waveform[k * CLIP : (k + 1) * CLIP] for k in chosen]


def _joined(pieces: Iterator[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Join short sounds of one folder, one after the other, as long as a clip has room for them."""
    group: list[tuple[str, np.ndarray]] = []
    for source, waveform in pieces:
        is_same_folder = group and PurePosixPath(group[0][0]).parent == PurePosixPath(source).parent
        if group and not (is_same_folder and sum(len(part) for _, part in group) + len(waveform) <= CLIP):
            yield _concatenated(group)
            group = []
        group.append((source, waveform))
    if group:
        yield _concatenated(group)


def _concatenated(group: Sequence[tuple[str, np.ndarray]]) -> tuple[str, np.ndarray]:
    source = group[0][0] if len(group) == 1 else f"{group[0][0]} (+{len(group) - 1})"
    return source, np.concatenate([part for _, part in group])


def repeated_files(debs: Sequence[Path]) -> list[frozenset[str]]:
    """For each package the audio files whose bytes an earlier package has, by the checksums that packages carry."""
    seen: set[str] = set()
    repeated = []
    for deb in tqdm(debs, desc="comparing", unit="package", disable=None):
        sums = {path: digest for path, digest in debian.checksums(deb).items() if is_audio(path)}
        repeated.append(frozenset(path for path, digest in sums.items() if digest in seen))
        seen.update(sums.values())
    return repeated


def build(output_dir: Path, cache_dir: Path, max_hours: float, num_workers: int) -> list[str]:
    """Write the files next to the labelled corpus in `output_dir` and print what there is; one line for each missing package."""
    output, table = output_dir / "unlabelled_segments_mp3.hdf", output_dir / "unlabelled.csv"
    if output.exists():
        if not table.exists():
            raise FileExistsError(f"{output} exists, but not its table, {table.name}; remove it or choose another --output_dir")
        print(f"{output} is there\n{hours_by_kind(read_table(table, COLUMNS))}")
        return []
    clips = output_dir / "clips.csv"
    if not clips.exists():
        raise UserError(
            f"{output_dir} has no clips.csv of the labelled corpus; build that first, by the same command without --unlabelled"
        )
    with open(clips, encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    validation = {name for name, row in rows.items() if row["split"] != "eval" and row["fold"] == VALIDATION_FOLD}
    debs_dir = cache_dir / "debs"
    debs_dir.mkdir(parents=True, exist_ok=True)

    fetched, failures = [], []
    for name in tqdm(package_names(), desc="fetching", unit="package", disable=None):
        try:
            fetched.append((name, debian.fetch_deb(name, debs_dir)))
        except PackageError as error:
            failures.append(f"{name}: {error}")
    known, labelled = _labelled(output_dir, validation)
    known_file = debs_dir.parent / "fingerprints.npz"
    np.savez(known_file, held_out=known.held_out, training=known.training)
    _write_validation(output_dir, validation)

    silence = np.zeros(len(audioset_labels()), np.uint8)
    (output_dir / "copyright").mkdir(exist_ok=True)
    with Mp3Writer(output, len(silence)) as writer:

        def add(name: str, mp3: bytes) -> None:
            if name not in writer.names:  # of a run that was interrupted
                writer.add(name, mp3, silence)

        origins, rejected = _earlier_tables(output_dir, writer.names)
        done = {package for name, (package, *_) in origins.items() if name not in rows} | {package for package, *_ in rejected}
        jobs = [
            (name, deb, skipped, known_file)
            for (name, deb), skipped in zip(fetched, repeated_files([deb for _, deb in fetched]), strict=True)
            if name not in done
        ]
        try:
            for name, mp3 in labelled:
                add(name, mp3)
                origins[name] = tuple(rows[name][column] for column in COLUMNS)
            seconds = sum(float(origin[-1]) for origin in origins.values())
            for result in _harvests(jobs if seconds < max_hours * 3600 else [], num_workers):
                if result.failure:
                    failures.append(result.failure)
                if result.copyright:
                    (output_dir / "copyright" / f"{result.package}.txt").write_bytes(result.copyright)
                clips_of_package = {}
                for number, (source, length, mp3) in enumerate(result.clips):
                    name = clip_name(result.package, f"unlabelled {source}", number)
                    add(name, mp3)
                    clips_of_package[name] = (result.package, result.version, source, result.licence, f"{length:.2f}")
                    seconds += length
                origins |= clips_of_package
                rejected += [(result.package, *line) for line in result.rejected]
                if seconds >= max_hours * 3600:
                    break
        finally:  # after an interruption the next run resumes from these
            write_table(table, [("name", *COLUMNS), *((name, *origin) for name, origin in origins.items())])
            write_results(output_dir / REJECTED, [REJECTED_COLUMNS, *rejected], delimiter="\t")
    print(hours_by_kind(read_table(table, COLUMNS)))
    return failures


def _earlier_tables(output_dir: Path, names: Set[str]) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, ...]]]:
    """Rows of the clips by name, and of what was rejected, by a run that was interrupted; none if it lost clips `names` lacks."""
    origins, rejected = output_dir / "unlabelled.csv", output_dir / REJECTED
    if not (origins.exists() and rejected.exists()):
        return {}, []
    rows = {row["name"]: tuple(row[column] for column in COLUMNS) for row in read_table(origins, ("name", *COLUMNS))}
    if rows.keys() - names:
        return {}, []
    return rows, [tuple(row.values()) for row in read_table(rejected, REJECTED_COLUMNS, delimiter="\t")]


def _harvests(jobs: Sequence[tuple[str, Path, frozenset[str], Path]], num_workers: int) -> Iterator[Harvest]:
    """Harvest packages in parallel, in their order. Nobody keeps the results: all of them are gigabytes."""
    with worker_processes(num_workers) as pool:
        futures = deque(pool.submit(harvest, *job) for job in jobs)
        try:
            for _ in tqdm(range(len(jobs)), desc="reading", unit="package", disable=None):
                yield futures.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _labelled(output_dir: Path, validation: set[str]) -> tuple[Known, list[tuple[str, bytes]]]:
    """Fingerprints of the labelled corpus, and its training clips that are not for validation."""
    held_out, training, clips = [], [], []
    for split in LABELLED:
        for name, mp3, _ in read_entries(output_dir / f"{split}_segments_mp3.hdf", len(audioset_labels())):
            is_held_out = split == "eval" or name in validation
            (held_out if is_held_out else training).append(fingerprint(load(mp3, SAMPLE_RATE)))
            if not is_held_out:
                clips.append((name, mp3))
    return Known(np.stack(held_out), np.stack(training)), clips


def _write_validation(output_dir: Path, validation: set[str]) -> None:
    path = output_dir / "validation_segments_mp3.hdf"
    if path.exists():
        return
    with Mp3Writer(path, len(audioset_labels())) as writer:
        for split in LABELLED[:2]:
            for name, mp3, target in read_entries(output_dir / f"{split}_segments_mp3.hdf", len(audioset_labels())):
                if name in validation:
                    writer.add(name, mp3, target)
