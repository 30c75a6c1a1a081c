"""Recordings in folders, one after the other as plain PyTorch does it, and by the tagger.

    python -m benchmarks.folder --audio_path data/klettres --clips 1000 --figure folder.png

The plain loop reads a file with librosa, computes the plain front end (see benchmarks/speed.py) and the eager network, and takes
the likeliest classes; then comes the next file. Beside it `AudioTagger.tag_files` does the same with each backend. All have the
same weights, which are loaded before, and all cores. The files, drawn at random, are cut into groups on which all ways take turns,
so that other work on the machine meets all of them; figures are medians over the groups, after a first one that is repeated.
First each file is decoded once: what fails is told and left out, and so is what is so short or long that it is treated otherwise.
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
from helpers import cli
from helpers.tagger.audio_tagger import BACKENDS, AudioTagger
from helpers.tagger.results import Failure
from models.checkpoints import load_model
from models.errors import UserError
from models.network import MobileNetV3

SHORTEST, LONGEST = 0.1, 60.0  # seconds
TOP_K = 10
PLAIN = "plain loop"
Way = Callable[[Sequence[Path]], list[str]]  # recordings -> the likeliest class of each


@dataclass
class Took:
    """What was measured of one way."""

    seconds: list[float] = field(default_factory=list)  # of each group
    classes: list[str] = field(default_factory=list)  # of each recording, in the order of the groups


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--audio_path", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders with recordings in any depth"
    )
    parser.add_argument("--clips", type=cli.positive_int, default=1000, help="recordings to take, at most")
    parser.add_argument("--model_name", default="mn04_opensounds", help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--rounds", type=cli.positive_int, default=10, help="groups to cut them into")
    parser.add_argument("--threads", type=cli.positive_int, default=common.available_cores(), help="threads of the torch ways")
    parser.add_argument("--seed", type=int, default=0, help="seed of which recordings are taken")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if common.version("librosa") == "missing":
        raise UserError("the plain loop reads with librosa, which is missing: pip install librosa")
    print(common.machine("torch", "onnxruntime", "librosa", "soundfile", "soxr"))
    seconds = choose(args.audio_path, args.clips, args.seed)
    groups = cut(list(seconds), args.rounds)
    lengths = [sum(seconds[path] for path in group) for group in groups]
    hours, middle = sum(lengths) / 3600, median(seconds.values())
    title = f"{len(seconds)} recordings, {hours:.2f} hours, of {middle:.1f} s (median), with {args.model_name}"
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        took = measure_in_turns(ways(args.model_name), groups)
    finally:
        torch.set_num_threads(threads)
    print_table(title, took, [len(group) for group in groups], lengths)
    if args.figure:
        speeds = {way: each_over(lengths, one.seconds) for way, one in took.items()}
        ratios = {way: each_over(took[PLAIN].seconds, one.seconds) for way, one in took.items()}
        common.draw_bars({"seconds of sound in a second": speeds, "times as fast as the plain loop": ratios}, title, args.figure)
    return 0


def choose(folders: Sequence[Path], count: int, seed: int) -> dict[Path, float]:
    """Return up to `count` usable recordings, drawn from all in the folders, in random order, with their seconds."""
    found = sorted({path for folder in folders for path in audio.find(folder)})
    random.Random(seed).shuffle(found)
    seconds: dict[Path, float] = {}
    for path in found:
        if len(seconds) == count:
            break
        try:
            waveform, rate = audio.decode(path)
        except (ValueError, OSError) as error:
            print(f"left out: {error}")
            continue
        if SHORTEST <= len(waveform) / rate <= LONGEST:
            seconds[path] = len(waveform) / rate
        else:
            print(f"left out: {path} takes {len(waveform) / rate:g} s, not {SHORTEST:g} to {LONGEST:g}")
    if not seconds:
        raise UserError(f"no usable recordings in {', '.join(map(str, folders))}")
    return seconds


def cut(paths: Sequence[Path], rounds: int) -> list[Sequence[Path]]:
    """Cut into `rounds` groups, or as many as there are paths, that differ by one path at most."""
    rounds = min(rounds, len(paths))
    edges = [number * len(paths) // rounds for number in range(rounds + 1)]
    return [paths[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def ways(model_name: str) -> dict[str, Way]:
    """What is compared, the plain loop first."""
    taggers = {backend: AudioTagger(model_name, "cpu", backend, min_seconds=0.0, whole=True) for backend in BACKENDS}
    plain = partial(tag_plainly, load_model(model_name).eval(), taggers["torch"].labels)
    return {PLAIN: plain, **{f"tag_files, {backend}": partial(tag_files, tagger) for backend, tagger in taggers.items()}}


def tag_plainly(network: MobileNetV3, labels: Sequence[str], paths: Sequence[Path]) -> list[str]:
    classes = []
    for path in paths:
        waveform = torch.from_numpy(read_plainly(path, network.mel.sample_rate))[None]
        with torch.no_grad():
            logits, _ = network(plain_log_mel(network.mel, waveform)[:, None])
        scores, likeliest = torch.sigmoid(logits[0]).topk(min(TOP_K, len(labels)))
        tags = [(labels[k], score) for k, score in zip(likeliest.tolist(), scores.tolist(), strict=True)]
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


def measure_in_turns(ways: Mapping[str, Way], groups: Sequence[Sequence[Path]]) -> dict[str, Took]:
    """Let each way work on each group, the first one twice: once to warm up."""
    took = {way: Took() for way in ways}
    for number, way in common.in_turns(list(ways), len(groups)):
        start = time.perf_counter()
        classes = ways[way](groups[max(0, number - 1)])
        if number:
            took[way].seconds.append(time.perf_counter() - start)
            took[way].classes += classes
    return took


def each_over(amounts: Sequence[float], others: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(amounts, others, strict=True)]


def print_table(title: str, took: Mapping[str, Took], counts: Sequence[int], lengths: Sequence[float]) -> None:
    """`counts` are the recordings in each group, `lengths` their seconds of sound."""
    print(f"\n{title}\n{'':<20} {'files/s':>9} {'sound s/s':>10} {'times as fast':>14} {'same class':>12}")
    plain = took[PLAIN]
    for way, one in took.items():
        files, sound, ratio = (median(each_over(amounts, one.seconds)) for amounts in (counts, lengths, plain.seconds))
        same = sum(a == b for a, b in zip(plain.classes, one.classes, strict=True)) / sum(counts)
        print(f"{way:<20} {files:9.1f} {sound:10.0f} {ratio:14.2f} {same:12.1%}")


if __name__ == "__main__":
    cli.run(main)
