"""Build a small AudioSet from open sounds in Debian packages: real recordings that anybody can download.

    apt-get update && apt-get install fluidsynth espeak-ng flite
    python -m datasets.prepare.opensounds --output_dir data/opensounds

The folder then serves as an AudioSet folder: balanced_train_segments_mp3.hdf, unbalanced_train_segments_mp3.hdf and
eval_segments_mp3.hdf with targets for the 527 classes, ontology ancestors included. clips.csv gives the
origin and the licence of each clip, rejected.tsv what was left out, copyright/ the packages' own copyright files.

    python -m datasets.prepare.opensounds --output_dir data/opensounds --unlabelled

then adds recordings without labels to it, see `datasets.prepare.opensounds.unlabelled`.

Training and evaluation share no package and no recording. Balanced training has up to 20 recordings of every label,
chosen for rare labels first; all other training recordings are unbalanced training.
"""

import argparse
import math
import os
import random
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.audio import AudioError
from datasets.csv_table import write_results, write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels
from datasets.prepare.archives import ArchiveError
from datasets.prepare.command_line import command_parser, positive_int
from datasets.prepare.conversion import worker_processes
from datasets.prepare.opensounds import debian, unlabelled
from datasets.prepare.opensounds.audio_files import file_sounds
from datasets.prepare.opensounds.clips import EncodedClip, clips_of, recordings_by_label, without_duplicates
from datasets.prepare.opensounds.debian import PackageError
from datasets.prepare.opensounds.signals import signal_sounds
from datasets.prepare.opensounds.soundfonts import soundfont_sounds
from datasets.prepare.opensounds.sounds import LabelledSound, Reject
from datasets.prepare.opensounds.speech import speech_sounds
from datasets.prepare.opensounds.tables import Package, packages, with_ancestors
from models.command import printable
from models.errors import UserError

SPLITS = ("balanced_train", "unbalanced_train", "eval")
READER_TOOLS = {"soundfont": "fluidsynth", "espeak": "espeak-ng", "flite": "flite"}
BALANCED_RECORDINGS = 20  # per label, as far as there are so many
ENOUGH_TRAIN, ENOUGH_EVAL = 10, 5  # distinct recordings with which the summary counts a label as well covered


@dataclass
class Harvest:
    """What came out of one package."""

    package: Package
    clips: list[EncodedClip] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)  # (package, source, reason)
    copyright: bytes = b""
    failure: str = ""


def harvest(package: Package, deb: Path | None) -> Harvest:
    """Make all clips of one package; runs in a worker process."""
    result = Harvest(package)

    def reject(source: str, reason: str) -> None:
        result.rejected.append((package.name, source, reason))

    try:
        version = debian.version_of(package, deb)
        files = debian.read_deb(package, deb) if deb else {}
        result.copyright = files.pop(debian.copyright_path(package), b"")
        for sound in sounds(package, files, reject):
            result.clips += clips_of(sound, package, version, reject)
    except (PackageError, ArchiveError, AudioError, zipfile.BadZipFile) as error:
        result.failure = f"{package.name}: {error}"
    return result


def sounds(package: Package, files: dict[str, bytes], reject: Reject) -> Iterator[LabelledSound]:
    """All sounds of a package; `files` are those `is_needed` picks from it."""
    if package.reader == "soundfont":
        if len(files) != 1:
            raise PackageError(f"{len(files)} soundfonts in the package, needed 1")
        return soundfont_sounds(package, *files.values())
    if package.reader in ("espeak", "flite"):
        return speech_sounds(package)
    if package.reader == "signals":
        return signal_sounds(package)
    return file_sounds(package, files if package.reader == "files" else debian.unzip(package, files), reject)


def balanced_recordings(train: Iterable[EncodedClip]) -> set[str]:
    """Recordings of balanced training: each label is filled up to BALANCED_RECORDINGS, rare labels first."""
    by_label = recordings_by_label(train)
    chosen: set[str] = set()
    for label in sorted(by_label, key=lambda label: (len(by_label[label]), label)):
        candidates = sorted(by_label[label] - chosen)
        random.Random(label).shuffle(candidates)
        chosen.update(candidates[: max(0, BALANCED_RECORDINGS - len(by_label[label] & chosen))])
    return chosen


def assign_splits(clips: Sequence[EncodedClip]) -> dict[str, list[EncodedClip]]:
    """Clips of each split, in the order of their names, which mixes the classes."""
    balanced = balanced_recordings(clip for clip in clips if not clip.is_eval)
    splits: dict[str, list[EncodedClip]] = {split: [] for split in SPLITS}
    for clip in sorted(clips, key=lambda clip: clip.name):
        train = "balanced_train" if clip.recording in balanced else "unbalanced_train"
        splits["eval" if clip.is_eval else train].append(clip)
    return splits


def hdf5_path(output_dir: Path, split: str) -> Path:
    """Path of a split, named as in AudioSet."""
    return output_dir / f"{split}_segments_mp3.hdf"


def write_corpus(output_dir: Path, splits: dict[str, list[EncodedClip]], harvests: Sequence[Harvest]) -> None:
    """Write everything into a temporary folder, then move it to its place, the HDF5 files last."""
    index = {label: i for i, label in enumerate(audioset_labels())}
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".building_") as building_dir:
        building = Path(building_dir)
        (building / "copyright").mkdir()
        for result in harvests:
            if result.copyright:
                (building / "copyright" / f"{result.package.name}.txt").write_bytes(result.copyright)
        rejected = [line for result in harvests for line in result.rejected]
        write_results(building / "rejected.tsv", [("package", "source", "reason"), *rejected], delimiter="\t")
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


def clip_table(splits: dict[str, list[EncodedClip]]) -> Iterator[Sequence[object]]:
    """Header and rows of clips.csv; several labels are separated by ';'."""
    columns = list(EncodedClip.__dataclass_fields__)
    columns = columns[columns.index("package") : columns.index("sha1") + 1]
    yield ("name", "split", "labels", "labels_with_ancestors", *columns)
    for split, clips in splits.items():
        for clip in clips:
            labels = ";".join(clip.labels), ";".join(with_ancestors(clip.labels))
            yield (clip.name, split, *labels, *(getattr(clip, column) for column in columns))


def covered_labels(train: Iterable[EncodedClip], evaluation: Iterable[EncodedClip]) -> list[str]:
    """Labels with enough distinct recordings to learn from and to measure on."""
    learn, measure = recordings_by_label(train), recordings_by_label(evaluation)
    return [label for label in learn if len(learn[label]) >= ENOUGH_TRAIN and len(measure[label]) >= ENOUGH_EVAL]


def summary(splits: dict[str, list[EncodedClip]]) -> str:
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
    """Packages with their files (None: needs none), and one line for each that cannot be fetched."""
    fetched, failures = [], []
    for package in tqdm(chosen, desc="fetching", unit="package", disable=None):
        try:
            fetched.append((package, debian.fetch_deb(package.name, debs_dir) if package.is_deb else None))
        except PackageError as error:
            failures.append(f"{package.name}: {error}")
    return fetched, failures


def harvest_all(fetched: Sequence[tuple[Package, Path | None]], num_workers: int) -> list[Harvest]:
    """Read packages in parallel; what comes out is in the same order."""
    with worker_processes(num_workers) as pool:
        futures = [pool.submit(harvest, package, deb) for package, deb in fetched]
        return [future.result() for future in tqdm(futures, desc="reading", unit="package", disable=None)]


def build(output_dir: Path, cache_dir: Path, chosen: Sequence[Package], num_workers: int) -> list[str]:
    """Build the corpus and print its summary; returns one line for each missing package."""
    for split in SPLITS:
        if hdf5_path(output_dir, split).exists():
            raise FileExistsError(f"{hdf5_path(output_dir, split)} exists; remove it or choose another --output_dir")
    output_dir.mkdir(parents=True, exist_ok=True)
    debs_dir = cache_dir / "debs"
    debs_dir.mkdir(parents=True, exist_ok=True)
    if tools := missing_tools(chosen, debs_dir):
        install = "apt-get install fluidsynth espeak-ng flite (apt-get and dpkg-deb come with Debian)"
        raise UserError(f"not installed: {', '.join(tools)}; {install}")

    fetched, failures = fetch_all(chosen, debs_dir)
    harvests = harvest_all(fetched, num_workers)
    failures += [result.failure for result in harvests if result.failure]
    rejected_of = {result.package.name: result.rejected for result in harvests}
    clips = without_duplicates(
        [clip for result in harvests for clip in result.clips],
        lambda clip, reason: rejected_of[clip.package].append((clip.package, clip.source, reason)),
    )
    if not clips:
        raise UserError("; ".join(["no clips", *failures]))
    splits = assign_splits(clips)
    write_corpus(output_dir, splits, harvests)
    print(summary(splits))
    return failures


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("opensounds", __doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the corpus, about 220 MB")
    parser.add_argument("--cache_dir", type=Path, help="folder for downloads, about 1.5 GB (default: OUTPUT_DIR/cache)")
    parser.add_argument("--num_workers", type=positive_int, default=2, help="processes that read packages")
    parser.add_argument("--packages", metavar="REGEX", default="", help="only packages with such a name (default: all)")
    parser.add_argument("--unlabelled", action="store_true", help="add recordings without labels to the corpus in OUTPUT_DIR")
    parser.add_argument("--max_hours", type=float, default=math.inf, help="of them, at most so many hours (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build the corpus; returns 1 if packages are missing that cannot be fetched or read, else 0. Downloads are kept."""
    args = build_parser().parse_args(argv)
    try:
        chosen = [package for package in packages() if re.search(args.packages, package.name)]
    except re.error as error:
        raise UserError(f"--packages {args.packages} is not a regular expression: {error}") from error
    if not chosen:
        known = ", ".join(package.name for package in packages())
        raise UserError(f"--packages {args.packages} matches none of {known}")
    cache_dir = args.cache_dir or args.output_dir / "cache"
    if args.unlabelled:
        failures = unlabelled.build(args.output_dir, cache_dir, args.max_hours, args.num_workers)
    else:
        failures = build(args.output_dir, cache_dir, chosen, args.num_workers)
    for failure in failures:
        print(f"warning: left out {printable(failure)}", file=sys.stderr)
    return 1 if failures else 0
