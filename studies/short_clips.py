"""What to do with recordings shorter than the clips a model was trained with? Three answers, scored on the open corpus.

python -m studies.short_clips --model_name mn04_opensounds --dataset_dir data/opensounds --seconds 0.5 1 2 3 5 10

Whole evaluation clips are scored as they are, and with those below each length padded with zeros, or repeated, to that length.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets import audioset
from datasets.audio import crop_or_pad
from helpers import cli
from helpers.metrics import tagging_metrics
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.backends import BACKENDS

FILLINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "zeros": crop_or_pad,
    "repeated": lambda waveform, length: np.resize(waveform, length),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", default="mn04_opensounds", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--dataset_dir", type=Path, help="folder of the HDF5 files")
    parser.add_argument(
        "--seconds",
        type=cli.positive_float,
        nargs="+",
        default=[0.5, 1, 2, 3, 5, 10],
        help="lengths to fill shorter clips to",
    )
    parser.add_argument("--backend", choices=BACKENDS, default="onnx", help="library that computes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    tagger = AudioTagger(args.model_name, backend=args.backend, min_seconds=0)
    clips = audioset.evaluation_set(args.dataset_dir, sample_rate=tagger.sample_rate, clip_seconds=None)
    lengths = [round(seconds * tagger.sample_rate) for seconds in args.seconds]
    waveforms = [clips[i].waveform.numpy() for i in tqdm(range(len(clips)), desc="decoding", disable=None)]
    scores = compute_scores(tagger, waveforms, lengths)
    targets = clips.targets()
    print(f"{len(clips)} clips as they are: mAP {tagging_metrics(targets, scores['', 0]).mAP:.4f}")
    for seconds, length in zip(args.seconds, lengths, strict=True):
        results = ", ".join(f"{filling} {tagging_metrics(targets, scores[filling, length]).mAP:.4f}" for filling in FILLINGS)
        print(f"{(clips.lengths() < length).sum():5d} clips below {seconds:g} s padded to it: {results}")
    return 0


def compute_scores(
    tagger: AudioTagger, waveforms: Sequence[np.ndarray], lengths: Sequence[int]
) -> dict[tuple[str, int], np.ndarray]:
    """Scores (N, K) of waveforms (samples,) without padding, under ("", 0), and by padding and length in samples."""
    plain = np.stack([scores for scores, _ in tqdm(map(lambda one: tagger.backend([one])[0], waveforms), disable=None)])
    result = {("", 0): plain}
    for filling, fill in FILLINGS.items():
        for length in lengths:
            result[filling, length] = plain.copy()
            for i, waveform in enumerate(waveforms):
                if len(waveform) < length:
                    result[filling, length][i] = tagger.backend([fill(waveform, length)])[0][0]
    return result


if __name__ == "__main__":
    cli.run(main)
