"""What do smaller weights cost and save? Accuracy, size and time of a model's exports on ESC-10 and the open corpus.

python -m studies.weights --model_name mn04_distilled --audio_dir data/ESC-10 --dataset_dir data/opensounds

Exports with weights in float32, float16 and int8 (`export.py --weights`), and one that also computes convolutions in 8-bit
integers, by ONNX Runtime's static quantisation, whose ranges come from training clips of the corpus. The time is that of one
thread for a clip of 10 s; exports take turns. How fast 8-bit integers are depends on the processor's instructions (VNNI).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from tqdm import tqdm

from benchmarks import common
from datasets import audioset
from datasets.clip import ClipDataset
from datasets.labels import default_labels
from helpers import cli
from helpers.costs.tables import FORMATS, table
from helpers.export.cache import WEIGHTS
from helpers.export.comparison import Difference
from helpers.export.graph import to_onnx
from helpers.export.runtime import ParallelGraph
from helpers.metrics import accuracy, tagging_metrics
from models import checkpoints
from models.network import MobileNetV3
from studies import esc10

COMPUTED = "int8 computation"
CALIBRATION_CLIPS = 100
Graph = Callable[[Sequence[np.ndarray]], Sequence[tuple[np.ndarray, ...]]]  # clips (samples,) -> scores (K,) and embedding of each


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_distilled", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--audio_dir", type=Path, required=True, help="folder of ESC-10 or ESC-50")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of the corpus's HDF5 files")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=10.0, help="length that the corpus's clips are cut to")
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="timed runs of each export")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    network = checkpoints.load_model(args.model_name)
    labels = network.labels or default_labels(network.arch.num_classes)
    esc10.check_labels(labels)
    options = {"sample_rate": network.mel.sample_rate, "clip_seconds": args.clip_seconds}
    training, evaluation = (part(args.dataset_dir, **options) for part in (audioset.training_set, audioset.evaluation_set))
    chosen = np.linspace(0, len(training) - 1, min(CALIBRATION_CLIPS, len(training)), dtype=int)

    exports = {weights: to_onnx(network, weights, weights=weights) for weights in WEIGHTS}
    exports[COMPUTED] = computed_in_int8(network, (training[int(index)].waveform.numpy() for index in chosen))
    contents = {name: model.SerializeToString() for name, model in exports.items()}
    graphs = {name: ParallelGraph(content, threads=1) for name, content in contents.items()}
    with tempfile.TemporaryDirectory() as folder:
        data = esc10.open_clips(args.audio_dir, Path(folder))
    clips = data.clips(range(len(data.paths)), sample_rate=network.mel.sample_rate, clip_seconds=None)
    of_esc10, of_corpus = compute(graphs, clips, "ESC-10"), compute(graphs, evaluation, "open corpus")
    ratios = relative_times(graphs, network.mel.sample_rate, args.rounds)
    targets = evaluation.targets()
    rows = [
        {
            "weights": name,
            "size (MB)": f"{len(contents[name]) / 1e6:.2f}",
            "ESC-10 accuracy": f"{accuracy(data.targets, esc10.class_scores(of_esc10[name], labels, data.class_names)):.4f}",
            "first tag as float32": f"{Difference.between(of_esc10[name], of_esc10['float32']).same_first:.4f}",
            "mAP": f"{tagging_metrics(targets, of_corpus[name]).mAP:.4f}",
            "mean difference": f"{Difference.between(of_corpus[name], of_corpus['float32']).mean:.1e}",
            "time": f"{ratios[name]:.2f}",
        }
        for name in graphs
    ]
    print(f"{args.model_name}, {common.machine('onnxruntime')}\n{table(rows, args.format)}")
    return 0


def computed_in_int8(network: MobileNetV3, clips: Iterable[np.ndarray]) -> onnx.ModelProto:
    """Convolutions of the network in 8-bit integers, ranges by `clips`, each (samples,) float32.

    The front end stays float, as its power spectra span ten decades; so do the gates of squeeze-and-excitation and the head.
    """
    inputs = ({"waveform": clip[None]} for clip in clips)

    class Waveforms(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(inputs, None)

    convolutions = [node.name for node in to_onnx(network, "network", network_only=True).graph.node if node.op_type == "Conv"]
    whole = to_onnx(network, "whole")
    names = [node.name for node in whole.graph.node if node.op_type == "Conv"][-len(convolutions) :]  # without the front end's
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(whole, before)
        quantize_static(
            before, after, Waveforms(), per_channel=True,
            nodes_to_quantize=[name for name in names if name.startswith("Conv_")],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=True,  # 7-bit weights: without VNNI instructions, sums of two 8-bit products overflow 16 bits
        )  # fmt: skip
        return onnx.load(after)


def compute(graphs: Mapping[str, Graph], clips: ClipDataset, title: str) -> dict[str, np.ndarray]:
    """Return each graph's scores (clips, classes)."""
    scores: dict[str, list[np.ndarray]] = {name: [] for name in graphs}
    for index in tqdm(range(len(clips)), desc=title, disable=None):
        waveform = clips[index].waveform.numpy()
        for name, graph in graphs.items():
            scores[name].append(graph([waveform])[0][0])
    return {name: np.stack(rows) for name, rows in scores.items()}


def relative_times(graphs: Mapping[str, Graph], sample_rate: int, rounds: int) -> dict[str, float]:
    """Return processor times for noise of 10 s, divided by those of float32 round by round: medians."""
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * sample_rate).astype(np.float32)
    works = {name: partial(graph, [noise]) for name, graph in graphs.items()}
    times = common.measure_interleaved(works, rounds, common.processor_seconds)
    return {name: median(common.ratios(values, times["float32"])) for name, values in times.items()}


if __name__ == "__main__":
    cli.run(main)
