"""Speed of the network and of the front end on the CPU, beside plain PyTorch and beside what the processor can do at most.

    python -m benchmarks.speed --figure speed.png

Clips of 10 s. The network's reference is the eager network, the front end's is the plain way: `torch.stft`, power, and a dense
product with a filterbank that each call builds anew. All ways and the matrix product that stands for the processor's limit take
turns in one process, so that other work on the machine meets all of them; times and ratios are medians over the turns. The share
of the limit is arithmetic for arithmetic: for the network the multiply-accumulates of its convolutions and linear layers, 2
operations each; for the front end what a fast Fourier transform and a product with the bank's weights above 0 need. Each way's
results are compared with the reference's first.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log2
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from helpers import cli
from helpers.macs import CLIP_SECONDS, clip_frames, count_macs
from models.blocks import ConvNormActivation
from models.config import MelConfig
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS, AugmentMelSTFT, mel_filterbank

MATRIX = 1536  # rows and columns
LIMIT = "matrix product"
TOLERANCE = 1e-3  # of the reference's largest value
Network = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Work:
    """One way of computing something: `part` is what, `way` is how, `operations` is the arithmetic of a call."""

    part: str
    batch: int
    way: str
    operations: float
    run: Callable[[], object]


@dataclass(frozen=True)
class Row:
    """What was measured of a way: median time, how many times as fast as the reference, and share of the processor's limit."""

    part: str
    batch: int
    way: str
    seconds: float
    times_as_fast: float
    share: float


def eager(network: MobileNetV3, example: Tensor) -> Network:
    return network


def channels_last(network: MobileNetV3, example: Tensor) -> Network:
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return lambda x: network(x.to(memory_format=torch.channels_last))


def folded(network: MobileNetV3, example: Tensor) -> MobileNetV3:
    """Batch norms folded into the convolutions before them."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, ConvNormActivation):
            layer[0], layer[1] = fuse_conv_bn_eval(layer[0], layer[1]), nn.Identity()
    return network


def folded_channels_last(network: MobileNetV3, example: Tensor) -> Network:
    return channels_last(folded(network, example), example)


def torchscript(network: MobileNetV3, example: Tensor) -> Network:
    """Traced, frozen, and with oneDNN's layouts and fused activations."""
    script = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, example)))
    script(example)
    script(example)  # the profiling executor is done after two calls
    return script


def compiled(network: MobileNetV3, example: Tensor) -> Network:
    """By inductor, with frozen weights; takes a minute for each batch size and a C++ compiler."""
    torch._dynamo.reset()
    return torch.compile(copy.deepcopy(network), options={"freezing": True})


WAYS: dict[str, Callable[[MobileNetV3, Tensor], Network]] = {
    "eager": eager,
    "channels_last": channels_last,
    "folded": folded,
    "folded_channels_last": folded_channels_last,
    "torchscript": torchscript,
    "compiled": compiled,
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--widths", type=cli.positive_float, nargs="+", default=[0.4, 1.0], help="width multipliers of the networks"
    )
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 8], help="clips in a batch")
    parser.add_argument("--threads", type=cli.positive_int, nargs="+", default=sorted({1, available_cores()}), help="threads")
    parser.add_argument(
        "--ways", choices=list(WAYS)[1:], nargs="*", default=["folded", "folded_channels_last"], help="ways of running the network"
    )
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="turns to take")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the sound")
    parser.add_argument("--figure", type=Path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    before = torch.get_num_threads()
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {available_cores()} cores, torch {torch.__version__}")
    results = {}
    try:
        for threads in args.threads:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                times = measure_in_turns(works(args.widths, args.batch_sizes, args.ways, args.seed), args.rounds)
            limit = 2 * MATRIX**3 / median(next(seconds for work, seconds in times.items() if work.part == LIMIT))
            results[title(threads, limit)] = rows = evaluate(times, limit)
            print_table(title(threads, limit), rows)
    finally:
        torch.set_num_threads(before)
    if args.figure:
        draw(results, args.figure)
    return 0


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def title(threads: int, limit: float) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}, matrix product {limit / 1e9:.0f} GFLOP/s"


def works(widths: Sequence[float], batch_sizes: Sequence[int], ways: Sequence[str], seed: int) -> list[Work]:
    """What takes turns: in each part and batch size the reference comes first."""
    torch.manual_seed(seed)
    matrix = torch.randn(MATRIX, MATRIX)
    result = [Work(LIMIT, 1, "", 2 * MATRIX**3, partial(torch.mm, matrix, matrix))]
    mel = MelConfig()
    front_end = AugmentMelSTFT.from_config(mel).eval()
    for batch in batch_sizes:
        waveform = 0.1 * torch.randn(batch, CLIP_SECONDS * mel.sample_rate)
        runs = {"plain": partial(plain_log_mel, mel, waveform), "AugmentMelSTFT": partial(front_end, waveform)}
        check(runs)
        result += [Work("front end", batch, way, batch * front_end_operations(mel), run) for way, run in runs.items()]
    for width in widths:
        network = get_model(width_mult=width).eval()
        operations = 2 * count_macs(network).macs
        for batch in batch_sizes:
            spectrogram = torch.randn(batch, 1, mel.n_mels, clip_frames(mel))
            runs = {way: partial(WAYS[way](network, spectrogram), spectrogram) for way in ["eager", *ways]}
            check(runs)
            result += [Work(f"mn{round(10 * width):02d}", batch, way, batch * operations, run) for way, run in runs.items()]
    return result


def plain_log_mel(config: MelConfig, waveform: Tensor) -> Tensor:
    """(B, samples) -> (B, n_mels, frames), as the reference does it."""
    window = torch.hann_window(config.win_length, periodic=False)
    waveform = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
    spectrum = torch.stft(
        waveform, config.n_fft, config.hop_size, config.win_length, window, pad_mode="reflect", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    bank = mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
    return (torch.log(bank @ power + LOG_OFFSET) + 4.5) / 5


def front_end_operations(config: MelConfig) -> float:
    """Additions and multiplications for one clip; 2.5 n log2 n is the usual count of a Fourier transform of n real numbers."""
    bank = mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
    transform = config.win_length + 2.5 * config.n_fft * log2(config.n_fft)
    bands = 3 * (config.n_fft // 2 + 1) + 2 * int(bank.count_nonzero()) + 4 * config.n_mels
    return 2 * CLIP_SECONDS * config.sample_rate + clip_frames(config) * (transform + bands)


def check(runs: Mapping[str, Callable[[], object]]) -> None:
    """Raise `ValueError` where a way's results are not the first's."""
    (_, reference), *others = ((way, run()) for way, run in runs.items())
    for way, result in others:
        for one, other in zip(*((x,) if isinstance(x, Tensor) else x for x in (result, reference)), strict=True):
            if not (one - other).abs().max() <= TOLERANCE * other.abs().max():
                raise ValueError(f"{way} computes something else: {(one - other).abs().max():g} of {other.abs().max():g}")


def measure_in_turns(works: Sequence[Work], rounds: int) -> dict[Work, list[float]]:
    """Time each of `works`, in seconds, once a round, after a round that does not count.

    Each round has an order of its own: what ran before decides what is in the cache, and how much memory is mapped.
    """
    times: dict[Work, list[float]] = {work: [] for work in works}
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 1):
        order = list(works)
        shuffle(order)
        for work in order:
            start = time.perf_counter()
            work.run()
            if number:
                times[work].append(time.perf_counter() - start)
    return times


def evaluate(times: Mapping[Work, Sequence[float]], limit: float) -> list[Row]:
    """Compare each way with the first of its part and batch size; `limit` is in operations a second."""
    rows = []
    reference: dict[tuple[str, int], Sequence[float]] = {}
    for work, seconds in times.items():
        if work.part == LIMIT:
            continue
        plain = reference.setdefault((work.part, work.batch), seconds)
        ratio = median(a / b for a, b in zip(plain, seconds, strict=True))
        rows.append(Row(work.part, work.batch, work.way, median(seconds), ratio, work.operations / median(seconds) / limit))
    return rows


def print_table(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n{'part':<10} {'batch':>5}  {'way':<20} {'ms':>8} {'times as fast':>14} {'share of the limit':>19}")
    for row in rows:
        name = f"{row.part:<10} {row.batch:>5}  {row.way:<20}"
        print(f"{name} {1e3 * row.seconds:8.2f} {row.times_as_fast:14.2f} {row.share:19.1%}")


def draw(results: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw a panel for each number of threads: bars as long as a way is times as fast as its reference."""
    from matplotlib.figure import Figure

    height = 0.8 + 0.26 * max(len(rows) for rows in results.values())
    figure = Figure(figsize=(6 * len(results), height), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        groups = sorted({(row.part, row.batch) for row in rows}, key=[(row.part, row.batch) for row in rows].index)
        for place, row in enumerate(rows):
            colour = f"C{groups.index((row.part, row.batch)) % 10}"
            axes.barh(place, row.times_as_fast, color=colour, alpha=0.4 if row.way in ("plain", "eager") else 0.9)
            note = f" {1e3 * row.seconds:.3g} ms, {row.share:.0%} of the limit"
            axes.text(row.times_as_fast, place, note, va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [f"{row.part}, batch {row.batch}, {row.way}" for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.5 * max(row.times_as_fast for row in rows))
        axes.set_xlabel("times as fast as plain PyTorch")
        axes.set_title(name, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    print(f"\nfigure: {path}")


if __name__ == "__main__":
    cli.run(main)
