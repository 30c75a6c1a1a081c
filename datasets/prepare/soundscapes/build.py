"""Mix scenes of 10 s with sound events at known times from the corpus of datasets.prepare.opensounds.

    python -m datasets.prepare.soundscapes --dataset_dir data/opensounds --output_dir data/soundscapes --hours 3 --seed 0

A scene has a background and one to --max_events events: recordings of the corpus at random times and levels, a little faster or
slower, half of the scenes in a made-up room. Onsets and offsets are where an event comes within 25 dB of its loudest 10 ms; pauses
below 0.5 s belong to it. The folder has the form of AudioSet and AudioSet Strong, so the scripts for these read it:

balanced_train_segments_mp3.hdf, validation_segments_mp3.hdf, eval_segments_mp3.hdf: scenes, with labels of AudioSet's 527 classes
audioset_train_strong.tsv, audioset_validation_strong.tsv, audioset_eval_strong.tsv: events, with MIDs
strong_classes.tsv: the classes that events have; any other sound is background
origins_train.csv, ...: the clip of the corpus, time and signal-to-noise ratio of every event; clips.csv there has the licences

Training, validation and evaluation scenes share no recording. The same options give the same scenes; an interrupted build resumes.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.audioset import NUM_CLASSES
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.location import data_dir
from datasets.prepare.command_line import command_parser, positive_int
from datasets.prepare.conversion import worker_processes
from datasets.prepare.opensounds.build import hdf5_path
from datasets.prepare.opensounds.tables import with_ancestors
from datasets.prepare.soundscapes.material import PARTS, Material, open_material
from datasets.prepare.soundscapes.scenes import SAMPLE_RATE, SECONDS, Scene, scene
from datasets.strong_labels import write_strong_labels
from models.errors import UserError
from models.files import write_bytes

HDF5_NAMES = {"train": "balanced_train", "validation": "validation", "eval": "eval"}
SETTINGS = "soundscapes.json"
_CHUNK = 8  # scenes that a process mixes at a time

_material = cache(open_material)  # once in each process


def clip_name(part: str, index: int) -> str:
    """A name as AudioSet's: 'Y', 11 characters, '.mp3'."""
    return f"Y{part[:5]:_<5}{index:06d}.mp3"


def segment_id(name: str) -> str:
    """What AudioSet Strong's tables call a clip: its 11 characters, and its start in ms."""
    return f"{name[1:12]}_0"


def mixed(corpus_dir: Path, part: str, seed: int, max_events: int, index: int, encode: bool) -> tuple[Scene, bytes]:
    """A scene and, to `encode`, its mp3; runs in a worker process."""
    found = scene(_material(corpus_dir), part, seed, index, max_events)
    mp3 = audio.encode_mp3(found.waveform, SAMPLE_RATE) if encode else b""
    return replace(found, waveform=found.waveform[:0]), mp3


def build_part(args: argparse.Namespace, material: Material, part: str, count: int) -> str:
    """Write the scenes of a part, then its tables; returns its counts."""
    path = hdf5_path(args.output_dir, HDF5_NAMES[part])
    names = [clip_name(part, index) for index in range(count)]
    scenes: dict[str, Scene] = {}
    if path.exists():  # complete, and the tables are lost or were not written yet
        scenes |= {name: found for name, (found, _) in mix_all(args, part, names, {*names})}
    else:
        with Mp3Writer(path, NUM_CLASSES) as writer:
            for name, (found, mp3) in mix_all(args, part, names, {*writer.names}):
                scenes[name] = found
                if mp3:
                    writer.add(name, mp3, clip_target(found, material))
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    origins = [(name, *origin) for name, found in scenes.items() for origin in found.origins]
    write_table(args.output_dir / f"origins_{part}.csv", [("scene", "corpus_clip", "onset", "offset", "snr_db"), *origins])
    events = {segment_id(name): found.events for name, found in scenes.items()}
    write_strong_labels(table_path(args.output_dir, part), events, [mids[label] for label in material.labels])
    seconds = sum(event.offset - event.onset for found in events.values() for event in found)
    number = sum(map(len, events.values()))
    return f"{part:10} {count:5} scenes {count * SECONDS / 3600:5.2f} h {number:6} events of {seconds / number:.2f} s on average"


def mix_all(args: argparse.Namespace, part: str, names: list[str], there: set[str]) -> Iterator[tuple[str, tuple[Scene, bytes]]]:
    """Each scene in order, with the mp3 of those that are not there yet."""
    encode = [name not in there for name in names]
    options = map(repeat, (args.dataset_dir, part, args.seed, args.max_events))
    with worker_processes(args.num_workers) as pool:
        found = pool.map(mixed, *options, range(len(names)), encode, chunksize=_CHUNK)
        yield from zip(names, tqdm(found, desc=part, total=len(names), unit="scene", disable=None), strict=True)


def clip_target(found: Scene, material: Material) -> np.ndarray:
    """Labels of a whole scene, (527,) uint8, ancestors included as in the corpus."""
    labels = {label for event in found.events for label in with_ancestors((material.labels[event.class_index],))}
    return np.array([label in labels for label in audioset_labels()], np.uint8)


def table_path(output_dir: Path, part: str) -> Path:
    return output_dir / f"audioset_{part}_strong.tsv"


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("soundscapes", __doc__)
    parser.add_argument("--dataset_dir", type=Path, default=data_dir("opensounds"), help="folder of the open corpus")
    parser.add_argument("--output_dir", type=Path, default=data_dir("soundscapes"), help="folder to write, 50 MB an hour")
    parser.add_argument("--hours", type=float, default=3.0, help="hours of training scenes")
    parser.add_argument("--validation_hours", type=float, default=0.5, help="hours of validation scenes")
    parser.add_argument("--eval_hours", type=float, default=0.7, help="hours of evaluation scenes")
    parser.add_argument("--max_events", type=positive_int, default=4, help="events in a scene, at most")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--num_workers", type=positive_int, default=2, help="processes that mix scenes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is not there yet; returns 0."""
    args = build_parser().parse_args(argv)
    args.dataset_dir = args.dataset_dir.absolute()
    hours = dict(zip(PARTS, (args.hours, args.validation_hours, args.eval_hours), strict=True))
    counts = {part: round(value * 3600 / SECONDS) if 0 < value < 1e4 else 0 for part, value in hours.items()}
    if min(counts.values()) < 1 or args.seed < 0:
        raise UserError(
            f"hours are {', '.join(map(str, hours.values()))}, seed {args.seed}; each part needs a scene, {SECONDS:g} s"
        )
    material = _material(args.dataset_dir)
    settings = {"scenes": counts, "seed": args.seed, "max_events": args.max_events, "clips": len(material.corpus.clips)}
    settings["classes"] = list(material.labels)
    open_folder(args.output_dir, settings)
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    classes = [(mids[label], label) for label in material.labels]
    write_table(args.output_dir / "strong_classes.tsv", [("mid", "display_name"), *classes], delimiter="\t")
    for part, count in counts.items():
        if hdf5_path(args.output_dir, HDF5_NAMES[part]).exists() and table_path(args.output_dir, part).exists():
            print(f"{part} is there")
        else:
            print(build_part(args, material, part, count), flush=True)
    print(f"{args.output_dir}: {len(classes)} classes")
    return 0


def open_folder(folder: Path, settings: dict[str, object]) -> None:
    """Note the settings in the folder; those of an earlier run must be the same."""
    path = folder / SETTINGS
    if path.is_file():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); remove the folder") from error
        if earlier != settings:
            raise UserError(f"{folder} has scenes that were made with other options ({path.name}); remove it or choose another one")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds something else; remove it or choose another --output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(settings, indent=1).encode())
