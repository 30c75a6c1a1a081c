"""Build tasks in the layout of HEAR 2021's from the corpus of datasets.prepare.opensounds, to compare embeddings on.

    python -m datasets.prepare.hear_tasks --corpus_dir data/opensounds --output_dir data/opensounds_hear
    python -m datasets.prepare.hear_tasks --soundscapes_dir data/soundscapes --output_dir data/soundscapes_hear

The first command builds four tasks with labels of recordings. The second builds one with events in time, in the layout of
DCASE 2016 task 2, out of the first scenes of each part of datasets.prepare.soundscapes.

They are not tasks of HEAR, and no figure measured on them can be compared with one of HEAR's. tasks/ holds a folder for each with
wavs of 3 s at 32 kHz, README.txt describes them, and origins.csv names the clip of the corpus that each file was made of. A file
has one of the task's labels, which are AudioSet's; the score is the accuracy.

All clips are of the corpus's evaluation split, in five folds. The bundled mn04_distilled was trained and selected on the others.
Those have more clips, but the last layers of a network have memorised its training data: probes on it would measure that, and
not how useful the layers are. Folds share no source:

instruments: eight families. A source is an instrument of the soundfont with all its phrases, a drum of it in all its kits, or a
recording, so those that are tested are not in training. Single instruments as classes would not allow that: most have one
source.

speech: the kinds of speaker that there are; children are missing. A source is a speaker, of ten people and four synthetic voices.
Speaker identities would make more classes, but each had another microphone: mean spectra are enough to distinguish them.

animals: six labels with at least 5 recordings. vehicles: six labels with at least 3, so few clips that one is 3 % of the accuracy.
Here a source is a recording, and numbered ones of one package (carhorn1, carhorn2) may be of one car, as may those of
instruments and drums that are not the soundfont's (snare01, snare02) be of one drum.

Longer clips than 3 s keep their beginning, shorter ones, about half of the instruments and three quarters of the animals, are
followed by silence. Classes have 60 clips at most, of as many sources as there
are.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from datasets import audio
from datasets.audioset import NUM_CLASSES
from datasets.csv_table import read_table, write_table
from datasets.hdf5_mp3 import Mp3Dataset
from datasets.location import data_dir
from datasets.prepare.command_line import command_parser
from datasets.prepare.corpus import Corpus, CorpusClip, assign_folds, make_folder, spread, write_origins, write_wav
from datasets.strong_labels import read_strong_labels
from models.command import run
from models.errors import UserError
from models.files import replacing_folder

TASKS = {
    "instruments": (
        "Bowed string instrument",
        "Brass instrument",
        "Cymbal",
        "Drum",
        "Keyboard (musical)",
        "Mallet percussion",
        "Plucked string instrument",
        "Wind instrument, woodwind instrument",
    ),
    "speech": ("Female speech, woman speaking", "Male speech, man speaking", "Speech synthesizer"),
    "animals": ("Bark", "Bird", "Bleat", "Fowl", "Growling", "Insect"),
    "vehicles": (
        "Helicopter",
        "Jet engine",
        "Siren",
        "Traffic noise, roadway noise",
        "Train",
        "Vehicle horn, car horn, honking",
    ),
}
FOLDS = ("fold00", "fold01", "fold02", "fold03", "fold04")
ENOUGH_SOURCES = 3  # of a class: one each to train, to validate and to test with
CLASS_CLIPS = 60  # at most
SAMPLE_RATE = 32000  # Hz, of the corpus and the networks
CLIP_SECONDS = 3.0
EVENT_SCENES = {  # split: part of the soundscapes, its HDF5 file, how many scenes at most
    "train": ("train", "balanced_train", 200),
    "valid": ("validation", "validation", 60),
    "test": ("eval", "eval", 120),
}
YOUTUBE_ID = 11  # characters, in names of clips and segments
SOUNDSCAPES_ADVICE = "give the folder that python -m datasets.prepare.soundscapes wrote"

# Recordings are from one source if one of these finds the same in them, the first that finds anything; others are their own.
SOURCES = (
    r"^(tuxpaint-stamps-default)/.*_desc_(\w\w)\.ogg$",  # the reader of a language
    r"^(fillets-ng-data-nl)/.*/nl/[^/]*-([vm])-",  # the actors of the big and of the small fish
    r"^(asterisk-core-sounds-fr-wav)/",  # one reader
    r"^(flite)/([a-z]+)",  # a voice; kal16 is kal at another rate
    r"^(timgm6mb-soundfont)/128:\d+ (key \d+)$",  # a drum; kits have many in common
    r"^(timgm6mb-soundfont)/(\d+:\d+) ",  # an instrument
)

TITLE = "Four tasks in the layout of HEAR 2021's. These are NOT tasks of HEAR."
ABOUT = """\
Other recordings and other labels in the same file layout, to compare embeddings on real sound. No figure measured here can be
compared with one of HEAR. Made from the evaluation split of the corpus of datasets.prepare.opensounds by
python -m datasets.prepare.hear_tasks; --help explains the tasks."""


def source_of(recording: str) -> str:
    """What a recording shares with others that sound alike (see `SOURCES`)."""
    found = next(filter(None, (re.search(pattern, recording) for pattern in SOURCES)), None)
    return "/".join(found.groups()) if found else recording


def choose_clips(clips: Sequence[CorpusClip], labels: Sequence[str]) -> dict[str, list[CorpusClip]]:
    """Clips of each label, out of those that have one of the labels alone; UserError if the sources are too few for folds."""
    classes: dict[str, list[CorpusClip]] = {label: [] for label in labels}
    for clip in clips:
        own = [label for label in labels if label in clip.all_labels]
        if len(own) == 1:
            classes[own[0]].append(clip)
    for label, found in classes.items():
        if len({clip.recording for clip in found}) < ENOUGH_SOURCES:
            raise UserError(f"the corpus has fewer than {ENOUGH_SOURCES} sources of {label!r}; build it with all packages")
    return {label: spread(found, CLASS_CLIPS) for label, found in classes.items()}


def write_task(corpus: Corpus, folder: Path, name: str) -> tuple[str, list[tuple[str, CorpusClip]]]:
    """Write a task's folder, tasks/<name>-v1-full; returns the counts, and the origins of its files."""
    labels = sorted(TASKS[name])
    recordings = {clip.name: clip.recording for clip in corpus.clips}
    by_source = [replace(clip, recording=source_of(clip.recording)) for clip in corpus.clips if clip.is_eval]
    chosen = choose_clips(by_source, labels)
    folds = assign_folds(chosen, FOLDS)
    task, origins, files = folder / "tasks" / f"{name}-v1-full", [], {fold: {} for fold in FOLDS}
    jobs = sorted(((clip.name, clip, label) for label, clips in chosen.items() for clip in clips), key=lambda job: job[0])
    for _, clip, label in tqdm(jobs, desc=name, unit="clip", disable=None):
        fold, file = folds[clip.recording], Path(clip.name).with_suffix(".wav").name
        path = task / str(SAMPLE_RATE) / fold / file
        waveform = audio.crop_or_pad(corpus.waveform(clip, SAMPLE_RATE), int(CLIP_SECONDS * SAMPLE_RATE))
        write_wav(path, waveform, SAMPLE_RATE)
        files[fold][file] = [label]
        origins.append((path.relative_to(folder).as_posix(), clip))
    metadata = {
        "task_name": name,
        "version": "v1",
        "mode": "full",
        "default_mode": "full",
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "new_split_kfold",
        "nfolds": len(FOLDS),
        "splits": FOLDS,
        "sample_duration": CLIP_SECONDS,
        "evaluation": ["top1_acc"],
    }
    write_labels(task, metadata, labels, files)
    sizes = {label: len(clips) for label, clips in chosen.items()}
    summary = (
        f"{name}: {len(jobs)} clips of {len({recordings[key] for key, *_ in jobs})} recordings and {len(folds)} sources in "
        f"{len(labels)} classes of {min(sizes.values())} to {max(sizes.values())} clips; folds of "
        f"{', '.join(str(len(found)) for found in files.values())}; chance {max(sizes.values()) / len(jobs):.3f}"
    )
    return "\n".join([summary, *(f"    {size} {label}" for label, size in sizes.items())]), origins


def write_labels(task: Path, metadata: dict[str, object], labels: Sequence[str], files: dict[str, dict[str, list]]) -> None:
    """Write metadata, vocabulary and, for each split, the labels of its files."""
    (task / "task_metadata.json").write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    write_table(task / "labelvocabulary.csv", [("idx", "label"), *enumerate(labels)])
    for split, found in files.items():
        (task / f"{split}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_event_task(soundscapes_dir: Path, folder: Path) -> str:
    """Write tasks/soundscapes-v1-full, of `EVENT_SCENES` scenes of each part; returns the counts.

    Raises FileNotFoundError and UserError for a folder that datasets.prepare.soundscapes did not write.
    """
    rows = read_table(soundscapes_dir / "strong_classes.tsv", ("mid", "display_name"), delimiter="\t", advice=SOUNDSCAPES_ADVICE)
    labels, mids = ([row[column] for row in rows] for column in ("display_name", "mid"))
    task, files, counts = folder / "tasks" / "soundscapes-v1-full", {}, []
    for split, (part, hdf5, count) in EVENT_SCENES.items():
        table = read_strong_labels(soundscapes_dir / f"audioset_{part}_strong.tsv", labels, mids)
        events = {segment[:YOUTUBE_ID]: found for segment, found in table.items()}
        clips = Mp3Dataset(soundscapes_dir / f"{hdf5}_segments_mp3.hdf", num_classes=NUM_CLASSES, clip_seconds=None)
        files[split] = {}
        for index in tqdm(range(min(count, len(clips))), desc=split, unit="scene", disable=None):
            clip = clips[index]
            key = clip.name[1 : 1 + YOUTUBE_ID]
            if key not in events:
                raise UserError(f"{soundscapes_dir}: the table of {part} lacks {clip.name}; {SOUNDSCAPES_ADVICE}")
            write_wav(task / str(SAMPLE_RATE) / split / f"{key}.wav", clip.waveform.numpy(), SAMPLE_RATE)
            files[split][f"{key}.wav"] = [
                {"label": labels[event.class_index], "start": round(1000 * event.onset, 3), "end": round(1000 * event.offset, 3)}
                for event in events[key]
            ]
        counts.append(f"{len(files[split])} to {split} with {sum(map(len, files[split].values()))} events")
    metadata = {
        "task_name": "soundscapes",
        "version": "v1",
        "mode": "full",
        "default_mode": "full",
        "embedding_type": "event",
        "prediction_type": "multilabel",
        "split_mode": "trainvaltest",
        "splits": list(EVENT_SCENES),
        "sample_duration": None,
        "evaluation": ["event_onset_200ms_fms"],
        "evaluation_params": {"event_postprocessing_grid": {"median_filter_ms": [250], "min_duration": [125, 250]}},
    }
    write_labels(task, metadata, labels, files)
    return f"soundscapes: {len(labels)} classes; scenes: {', '.join(counts)}"


def write_tasks(corpus: Corpus, folder: Path) -> str:
    """Write tasks/ and origins.csv; returns the counts."""
    summaries, origins = zip(*(write_task(corpus, folder, name) for name in TASKS), strict=True)
    write_origins(folder, [origin for found in origins for origin in found])
    return "\n".join([*summaries, "Chance is the accuracy of always naming the largest class."])


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("hear_tasks", __doc__)
    parser.add_argument("--corpus_dir", type=Path, default=data_dir("opensounds"), help="folder of the open corpus")
    parser.add_argument("--soundscapes_dir", type=Path, help="folder of soundscapes: build the task of events from them instead")
    parser.add_argument("--output_dir", type=Path, default=data_dir("opensounds_hear"), help="folder to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder unless it is there; returns 0."""
    args = build_parser().parse_args(argv)
    if args.soundscapes_dir:
        if args.output_dir.exists():
            raise FileExistsError(f"{args.output_dir} exists; remove it or choose another --output_dir")
        with replacing_folder(args.output_dir.resolve()) as folder:
            summary = write_event_task(args.soundscapes_dir, folder)
        print(f"{args.output_dir}\n{summary}")
        return 0
    summary = make_folder(args.corpus_dir, args.output_dir, TITLE, ABOUT, write_tasks)
    print(f"{args.output_dir} is there" if summary is None else f"{args.output_dir}\n{summary}")
    return 0


if __name__ == "__main__":
    run(main)
