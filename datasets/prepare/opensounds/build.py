"""Build a small AudioSet from open sounds in Debian packages: real recordings that anybody can download.

    apt-get update && apt-get install fluidsynth espeak-ng flite
    python -m datasets.prepare.opensounds --output_dir data/opensounds

The folder then serves as an AudioSet folder: balanced_train_segments_mp3.hdf, unbalanced_train_segments_mp3.hdf and
eval_segments_mp3.hdf with targets for the 527 classes, ontology ancestors included. clips.csv tells where each clip
comes from and under which licence, rejected.tsv what was left out, copyright/ what the packages say of their licences.

Training and evaluation share no package and no recording. Balanced training has up to 20 recordings of every label,
chosen for rare labels first; all other training recordings are unbalanced training.
"""

import argparse
import base64
import hashlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.audio import AudioError, encode_mp3
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels
from datasets.prepare.opensounds import sources
from datasets.prepare.opensounds.sources import SAMPLE_RATE, PackageError, Sound
from datasets.prepare.opensounds.tables import Package, packages, with_ancestors

SPLITS = ("balanced_train", "unbalanced_train", "eval")
READER_TOOLS = {"soundfont": "fluidsynth", "espeak": "espeak-ng", "flite": "flite"}
BALANCED_RECORDINGS = 20  # per label, as far as there are so many
ENOUGH_TRAIN, ENOUGH_EVAL = 10, 5  # distinct recordings with which the summary counts a label as well covered

CLIP_SECONDS, SHORTEST_SECONDS = 10.0, 0.04
SILENT_RMS, QUIET_RMS, LIFTED_RMS = 10 ** (-60 / 20), 10 ** (-35 / 20), 10 ** (-30 / 20)  # -60, -35 and -30 dBFS
PEAK = 0.98
DUPLICATE_SIMILARITY = 0.99  # copies, recoded or scaled, have 0.995; other sounds of one instrument up to 0.985


@dataclass(frozen=True)
class Clip:
    """At most 10 s of a sound: the columns of clips.csv, then what is not in it."""

    name: str  # in the HDF5 file
    labels: tuple[str, ...]  # without ancestors
    package: str
    version: str
    source: str
    recording: str  # shared by all clips that come from one recording
    fold: int  # 1 to 5, for cross validation: a recording and its takes are in one fold
    kind: str
    licence: str
    licence_class: str
    seconds: float
    original_rate: int  # Hz
    sha1: str  # of the little-endian 16-bit samples that were encoded
    is_eval: bool
    mp3: bytes = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)


@dataclass
class Harvest:
    """What came out of one package."""

    package: Package
    clips: list[Clip] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)  # (package, source, reason)
    copyright: bytes = b""
    failure: str = ""


def clip_name(package: str, source: str, segment: int) -> str:
    """A name like AudioSet's, 'Y' + 11 characters + '.mp3', that stays the same over versions of the package."""
    digest = hashlib.sha1(f"{package}/{source}/{segment}".encode()).digest()
    return f"Y{base64.urlsafe_b64encode(digest).decode()[:11]}.mp3"


def fold_of(recording: str) -> int:
    """Fold 1 to 5; numbered takes and velocity layers of a sound share it."""
    sound = re.sub(r"(?i)[-_ ]?(hardest|hard|med|softest|soft)?[-_ ]?\d*(\.\w+)?$", "", recording)
    return 1 + int(hashlib.sha1(sound.encode()).hexdigest(), 16) % 5


def fingerprint(waveform: np.ndarray) -> np.ndarray:
    """Unit vector that a copy keeps when it is scaled, cut at its ends or recoded.

    It is the log spectrogram, less its mean, of the 0.3 s from where the sound comes within 20 dB of its loudest.
    """
    size, hop, count = 1024, 160, 60  # samples, samples, frames of 5 ms
    window = np.hanning(size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, size), size)[::hop]
    energy = frames**2 @ window**2
    peak = int(energy.argmax())
    quiet = np.flatnonzero(energy[:peak] < 0.01 * energy[peak])
    start = max(quiet[-1] + 1 if len(quiet) else 0, peak - 40)
    power = np.abs(np.fft.rfft(frames[start : start + count] * window)) ** 2  # (frames, bins)
    edges = np.unique(np.geomspace(3, size // 2, 41).astype(int))
    bands = np.add.reduceat(power, edges[:-1], axis=1) / np.diff(edges)
    levels = np.log(bands + 1e-7 * power.max() + 1e-12)
    image = np.full((count, levels.shape[1]), levels.min(), np.float32)
    image[: len(levels)] = levels
    image -= image.mean()
    return image.ravel() / (np.linalg.norm(image) + 1e-9)


def clips_of(sound: Sound, package: Package, version: str, reject: sources.Reject) -> Iterator[Clip]:
    """Trim a sound, cut it into clips of at most 10 s, lift very quiet ones, limit peaks, encode."""
    whole = sources.trim_silence(sound.waveform - sound.waveform.mean())
    if len(whole) < SHORTEST_SECONDS * SAMPLE_RATE:
        reject(sound.source, "too short")
        return
    length = int(CLIP_SECONDS * SAMPLE_RATE)
    count = 1 if len(whole) <= 1.2 * length else min(package.segments, len(whole) // length)
    recording = f"{package.name}/{sound.recording or sound.source}"
    for segment in range(count):
        part = whole[segment * length : (segment + 1) * length]
        rms = np.sqrt((part**2).mean())
        if rms < SILENT_RMS:
            reject(sound.source, f"segment {segment} is nearly silent")
            continue
        part = part * (LIFTED_RMS / rms if rms < QUIET_RMS else 1)
        part = part * min(1, PEAK / np.abs(part).max())
        samples = (part * 32767).round().astype("<i2")
        part = samples.astype(np.float32) / 32768
        yield Clip(
            name=clip_name(package.name, sound.source, segment),
            labels=sound.labels,
            package=package.name,
            version=version,
            source=sound.source,
            recording=recording,
            fold=fold_of(recording),
            kind=sound.kind,
            licence=package.licence,
            licence_class=package.licence_class,
            seconds=len(part) / SAMPLE_RATE,
            original_rate=sound.original_rate,
            sha1=hashlib.sha1(samples.tobytes()).hexdigest(),
            is_eval=package.split == "eval",
            mp3=encode_mp3(part, SAMPLE_RATE),
            fingerprint=fingerprint(part),
        )


def harvest(package: Package, deb: Path | None) -> Harvest:
    """Make all clips of one package; runs in a worker process."""
    result = Harvest(package)

    def reject(source: str, reason: str) -> None:
        result.rejected.append((package.name, source, reason))

    try:
        version = sources.version_of(package, deb)
        files = sources.read_deb(package, deb) if deb else {}
        result.copyright = files.pop(sources.copyright_path(package), b"")
        for sound in sources.sounds(package, files, reject):
            result.clips += clips_of(sound, package, version, reject)
    except (PackageError, AudioError, zipfile.BadZipFile) as error:
        result.failure = f"{package.name}: {error}"
    return result


def without_duplicates(clips: Sequence[Clip], reject: Callable[[Clip, str], None]) -> list[Clip]:
    """Keep the first of several clips with the same samples, or of copies in different packages.

    Games and drum kits take sounds from each other; without this, training and evaluation would share some.
    """
    kept: dict[int, Clip] = {}  # by position in `clips`
    seen: set[str] = set()
    fingerprints = np.stack([clip.fingerprint for clip in clips]) if clips else np.zeros((0, 0))
    for i, clip in enumerate(clips):
        alike = np.flatnonzero(fingerprints[:i] @ clip.fingerprint > DUPLICATE_SIMILARITY)
        twins = [kept[j] for j in alike if j in kept and kept[j].package != clip.package]
        if clip.sha1 in seen:
            reject(clip, "same samples as another clip")
        elif twins and clip.kind != "generated":
            reject(clip, f"copy of {twins[0].package}: {twins[0].source}")
        else:
            kept[i] = clip
            seen.add(clip.sha1)
    return list(kept.values())


def recordings_by_label(clips: Iterable[Clip]) -> dict[str, set[str]]:
    """The distinct recordings of every label, ancestors included."""
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for label in with_ancestors(clip.labels):
            found[label].add(clip.recording)
    return found


def balanced_recordings(train: Iterable[Clip]) -> set[str]:
    """Recordings of balanced training: each label is filled up to BALANCED_RECORDINGS, rare labels first."""
    by_label = recordings_by_label(train)
    chosen: set[str] = set()
    for label in sorted(by_label, key=lambda label: (len(by_label[label]), label)):
        candidates = sorted(by_label[label] - chosen)
        random.Random(label).shuffle(candidates)
        chosen.update(candidates[: max(0, BALANCED_RECORDINGS - len(by_label[label] & chosen))])
    return chosen


def assign_splits(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Clips of each split, in the order of their names, which mixes the classes."""
    balanced = balanced_recordings(clip for clip in clips if not clip.is_eval)
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.name):
        train = "balanced_train" if clip.recording in balanced else "unbalanced_train"
        splits["eval" if clip.is_eval else train].append(clip)
    return splits


def hdf5_path(output_dir: Path, split: str) -> Path:
    """Path of a split, named as in AudioSet."""
    return output_dir / f"{split}_segments_mp3.hdf"


def write_corpus(output_dir: Path, splits: dict[str, list[Clip]], harvests: Sequence[Harvest]) -> None:
    """Write everything into a temporary folder, then move it to its place, the HDF5 files last."""
    index = {label: i for i, label in enumerate(audioset_labels())}
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".building_") as building_dir:
        building = Path(building_dir)
        (building / "copyright").mkdir()
        for result in harvests:
            if result.copyright:
                (building / "copyright" / f"{result.package.name}.txt").write_bytes(result.copyright)
        rejected = [line for result in harvests for line in result.rejected]
        write_table(building / "rejected.tsv", [("package", "source", "reason"), *rejected], delimiter="\t")
        write_table(building / "clips.csv", clip_table(splits))
        for split, clips in splits.items():
            with Mp3Writer(hdf5_path(building, split), num_classes=len(index)) as writer:
                for clip in clips:
                    target = np.zeros(len(index), np.uint8)
                    target[[index[label] for label in with_ancestors(clip.labels)]] = 1
                    writer.add(clip.name, clip.mp3, target)
        shutil.copytree(building / "copyright", output_dir / "copyright", dirs_exist_ok=True)
        for path in sorted(building.glob("*.*"), key=lambda path: path.suffix == ".hdf"):
            os.replace(path, output_dir / path.name)


def clip_table(splits: dict[str, list[Clip]]) -> Iterator[Sequence[object]]:
    """Header and rows of clips.csv; several labels are separated by ';'."""
    columns = list(Clip.__dataclass_fields__)
    columns = columns[columns.index("package") : columns.index("sha1") + 1]
    yield ("name", "split", "labels", "labels_with_ancestors", *columns)
    for split, clips in splits.items():
        for clip in clips:
            labels = ";".join(clip.labels), ";".join(with_ancestors(clip.labels))
            yield (clip.name, split, *labels, *(getattr(clip, column) for column in columns))


def covered_labels(train: Iterable[Clip], evaluation: Iterable[Clip]) -> list[str]:
    """Labels with enough distinct recordings to learn from and to measure on."""
    learn, measure = recordings_by_label(train), recordings_by_label(evaluation)
    return [label for label in learn if len(learn[label]) >= ENOUGH_TRAIN and len(measure[label]) >= ENOUGH_EVAL]


def summary(splits: dict[str, list[Clip]]) -> str:
    """Clips, hours and classes of each split, and the number of well covered labels, as lines of text."""
    lines = []
    for split, clips in splits.items():
        hours, labels = sum(clip.seconds for clip in clips) / 3600, len(recordings_by_label(clips))
        lines.append(f"{split:16} {len(clips):5} clips {hours:5.2f} h {labels:4} classes")
    train = splits["balanced_train"] + splits["unbalanced_train"]
    permissive = [clip for clip in train if clip.licence_class == "permissive"]
    for part, name in ((train, "train"), (permissive, "permissively licensed train")):
        number = len(covered_labels(part, splits["eval"]))
        lines.append(f"{number} labels have {ENOUGH_TRAIN} or more {name} and {ENOUGH_EVAL} or more eval recordings")
    return "\n".join(lines)


def missing_tools(chosen: Iterable[Package], debs_dir: Path) -> list[str]:
    """Programs that these packages need and that are not installed."""
    needed = {READER_TOOLS[package.reader] for package in chosen if package.reader in READER_TOOLS}
    debs = [package.name for package in chosen if package.is_deb]
    needed |= {"dpkg-deb"} if debs else set()
    needed |= set() if all(any(debs_dir.glob(f"{name}_*.deb")) for name in debs) else {"apt-get"}
    return sorted(tool for tool in needed if not shutil.which(tool))


def fetch_all(chosen: Iterable[Package], debs_dir: Path) -> tuple[list[tuple[Package, Path | None]], list[str]]:
    """Packages with their files (None: needs none), and one line for each that cannot be had."""
    fetched, failures = [], []
    for package in tqdm(chosen, desc="fetching", unit="package", disable=None):
        try:
            fetched.append((package, sources.fetch_deb(package.name, debs_dir) if package.is_deb else None))
        except PackageError as error:
            failures.append(f"{package.name}: {error}")
    return fetched, failures


def harvest_all(fetched: Sequence[tuple[Package, Path | None]], num_workers: int) -> list[Harvest]:
    """Read packages in parallel; what comes out is in the same order."""
    dies_of_interrupt = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}
    with ProcessPoolExecutor(num_workers, **dies_of_interrupt) as pool:
        futures = [pool.submit(harvest, package, deb) for package, deb in fetched]
        try:
            return [future.result() for future in tqdm(futures, desc="reading", unit="package", disable=None)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def build(output_dir: Path, cache_dir: Path, chosen: Sequence[Package], num_workers: int) -> list[str]:
    """Build the corpus and print its summary; returns one line for each package that is missing in it."""
    for split in SPLITS:
        if hdf5_path(output_dir, split).exists():
            raise FileExistsError(f"{hdf5_path(output_dir, split)} exists; remove it or choose another --output_dir")
    output_dir.mkdir(parents=True, exist_ok=True)
    debs_dir = cache_dir / "debs"
    debs_dir.mkdir(parents=True, exist_ok=True)
    if tools := missing_tools(chosen, debs_dir):
        install = "apt-get install fluidsynth espeak-ng flite (apt-get and dpkg-deb come with Debian)"
        raise PackageError(f"not installed: {', '.join(tools)}; {install}")

    fetched, failures = fetch_all(chosen, debs_dir)
    harvests = harvest_all(fetched, num_workers)
    failures += [result.failure for result in harvests if result.failure]
    rejected_of = {result.package.name: result.rejected for result in harvests}
    clips = without_duplicates(
        [clip for result in harvests for clip in result.clips],
        lambda clip, reason: rejected_of[clip.package].append((clip.package, clip.source, reason)),
    )
    if not clips:
        raise PackageError("; ".join(["no clips", *failures]))
    splits = assign_splits(clips)
    write_corpus(output_dir, splits, harvests)
    print(summary(splits))
    return failures


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the corpus, about 220 MB")
    parser.add_argument("--cache_dir", type=Path, help="folder for downloads, about 1.5 GB (default: OUTPUT_DIR/cache)")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that read packages (default: 2)")
    parser.add_argument("--packages", metavar="REGEX", default="", help="only packages with such a name (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 if the corpus lacks packages that cannot be had or read, 2 if there is no corpus."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.num_workers < 1:
        parser.error(f"--num_workers is {args.num_workers}; it must be 1 or more")
    try:
        chosen = [package for package in packages() if re.search(args.packages, package.name)]
        if not chosen:
            known = ", ".join(package.name for package in packages())
            raise PackageError(f"--packages {args.packages} matches none of {known}")
        failures = build(args.output_dir, args.cache_dir or args.output_dir / "cache", chosen, args.num_workers)
    except (PackageError, OSError, re.error, BrokenProcessPool) as error:
        print(f"opensounds: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("opensounds: interrupted; run again, what was downloaded is kept", file=sys.stderr)
        return 130
    for failure in failures:
        print(f"opensounds: left out {failure}", file=sys.stderr)
    return 1 if failures else 0
