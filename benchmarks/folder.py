"""Recordings in folders: a plain PyTorch loop, one file at a time, against the tagger.

    python -m benchmarks.folder --audio_path data/klettres --clips 1000 --figure folder.png

The plain loop reads a file with librosa, computes the plain front end (see benchmarks/speed.py) and the eager network, and takes
the top-k tags; then comes the next file. `AudioTagger.tag_files` does the same with each backend. All have the same weights, which
are loaded before, and all cores. The files, drawn at random, are cut into groups; on each the variants run one after the other, in
random order, so that other work on the machine slows down all of them. Figures are medians over the groups, after a first one that
is repeated. First each file is decoded once. Files that fail, and those too short or long, are reported and left out.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import common
from benchmarks.speed import plain_log_mel
from datasets import audio
from datasets.audio_folders import find_recordings
from helpers import cli
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.results import Failure
from models.checkpoints import load_model
from models.errors import UserError
from models.network import MobileNetV3

SHORTEST, LONGEST = 0.1, 60.0  # seconds
TOP_K = 10
PLAIN = "plain loop"
BACKENDS = ("torch", "onnx")
Variant = Callable[[Sequence[Path]], list[str]]  # recordings -> the top tag of each


@dataclass
class VariantResult:
    seconds: list[float] = field(default_factory=list)  # of each group
    classes: list[str] = field(default_factory=list)  # of each recording, in the order of the groups


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--audio_path", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders with recordings in any depth"
    )
    parser.add_argument("--clips", type=cli.positive_int, default=1000, help="maximum number of recordings")
    parser.add_argument("--model_name", default="mn04_distilled", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--rounds", type=cli.positive_int, default=10, help="number of groups that they are divided into")
    parser.add_argument("--threads", type=cli.positive_int, default=common.available_cores(), help="threads of the torch variants")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of recordings")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if common.version("librosa") == "missing":
        raise UserError("the plain loop reads with librosa, which is missing: pip install librosa")
    print(common.machine("torch", "onnxruntime", "librosa", "soundfile", "soxr"))
    seconds = choose(args.audio_path, args.clips, args.seed)
    groups = [list(group) for group in np.array_split(list(seconds), min(args.rounds, len(seconds)))]
    lengths = [sum(seconds[path] for path in group) for group in groups]
    hours, middle = sum(lengths) / 3600, median(seconds.values())
    title = f"{len(seconds)} recordings, {hours:.2f} hours, of {middle:.1f} s (median), with {args.model_name}"
    torch.set_num_threads(args.threads)
    results = measure(variants(args.model_name), groups)
    print_table(title, results, [len(group) for group in groups], lengths)
    if args.figure:
        speeds = {variant: common.ratios(lengths, result.seconds) for variant, result in results.items()}
        faster = {variant: common.ratios(results[PLAIN].seconds, result.seconds) for variant, result in results.items()}
        common.draw_bars({"seconds of sound in a second": speeds, "times as fast as the plain loop": faster}, title, args.figure)
    return 0


def choose(folders: Sequence[Path], count: int, seed: int) -> dict[Path, float]:
    """Return up to `count` usable recordings, drawn from all in the folders, in random order, with their seconds."""
    found = sorted(set(find_recordings(folders)))
    random.Random(seed).shuffle(found)
    seconds: dict[Path, float] = {}
    for path in found:
        if len(seconds) == count:
            break
        try:
            waveform, rate = audio.decode(path)
        except (UserError, OSError) as error:
            print(f"left out: {error}")
            continue
        if SHORTEST <= len(waveform) / rate <= LONGEST:
            seconds[path] = len(waveform) / rate
        else:
            print(f"left out: {path} takes {len(waveform) / rate:g} s, not {SHORTEST:g} to {LONGEST:g}")
    if not seconds:
        raise UserError(f"no usable recordings in {', '.join(map(str, folders))}")
    return seconds


def variants(model_name: str) -> dict[str, Variant]:
    """The variants, the plain loop first."""
    taggers = {backend: AudioTagger(model_name, "cpu", backend, min_seconds=0.0, whole=True) for backend in BACKENDS}
    plain = partial(tag_plainly, load_model(model_name).eval(), taggers["torch"].labels)
    return {PLAIN: plain, **{f"tag_files, {backend}": partial(tag_files, tagger) for backend, tagger in taggers.items()}}


def tag_plainly(network: MobileNetV3, labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    classes = []
    for path in paths:
        waveform = torch.from_numpy(read_plainly(path, network.mel.sample_rate))[None]
        with torch.no_grad():
            logits, _ = network(plain_log_mel(network.mel, waveform)[:, None])
        scores, classes_of_scores = torch.sigmoid(logits[0]).topk(min(TOP_K, len(labels)))
        tags = [(labels[k], score) for k, score in zip(classes_of_scores.tolist(), scores.tolist(), strict=True)]
        classes.append(tags[0][0])
    return classes


def read_plainly(path: Path, sample_rate: int) -> np.ndarray:
    import librosa

    return librosa.load(path, sr=sample_rate, mono=True)[0]


def tag_files(tagger: AudioTagger, paths: Sequence[Path]) -> list[str]:
    classes = []
    for result in tagger.tag_files(paths, top_k=TOP_K):
        if isinstance(result, Failure):
            raise result.error
        classes.append(result[0].label)
    return classes


def measure(variants: Mapping[str, Variant], groups: Sequence[Sequence[Path]]) -> dict[str, VariantResult]:
    """Run each variant on each group, on the first one twice: once to warm up."""
    results = {variant: VariantResult() for variant in variants}
    for number, variant in common.interleaved(list(variants), len(groups)):
        start = time.perf_counter()
        classes = variants[variant](groups[max(0, number - 1)])
        if number:
            results[variant].seconds.append(time.perf_counter() - start)
            results[variant].classes += classes
    return results


def print_table(title: str, results: Mapping[str, VariantResult], counts: Sequence[int], lengths: Sequence[float]) -> None:
    """`counts` are the recordings in each group, `lengths` their seconds of sound."""
    plain, rows = results[PLAIN], []
    for variant, result in results.items():
        files, sound, ratio = (median(common.ratios(amounts, result.seconds)) for amounts in (counts, lengths, plain.seconds))
        same = sum(a == b for a, b in zip(plain.classes, result.classes, strict=True)) / sum(counts)
        rows.append((variant, f"{files:.1f}", f"{sound:.0f}", f"{ratio:.2f}", f"{same:.1%}"))
    common.print_table(title, ("variant", "files/s", "sound s/s", "times as fast", "same class"), rows)


if __name__ == "__main__":
    cli.run(main)
