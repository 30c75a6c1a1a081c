"""Train the bundled frame-wise model fmn04_soundscapes: it learns when sounds are, from scenes mixed of the open corpus.

python -m datasets.prepare.opensounds --output_dir data/opensounds
python -m datasets.prepare.soundscapes --dataset_dir data/opensounds --output_dir data/soundscapes --hours 6
python -m studies.bundled_frames --corpus_dir data/opensounds --dataset_dir data/soundscapes --output_dir runs/bundled_frames

The classes are those of the scenes and `GENERAL` ones that several of them are. Some scenes end where a clip of a whole band from
the corpus begins, which is music from there on. A frame-wise MobileNet learns all that from the convolutions and with the front end
of mn04_distilled. Scenes are not mixed with each other, as they are mixtures already. The last epoch becomes fmn04_soundscapes.pt
and its ONNX export. The same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets import audio
from datasets.audioset import NUM_CLASSES
from datasets.audioset_strong import CLASSES, TABLES, Classes, read_classes
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Dataset, Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare.corpus import Corpus
from datasets.prepare.opensounds.build import hdf5_path
from datasets.prepare.opensounds.tables import with_ancestors
from datasets.prepare.soundscapes.build import HDF5_NAMES, clip_name, segment_id
from datasets.prepare.soundscapes.material import MIXTURES, part_of
from datasets.prepare.soundscapes.scenes import SAMPLE_RATE, SAMPLES
from datasets.strong_labels import LabelledEvent, merged, read_strong_labels, write_strong_labels
from helpers import cli
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from models import checkpoints
from studies import common

NAME = "fmn04_soundscapes"
# What several of the scenes' classes are, by AudioSet's ontology.
GENERAL = (
    "Animal", "Drum", "Guitar", "Keyboard (musical)", "Music", "Percussion", "Speech", "Wind instrument, woodwind instrument",
)  # fmt: skip
SCENES_OF_A_BAND = 4  # scenes that end where a clip of a band begins; these are alone in having many instruments at a time
BAND_BEGINS = (0.5, 8.0)  # seconds
BAND_DB = (-20.0, 0.0)
OPTIONS = (
    "--arch", "fmn", "--pretrained_name", "mn04_distilled", "--n_epochs", 6, "--batch_size", 4, "--max_lr", 2e-3,
    "--sequence_lr", 4e-3, "--layer_decay", 1, "--warm_up_len", 1, "--batch_norm_momentum", 0.02, "--no-wavmix", "--mixup_p", 0,
    "--gain_augment", 10, "--filter_augment", 6, "--fmin_aug_range", 1, "--fmax_aug_range", 1, "--save_minutes", 3,
    "--wandb", "disabled", "--num_workers", 0,
)  # fmt: skip


def build_data(corpus_dir: Path, scenes_dir: Path, folder: Path) -> None:
    """Write scenes with bands, the tables of events with the general classes, and links to the scenes; the classes last."""
    if (folder / CLASSES).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    scenes = read_classes(scenes_dir)
    labels = tuple(sorted({*scenes.labels, *GENERAL}))

    def implied(onset: float, offset: float, names: Iterable[str]) -> list[LabelledEvent]:
        return [LabelledEvent(onset, offset, labels.index(name)) for name in names if name in labels]

    events = {}
    for part, table in TABLES.items():
        events[part] = {
            scene: merged(same for event in found for same in implied(event.onset, event.offset, all_names(scenes, event)))
            for scene, found in read_strong_labels(scenes_dir / table, *scenes).items()
        }
        link = hdf5_path(folder, HDF5_NAMES[part])
        link.unlink(missing_ok=True)
        link.symlink_to(hdf5_path(scenes_dir, HDF5_NAMES[part]))
    corpus, training = Corpus(corpus_dir), Mp3Dataset(hdf5_path(folder, HDF5_NAMES["train"]), num_classes=NUM_CLASSES)
    bands = [clip for clip in corpus.clips if part_of(clip) == "train" and not MIXTURES.isdisjoint(clip.labels)]
    path = hdf5_path(folder, "unbalanced_train")
    path.unlink(missing_ok=True)
    rng = np.random.default_rng(0)
    with Mp3Writer(path, NUM_CLASSES) as writer:
        for number, clip in enumerate(bands * SCENES_OF_A_BAND):
            index, begin, level = int(rng.integers(len(training))), rng.uniform(*BAND_BEGINS), 10 ** (rng.uniform(*BAND_DB) / 20)
            scene = audio.load(training.read(index)[0], SAMPLE_RATE, name=training.names[index])[: round(begin * SAMPLE_RATE)]
            waveform = np.concatenate([scene, level * corpus.waveform(clip, SAMPLE_RATE)])[:SAMPLES]
            found = [
                replace(event, offset=min(event.offset, begin))
                for event in events["train"][segment_id(training.names[index])]
                if event.onset < begin
            ]
            found += implied(begin, len(waveform) / SAMPLE_RATE, clip.all_labels)
            name = clip_name("band", number)
            events["train"][segment_id(name)] = merged(found)
            if name not in writer.names:  # of an interrupted run
                heard = [labels[event.class_index] for event in found]
                writer.add(name, audio.encode_mp3(waveform, SAMPLE_RATE), np.isin(audioset_labels(), heard))
    for part, table in TABLES.items():
        write_strong_labels(folder / table, events[part], [mids[label] for label in labels])
    write_table(folder / CLASSES, [("mid", "display_name"), *((mids[label], label) for label in labels)], delimiter="\t")


def all_names(classes: Classes, event: LabelledEvent) -> tuple[str, ...]:
    """The name of an event's class, and of all that this is."""
    return with_ancestors((classes.labels[event.class_index],))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--corpus_dir", type=cli.absolute_path, required=True, help="folder of the open corpus")
    parser.add_argument("--dataset_dir", type=cli.absolute_path, required=True, help="folder of the soundscapes")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of the run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    build_data(args.corpus_dir, args.dataset_dir, args.output_dir / "data")
    folder = train(args.output_dir)
    write_model(folder / "last.pt", args.output_dir)
    return 0


def train(output_dir: Path) -> Path:
    """Train, or resume the training; return its folder."""
    name = "scenes"
    folder = output_dir / "runs" / name
    command = [common.ROOT / "ex_audioset_strong.py", "--train", "--experiment_name", name, "--dataset_dir", output_dir / "data"]
    command += OPTIONS
    if (folder / "config.json").exists():
        command += ["--resume", folder]
    common.run_python(command, name, output_dir, 1)
    return folder


def write_model(path: Path, output_dir: Path) -> None:
    """Write the checkpoint of the run as the files of the bundled model: weights in float16, and the export."""
    checkpoint = checkpoints.load(path)
    network = checkpoints.build(checkpoint).eval()
    weights, export = (output_dir / f"{NAME}.{suffix}" for suffix in ("pt", "onnx"))
    checkpoints.save(weights, network, epoch=checkpoint.epoch, metrics=checkpoint.metrics, args={})
    write(export, to_onnx(network, NAME, weights="float16"))
    for file in (weights, export):
        print(f"{file}: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.run(main)
