"""The corpus of datasets.prepare.opensounds as raw material: its clips, selections of them, and folders made of them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import audio, audioset
from datasets.csv_table import read_table, write_table
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.labels import audioset_labels
from datasets.prepare.opensounds.build import SPLITS, hdf5_path
from datasets.prepare.opensounds.tables import with_ancestors
from models.errors import UserError
from models.files import replacing_folder

ENOUGH_RECORDINGS = 5  # of a class, in each split that is used: one for each of five folds

README = """{title}

{about}
origins.csv names the clip of the corpus that each file was made of, and clips.csv in the corpus's folder where that one comes from
and under which licence.

{summary}
"""


@dataclass(frozen=True)
class CorpusClip:
    """A row of clips.csv, as far as it matters here."""

    name: str
    is_eval: bool
    labels: tuple[str, ...]  # without ancestors
    all_labels: tuple[str, ...]  # with them
    package: str
    recording: str
    fold: int  # 1 to 5, for cross validation: a recording and its takes are in one fold


class Corpus:
    """The clips of a folder that datasets.prepare.opensounds built, and their mp3s."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError, and UserError for a clips.csv or an HDF5 file that is damaged or does not fit the other."""
        advice = "pass --corpus_dir, or build the corpus with python -m datasets.prepare.opensounds"
        columns = ("name", "split", "labels", "labels_with_ancestors", "package", "recording", "fold")
        self.clips = [_corpus_clip(row) for row in read_table(folder / "clips.csv", columns, advice=advice)]
        self._places: dict[str, tuple[Mp3Dataset, int]] = {}
        for path in (hdf5_path(folder, split) for split in SPLITS):
            clips = Mp3Dataset(path, num_classes=audioset.NUM_CLASSES)
            self._places |= {name: (clips, index) for index, name in enumerate(clips.names)}
        missing = [clip.name for clip in self.clips if clip.name not in self._places]
        unknown = {label for clip in self.clips for label in clip.all_labels}.difference(audioset_labels())
        if missing or unknown or not self.clips:
            damage = f"{len(missing)} of {len(self.clips)} clips are in no HDF5 file, {len(unknown)} labels are not AudioSet's"
            raise UserError(f"{folder / 'clips.csv'}: {damage}; {advice}")

    def mp3(self, clip: CorpusClip) -> bytes:
        """The mp3 file of a clip, byte for byte."""
        clips, index = self._places[clip.name]
        return clips.read(index)[0]

    def waveform(self, clip: CorpusClip, sample_rate: int) -> np.ndarray:
        """(samples,) float32 at `sample_rate`, in Hz."""
        return audio.load(self.mp3(clip), sample_rate, name=clip.name)


def _corpus_clip(row: dict[str, str]) -> CorpusClip:
    labels, all_labels = (tuple(row[column].split(";")) for column in ("labels", "labels_with_ancestors"))
    if not row["fold"].isdecimal():
        raise UserError(f"clips.csv gives {row['name']} the fold {row['fold']!r}, which must be 1 to 5; build the corpus again")
    return CorpusClip(row["name"], row["split"] == "eval", labels, all_labels, row["package"], row["recording"], int(row["fold"]))


def hashed(text: str) -> int:
    """A number that stays the same over runs, to put things into an arbitrary order."""
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)


def by_class(clips: Sequence[CorpusClip]) -> dict[str, list[CorpusClip]]:
    """Clips by their one class: the label, of those without ancestors, that is the rarest among the clips."""
    counts = Counter(label for clip in clips for label in clip.labels)
    classes: dict[str, list[CorpusClip]] = defaultdict(list)
    for clip in clips:
        classes[min(clip.labels, key=lambda label: (counts[label], label))].append(clip)
    return classes


def choose_classes(splits: Sequence[dict[str, list[CorpusClip]]], count: int) -> list[str]:
    """The `count` classes with the most recordings, sorted by name; each has `ENOUGH_RECORDINGS` in every one of the splits.

    A class that another one implies (Cymbal next to Hi-hat) is left out: its clips may sound like those of the other.
    """
    recordings = [{label: {clip.recording for clip in clips} for label, clips in split.items()} for split in splits]
    enough = [label for label in recordings[0] if all(len(split.get(label, ())) >= ENOUGH_RECORDINGS for split in recordings)]
    implied = {ancestor for label in enough for ancestor in with_ancestors((label,))[1:]}
    ranked = sorted(set(enough) - implied, key=lambda label: (-sum(len(split[label]) for split in recordings), label))
    if len(ranked) < count:
        raise UserError(f"the corpus has enough recordings for {len(ranked)} classes, not {count}; build it with all packages")
    return sorted(ranked[:count])


def spread(clips: Iterable[CorpusClip], count: int) -> list[CorpusClip]:
    """Up to `count` clips of as many recordings as possible, in an arbitrary but fixed order."""
    takes: Counter[str] = Counter()
    ranked = []
    for clip in sorted(clips, key=lambda clip: clip.name):
        ranked.append((takes[clip.recording], hashed(clip.recording), clip.name, clip))
        takes[clip.recording] += 1
    return [clip for *_, clip in sorted(ranked)[:count]]


def assign_folds(classes: dict[str, list[CorpusClip]], names: Sequence[int]) -> dict[str, int]:
    """Fold of each recording, so that every class is spread evenly and the folds are of about one size; rare classes first."""
    folds: dict[str, int] = {}
    totals: Counter[int] = Counter()
    for label in sorted(classes, key=lambda label: (len(classes[label]), label)):
        takes = Counter(clip.recording for clip in classes[label])
        here: Counter[int] = Counter()
        for recording, count in sorted(takes.items(), key=lambda item: (item[0] not in folds, -item[1], hashed(item[0]))):
            fold = folds.setdefault(recording, min(names, key=lambda fold: (here[fold], totals[fold], fold)))
            here[fold] += count
            totals[fold] += count
    return folds


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write (samples,) as a mono wav of 16 bits. Raises OSError, as on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(audio.encode_wav(waveform, sample_rate))


def write_origins(folder: Path, origins: Iterable[tuple[str, CorpusClip]]) -> None:
    """Write which clip of the corpus each file was made of."""
    rows = sorted((file, clip.name) for file, clip in origins)
    write_table(folder / "origins.csv", [("file", "corpus_clip"), *rows])


def make_folder(corpus_dir: Path, output_dir: Path, title: str, about: str, write: Callable[[Corpus, Path], str]) -> str | None:
    """Let `write` fill a temporary folder next to `output_dir`, add README.txt, then rename it; returns the summary of `write`.

    A folder with this title that is there is left as it is, and None returned. Raises FileExistsError for another one that is not
    empty, and the errors of `Corpus` and of `write`; then nothing is left behind.
    """
    readme, output_dir = output_dir / "README.txt", output_dir.resolve()
    if readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(title):
        return None
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(f"{output_dir} exists and holds something else; remove it or choose another --output_dir")
    corpus = Corpus(corpus_dir)
    with replacing_folder(output_dir) as folder:
        summary = write(corpus, folder)
        (folder / "README.txt").write_text(README.format(title=title, about=about, summary=summary), encoding="utf-8")
    return summary
