"""What does OpenVINO cost and save? Accuracy and time of a model in ONNX Runtime and in OpenVINO, on ESC-10 and the open corpus.

python -m studies.openvino --model_name mn04_distilled --audio_dir data/ESC-10 --dataset_dir data/opensounds

OpenVINO computes the network in float32 and in bfloat16, behind the same front end. The time is that of one thread for a clip of
10 s, front end included; the variants take turns. How fast bfloat16 is depends on the processor's instructions (AMX).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from datasets import audioset
from helpers import cli
from helpers.costs.tables import table
from helpers.export.cache import exported
from helpers.export.comparison import Difference
from helpers.export.openvino_runtime import PRECISIONS, OpenVinoBackend
from helpers.export.runtime import OnnxBackend
from helpers.metrics import accuracy, tagging_metrics
from studies import esc10, weights

REFERENCE = "ONNX Runtime, float32"


def build_parser() -> argparse.ArgumentParser:
    return weights.build_parser(__doc__)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    path = exported(args.model_name)
    reference = OnnxBackend(path, threads=1)
    variants = {REFERENCE: reference}
    variants |= {f"OpenVINO, {precision}": OpenVinoBackend(path, 1, precision=precision) for precision in PRECISIONS}
    labels = reference.labels
    esc10.check_labels(labels)
    with tempfile.TemporaryDirectory() as folder:
        data = esc10.open_clips(args.audio_dir, Path(folder))
    clips = data.clips(range(len(data.paths)), sample_rate=reference.sample_rate, clip_seconds=None)
    of_esc10 = weights.compute(variants, clips, "ESC-10")
    evaluation = audioset.evaluation_set(args.dataset_dir, sample_rate=reference.sample_rate, clip_seconds=args.clip_seconds)
    of_corpus, targets = weights.compute(variants, evaluation, "open corpus"), evaluation.targets()
    ratios = weights.relative_times(variants, reference.sample_rate, args.rounds, REFERENCE)
    rows = [
        {
            "variant": name,
            "ESC-10 accuracy": f"{accuracy(data.targets, esc10.class_scores(of_esc10[name], labels, data.class_names)):.4f}",
            "first tag as float32": f"{Difference.between(of_esc10[name], of_esc10[REFERENCE]).same_first:.4f}",
            "mAP": f"{tagging_metrics(targets, of_corpus[name]).mAP:.4f}",
            "mean difference": f"{Difference.between(of_corpus[name], of_corpus[REFERENCE]).mean:.1e}",
            "time": f"{ratios[name]:.2f}",
        }
        for name in variants
    ]
    print(f"{args.model_name}, {common.machine('onnxruntime', 'openvino')}\n{table(rows, args.format)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
