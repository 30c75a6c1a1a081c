r"""Build stand-ins for ESC-50, FSD50K and TAU Urban Acoustic Scenes 2020 Mobile from the corpus of datasets.prepare.opensounds.

    python -m datasets.prepare.stand_ins esc50 --corpus_dir data/opensounds --output_dir data/opensounds_esc50
    python -m datasets.prepare.stand_ins fsd50k --corpus_dir data/opensounds --output_dir data/opensounds_fsd50k
    python -m datasets.prepare.stand_ins dcase20 --corpus_dir data/opensounds --output_dir data/opensounds_dcase20

They are there to try ex_esc50.py, ex_fsd50k.py and ex_dcase20.py on real sound where the published data sets are missing. They
have the published layouts, but other recordings and other classes: no figure measured on them can be compared with one of the
published sets. README.txt in each folder repeats this, and origins.csv names the clip of the corpus that each file was made of.

esc50: 50 classes and five folds from the corpus's evaluation split alone, which the bundled mn04_distilled has never heard. Folds
share no recording, but other notes of one instrument. fsd50k: the 200 most frequent labels, the mp3s of the
corpus unchanged. dcase20: ten classes of sound stand for the scenes, the packages that the recordings come from for cities, fixed
filters for the devices other than a; short clips are repeated to fill 10 s.
"""

import argparse
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, cycle
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audio, dcase20, esc50, fsd50k
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.location import data_dir
from datasets.prepare.command_line import command_parser, positive_int
from datasets.prepare.corpus import (
    Corpus,
    CorpusClip,
    assign_folds,
    by_class,
    choose_classes,
    hashed,
    make_folder,
    spread,
    write_origins,
    write_wav,
)
from models.command import HelpFormatter, run
from models.errors import UserError

PUBLISHED = {"esc50": "ESC-50", "fsd50k": "FSD50K", "dcase20": "TAU Urban Acoustic Scenes 2020 Mobile, development"}
WAV_RATE = 44100  # Hz, of the downloads of ESC-50 and TAU
FIRST_NUMBER = 100001  # clips and sources are numbered from here, as long as Freesound's numbers are
CLASS_CLIPS = 40  # of a class of ESC-50, at most
VAL_PERCENT = 12  # of the recordings of FSD50K's development set
CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "milan", "paris", "prague", "stockholm", "vienna")
TRAIN_CITIES, TEST_CITIES = CITIES[:8], CITIES[8:]
TRAIN_DEVICES = ("a", "b", "a", "c", "a", "s1", "a", "s2", "a", "s3")  # a is the most frequent, s4 to s6 are only tested

TITLE = "A stand-in for {published}. This is NOT the published data set."
ABOUT = """\
Other recordings and other classes in the same file layout, to try ex_{data_set}.py on real sound. No figure measured here can be
compared with one of the published data set. Made by python -m datasets.prepare.stand_ins {data_set} from the corpus of
datasets.prepare.opensounds."""


def write_esc50(corpus: Corpus, folder: Path) -> str:
    """Write audio/ and meta/esc50.csv; returns the counts."""
    classes = by_class([clip for clip in corpus.clips if clip.is_eval])
    chosen = {label: spread(classes[label], CLASS_CLIPS) for label in choose_classes([classes], esc50.NUM_CLASSES)}
    folds = assign_folds(chosen, esc50.FOLDS)
    numbers = {recording: number for number, recording in enumerate(sorted(folds, key=hashed), FIRST_NUMBER)}
    takes: Counter[str] = Counter()
    rows, origins = [], []
    jobs = [(target, label, clip) for target, (label, clips) in enumerate(chosen.items()) for clip in clips]
    for target, label, clip in tqdm(jobs, unit="clip", disable=None):
        fold, number, take = folds[clip.recording], numbers[clip.recording], string.ascii_uppercase[takes[clip.recording]]
        takes[clip.recording] += 1
        name = f"{fold}-{number}-{take}-{target}.wav"
        category = re.sub(r"\W+", "_", label.lower()).strip("_")
        waveform = audio.crop_or_pad(corpus.waveform(clip, WAV_RATE), int(esc50.CLIP_SECONDS * WAV_RATE))
        write_wav(folder / "audio" / name, waveform, WAV_RATE)
        rows.append((name, fold, target, category, False, number, take))
        origins.append((f"audio/{name}", clip))
    (folder / "meta").mkdir()
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    write_table(folder / "meta" / "esc50.csv", [columns, *sorted(rows)])
    write_origins(folder, origins)
    by_fold, sizes = Counter(row[1] for row in rows), [len(clips) for clips in chosen.values()]
    return (
        f"{len(rows)} clips of {len(numbers)} recordings in {len(chosen)} classes of {min(sizes)} to {max(sizes)} clips; "
        f"folds of {', '.join(str(by_fold[fold]) for fold in esc50.FOLDS)}"
    )


def choose_vocabulary(corpus: Corpus) -> dict[str, tuple[str, str]]:
    """The most frequent labels of the corpus, in FSD50K's order, each with its name in FSD50K's spelling and its MID."""
    counts = Counter(label for clip in corpus.clips for label in clip.all_labels)
    frequent = sorted(counts, key=lambda label: (-counts[label], label))[: fsd50k.NUM_CLASSES]
    if len(frequent) < fsd50k.NUM_CLASSES:
        raise UserError(f"the corpus has {len(frequent)} labels, {fsd50k.NUM_CLASSES} are needed; build it with all packages")
    names = {label: label.replace(", ", "_and_").replace(" ", "_") for label in frequent}
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    return {label: (names[label], mids[label]) for label in sorted(frequent, key=names.__getitem__)}


def write_fsd50k(corpus: Corpus, folder: Path) -> str:
    """Write the three HDF5 files and FSD50K.ground_truth/; returns the counts."""
    vocabulary = choose_vocabulary(corpus)
    index = {label: i for i, label in enumerate(vocabulary)}
    parts: dict[str, list[tuple[int, CorpusClip]]] = {"train": [], "val": [], "eval": []}
    kept = [clip for clip in corpus.clips if not index.keys().isdisjoint(clip.all_labels)]
    for number, clip in enumerate(sorted(kept, key=lambda clip: clip.name), FIRST_NUMBER):
        development = "val" if hashed(clip.recording) % 100 < VAL_PERCENT else "train"
        parts["eval" if clip.is_eval else development].append((number, clip))
    dev: list[Sequence[object]] = [("fname", "labels", "mids", "split")]
    tables = {"train": dev, "val": dev, "eval": [("fname", "labels", "mids")]}
    for part, entries in parts.items():
        with Mp3Writer(folder / f"FSD50K.{part}_mp3.hdf", fsd50k.NUM_CLASSES) as writer:
            for number, clip in tqdm(entries, desc=part, unit="clip", disable=None):
                labels = [label for label in clip.all_labels if label in index]
                target = np.zeros(fsd50k.NUM_CLASSES, np.uint8)
                target[[index[label] for label in labels]] = 1
                writer.add(f"{number}.mp3", corpus.mp3(clip), target)
                names, mids = (",".join(column) for column in zip(*map(vocabulary.get, labels), strict=True))
                tables[part].append((number, names, mids) if part == "eval" else (number, names, mids, part))
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir()
    write_table(truth / "dev.csv", dev)
    write_table(truth / "eval.csv", tables["eval"])
    write_table(truth / "vocabulary.csv", [(i, *vocabulary[label]) for label, i in index.items()])
    write_origins(folder, [(f"{number}.mp3", clip) for entries in parts.values() for number, clip in entries])
    counts = ", ".join(f"{len(entries)} clips in {part}" for part, entries in parts.items())
    return f"{counts}; {len(corpus.clips) - len(kept)} left out, which have none of the {len(index)} labels"


def device_sound(waveform: np.ndarray, device: str) -> np.ndarray:
    """Filter (samples,) at `WAV_RATE` by a made-up device: a smooth gain over frequency; device "a" changes nothing."""
    if device == "a":
        return waveform
    gains = np.random.default_rng(dcase20.DEVICES.index(device)).normal(0, 5, 8)  # dB at eight frequencies
    frequencies = np.fft.rfftfreq(len(waveform), 1 / WAV_RATE)
    gain = np.interp(np.log(frequencies + 1), np.log(np.geomspace(60, 20000, 8)), gains)
    filtered = np.fft.irfft(np.fft.rfft(waveform) * 10 ** (gain / 20), len(waveform))
    return filtered * min(1, 0.98 / max(np.abs(filtered).max(), 1e-9))


def assign_cities(clips: Iterable[CorpusClip]) -> dict[str, str]:
    """City of each package. The two largest packages of the evaluation split are in cities without training clips."""
    sizes = Counter((clip.is_eval, clip.package) for clip in clips)
    packages = sorted(sizes, key=lambda key: (-sizes[key], key))
    train = [package for is_eval, package in packages if not is_eval]
    test = [package for is_eval, package in packages if is_eval]
    cities = dict(zip(train, cycle(TRAIN_CITIES), strict=False))
    return cities | dict(zip(test, chain(TEST_CITIES, cycle(cities.values())), strict=False))


def write_dcase20(corpus: Corpus, folder: Path, train_clips: int, test_clips: int) -> str:
    """Write audio/, meta.csv and evaluation_setup/, up to so many clips per scene; returns the counts and what stands for what."""
    classes = by_class(corpus.clips)
    train = {label: [clip for clip in clips if not clip.is_eval] for label, clips in classes.items()}
    test = {label: [clip for clip in clips if clip.is_eval] for label, clips in classes.items()}
    label_of = dict(zip(dcase20.SCENES, choose_classes([train, test], dcase20.NUM_CLASSES), strict=True))
    plan = ("train", train, train_clips, TRAIN_DEVICES), ("test", test, test_clips, dcase20.DEVICES)
    jobs = []  # (part, scene, clip, device)
    for part, clips_of, count, devices in plan:
        chosen = [(scene, clip) for scene, label in label_of.items() for clip in spread(clips_of[label], count)]
        jobs += [(part, *entry, device) for entry, device in zip(chosen, cycle(devices), strict=False)]
    cities = assign_cities(clip for _, _, clip, _ in jobs)
    locations: dict[str, int] = {}
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    origins = []
    for segment, (part, scene, clip, device) in enumerate(tqdm(jobs, unit="clip", disable=None)):
        identifier = f"{cities[clip.package]}-{locations.setdefault(clip.recording, len(locations))}"
        name = f"audio/{scene}-{identifier}-{segment}-{device}.wav"
        waveform = np.resize(corpus.waveform(clip, WAV_RATE), int(dcase20.CLIP_SECONDS * WAV_RATE))  # repeats it
        write_wav(folder / name, device_sound(waveform, device), WAV_RATE)
        rows[part].append((name, scene, identifier, device))
        origins.append((name, clip))
    header = ("filename", "scene_label", "identifier", "source_label")
    setup = folder / "evaluation_setup"
    setup.mkdir()
    write_table(folder / "meta.csv", [header, *rows["train"], *rows["test"]], delimiter="\t")
    for name, part, columns in (("train", "train", 2), ("test", "test", 1), ("evaluate", "test", 2)):
        write_table(setup / f"fold1_{name}.csv", [row[:columns] for row in (header, *rows[part])], delimiter="\t")
    write_origins(folder, origins)
    where = {part: {dcase20.city_of(row[2]) for row in rows[part]} for part in rows}
    unseen = ", ".join(sorted(where["test"] - where["train"]))
    lines = [f"{len(rows['train'])} clips to train on, {len(rows['test'])} to test on; cities that are only tested: {unseen}", ""]
    lines += ["Devices other than a are filters. No package is in both lists: a city that is in both is two packages.", ""]
    lines += [f"{scene} stands for {label}" for scene, label in label_of.items()]
    lines += [f"{city} stands for {package}" for package, city in sorted(cities.items(), key=lambda item: item[::-1])]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("stand_ins", __doc__)
    commands = parser.add_subparsers(dest="data_set", required=True)
    for data_set, published in PUBLISHED.items():
        command = commands.add_parser(data_set, help=f"stand-in for {published}", formatter_class=HelpFormatter)
        command.add_argument("--corpus_dir", type=Path, default=data_dir("opensounds"), help="folder of the open corpus")
        command.add_argument("--output_dir", type=Path, default=data_dir(f"opensounds_{data_set}"), help="folder to write")
        if data_set == "dcase20":
            command.add_argument("--train_clips", type=positive_int, default=30, help="clips of a scene to train on, at most")
            command.add_argument("--test_clips", type=positive_int, default=15, help="clips of a scene to test on, at most")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder unless it is there; returns 0."""
    args = build_parser().parse_args(argv)
    writers = {
        "esc50": write_esc50,
        "fsd50k": write_fsd50k,
        "dcase20": lambda corpus, folder: write_dcase20(corpus, folder, args.train_clips, args.test_clips),
    }
    title, about = TITLE.format(published=PUBLISHED[args.data_set]), ABOUT.format(data_set=args.data_set)
    summary = make_folder(args.corpus_dir, args.output_dir, title, about, writers[args.data_set])
    print(f"{args.output_dir} is there" if summary is None else f"{args.output_dir}: {summary.splitlines()[0]}")
    return 0


if __name__ == "__main__":
    run(main)
