"""Train the bundled frame-wise model fmn04_soundscapes: it learns when sounds are, from scenes mixed of the open corpus.

python -m datasets.prepare.opensounds --output_dir data/opensounds
python -m studies.bundled_frames --dataset_dir data/opensounds --output_dir runs/bundled_frames

1. Scenes as those of datasets.prepare.soundscapes, with more classes: `classes_of_scenes`, and music of whole bands.
2. A frame-wise MobileNet learns them, from the convolutions and with the front end of mn04_distilled.

The epoch that is best on validation scenes becomes fmn04_soundscapes.pt, in float16, and its ONNX export. The same command resumes
after an interruption.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audio
from datasets.audioset import NUM_CLASSES
from datasets.audioset_strong import CLASSES, TABLES
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer
from datasets.labels import audioset_labels, audioset_mids
from datasets.prepare.corpus import Corpus, CorpusClip
from datasets.prepare.opensounds.build import hdf5_path
from datasets.prepare.soundscapes.build import HDF5_NAMES, clip_name, segment_id
from datasets.prepare.soundscapes.material import MIXTURES, PARTS, Material, part_of
from datasets.prepare.soundscapes.scenes import SAMPLE_RATE, scene
from datasets.strong_labels import write_strong_labels
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
MIXTURE_SHARE = 0.15  # of the events: music of whole bands
COUNTS = {"train": 1080, "validation": 120, "eval": 200}  # scenes of 10 s
SEED = 20  # other scenes than those of datasets.prepare.soundscapes
TRAINING = (
    "--train", "--pretrained_name", "mn04_distilled", "--arch", "fmn", "--experiment_name", "frames", "--n_epochs", 8,
    "--epoch_len", COUNTS["train"], "--batch_size", 8, "--max_lr", 1e-3, "--sequence_lr", 2e-3, "--layer_decay", 0.95,
    "--warm_up_len", 1, "--batch_norm_momentum", 0.02, "--gain_augment", 10, "--filter_augment", 6, "--fmin_aug_range", 1,
    "--fmax_aug_range", 1, "--evaluate_every", 2, "--save_minutes", 3, "--wandb", "disabled", "--num_workers", 0,
)  # fmt: skip


class SceneMaterial(Material):
    """The material of the soundscapes, and music; an event has its classes and what these are."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__(corpus)
        self.sources = self.labels  # which events are drawn by
        self.labels = tuple(sorted({*self.labels, *GENERAL}))
        self._mixtures: dict[str, dict[str, list[CorpusClip]]] = {part: {} for part in PARTS}
        for clip in corpus.clips:
            if not MIXTURES.isdisjoint(clip.labels):
                self._mixtures[part_of(clip)].setdefault(clip.recording, []).append(clip)

    def event(self, part: str, rng: np.random.Generator) -> CorpusClip:
        if rng.random() >= MIXTURE_SHARE:
            of_class = self._events[part, self.sources[rng.integers(len(self.sources))]]
        else:
            of_class = self._mixtures[part]
        clips = list(of_class.values())[rng.integers(len(of_class))]
        return clips[rng.integers(len(clips))]

    def classes_of(self, clip: CorpusClip) -> list[int]:
        return [k for k, label in enumerate(self.labels) if label in clip.all_labels]


def build_scenes(corpus_dir: Path, folder: Path) -> None:
    """Write what is not there yet of the scenes, in the form of AudioSet Strong."""
    material = SceneMaterial(Corpus(corpus_dir))
    mids = dict(zip(audioset_labels(), audioset_mids(), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / CLASSES, [("mid", "display_name"), *((mids[label], label) for label in material.labels)], delimiter="\t")
    for part, count in COUNTS.items():
        table = folder / TABLES[part]
        if table.is_file():
            continue
        path = hdf5_path(folder, HDF5_NAMES[part])
        path.unlink(missing_ok=True)  # without its table
        events = {}
        with Mp3Writer(path, NUM_CLASSES) as writer:
            for index in tqdm(range(count), desc=part, unit="scene", disable=None):
                found, name = scene(material, part, SEED, index, 4), clip_name(part, index)
                events[segment_id(name)] = found.events
                if name not in writer.names:
                    target = np.isin(audioset_labels(), [material.labels[event.class_index] for event in found.events])
                    writer.add(name, audio.encode_mp3(found.waveform, SAMPLE_RATE), target)
        write_strong_labels(table, events, [mids[label] for label in material.labels])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--dataset_dir", type=cli.absolute_path, required=True, help="folder of the open corpus")
    parser.add_argument("--output_dir", type=cli.absolute_path, required=True, help="folder of the scenes and the run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    scenes, run = args.output_dir / "scenes", args.output_dir / "runs" / "frames"
    build_scenes(args.dataset_dir, scenes)
    command = [common.ROOT / "ex_audioset_strong.py", *TRAINING, "--dataset_dir", scenes]
    if (run / "config.json").exists():
        command += ["--resume", run]
    common.run_python(command, "frames", args.output_dir, 1)
    write_model(run / "best.pt", args.output_dir)
    return 0


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
