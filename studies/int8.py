"""What do 8-bit convolutions cost and save? Score, size and speed of a model's float and 8-bit exports on the open corpus.

python -m studies.int8 --model_name mn04_distilled --dataset_dir data/opensounds

Training clips calibrate the ranges (`export.py --int8`), evaluation clips are scored. Speed is that of a clip of 10 s alone
and of 8 of them, interleaved runs; medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from tqdm import tqdm

from benchmarks import common
from datasets import audioset
from datasets.clip import ClipDataset
from helpers import cli
from helpers.export.graph import to_onnx
from helpers.export.quantization import to_int8
from helpers.export.runtime import ParallelGraph
from helpers.metrics import tagging_metrics
from models import checkpoints
from models.errors import UserError

BATCHES = (1, 8)


@dataclass(frozen=True)
class Row:
    """Score, size and times of an export."""

    name: str
    mAP: float
    megabytes: float
    milliseconds: tuple[float, ...]  # for each of BATCHES


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_distilled", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--dataset_dir", type=Path, help="folder of the HDF5 files")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=10.0, help="length that clips are cropped or padded to")
    parser.add_argument("--calibration_clips", type=cli.positive_int, default=200, help="training clips to calibrate with")
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="timed runs of each export")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    network = checkpoints.load_model(args.model_name)
    if network.arch.num_classes != audioset.NUM_CLASSES:
        raise UserError(f"{args.model_name} has {network.arch.num_classes} classes, not AudioSet's {audioset.NUM_CLASSES}")
    options = {"sample_rate": network.mel.sample_rate, "clip_seconds": args.clip_seconds}
    training, evaluation = (part(args.dataset_dir, **options) for part in (audioset.training_set, audioset.evaluation_set))
    shown = np.linspace(0, len(training) - 1, min(args.calibration_clips, len(training)), dtype=int)
    clips = [training[int(index)].waveform.numpy() for index in shown]
    exports = {"float": to_onnx(network, "float"), "int8": to_int8(network, "int8", clips)}
    print(common.machine("onnxruntime"))
    for row in compare(exports, evaluation, network.mel.sample_rate, args.rounds):
        times = ", ".join(f"batch {b}: {ms:.1f} ms" for b, ms in zip(BATCHES, row.milliseconds, strict=True))
        print(f"{row.name:<6} mAP {row.mAP:.4f}  {row.megabytes:.2f} MB  {times}")
    return 0


def compare(exports: dict[str, onnx.ModelProto], clips: ClipDataset, sample_rate: int, rounds: int) -> list[Row]:
    contents = {name: model.SerializeToString() for name, model in exports.items()}
    graphs = {name: ParallelGraph(content) for name, content in contents.items()}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in graphs}
    for i in tqdm(range(len(clips)), desc="clips", disable=None):
        waveform = clips[i].waveform.numpy()
        for name, graph in graphs.items():
            scores[name].append(graph([waveform])[0][0])
    noise = np.random.default_rng(0).normal(0, 0.1, (max(BATCHES), 10 * sample_rate)).astype(np.float32)
    works = {(name, size): partial(graph, noise[:size]) for name, graph in graphs.items() for size in BATCHES}
    times = common.measure_interleaved(works, rounds)
    targets, rows = clips.targets(), []
    for name in exports:
        milliseconds = tuple(1e3 * median(times[name, size]) for size in BATCHES)
        rows.append(Row(name, tagging_metrics(targets, np.stack(scores[name])).mAP, len(contents[name]) / 1e6, milliseconds))
    return rows


if __name__ == "__main__":
    cli.run(main)
