"""Speed of the network and of the front end on the CPU, next to plain PyTorch and to the processor's limit.

    python -m benchmarks.speed --figure speed.png

The network's reference is the eager network. The front end's is plain: `torch.stft`, power, and a dense product with a filterbank
that each call builds again. For each part, number of threads and batch size, a separate process interleaves the runs of all
variants and of a matrix product that stands for the processor's limit, so that other work on the machine slows down all of them.
Times and ratios are medians over the rounds. As in use, each run of the front end follows one of an eager network of the first
width, which leaves other things in the caches and has given memory back. The share of the limit is arithmetic for arithmetic: for
the network the multiply-accumulates of its convolutions and linear layers, 2 operations each; for the front end what a fast
Fourier transform and a product with the bank's weights above 0 need. Results of all variants are compared with the reference's.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import log2
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks import common
from helpers import cli
from helpers.costs.macs import count_macs
from helpers.devices import available_cores
from helpers.export.graph import to_onnx
from helpers.export.runtime import ParallelGraph, new_session
from models.blocks import ConvNormActivation
from models.config import MelConfig
from models.errors import UserError
from models.MobileNetV3 import get_model
from models.network import MobileNetV3
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS, AugmentMelSTFT, mel_filterbank

MATRIX = 1536  # rows and columns
LIMIT = "matrix product"
PAUSE = 0.02  # seconds after which idle threads have gone to sleep
TOLERANCE = 1e-3  # of the reference's largest value
Scores = Callable[[Tensor], tuple[Tensor, Tensor]]  # spectrograms (B, 1, n_mels, frames) -> scores (B, K), embeddings (B, C)


def keep_busy() -> None:
    """Keep one core busy for `PAUSE`, as decoding does before a network runs, while other threads go to sleep."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        pass


@dataclass(frozen=True)
class TimedVariant:
    """One variant of a part of the computation; `operations` is the arithmetic of a call."""

    part: str
    name: str
    operations: float
    run: Callable[[], tuple[Tensor, ...] | Tensor]
    before: Callable[[], object] = keep_busy


@dataclass(frozen=True)
class Row:
    """What was measured of a variant: median time, how many times as fast as the reference, and share of the processor's limit."""

    part: str
    variant: str
    seconds: float
    times_as_fast: float
    share: float


def eager(network: MobileNetV3, threads: int) -> Scores:
    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        logits, embedding = network(x)
        return logits.sigmoid(), embedding

    return run


def folded(network: MobileNetV3, threads: int) -> Scores:
    """In PyTorch, with batch norms folded into the convolutions before them and channels last in memory."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, ConvNormActivation):
            layer[0], layer[1] = fuse_conv_bn_eval(layer[0], layer[1]), nn.Identity()
    run = eager(network.to(memory_format=torch.channels_last), threads)
    return lambda x: run(x.to(memory_format=torch.channels_last))


def onnx_batched(network: MobileNetV3, threads: int) -> Scores:
    """In ONNX Runtime, all threads on each layer of the whole batch."""
    session = new_session(_graph(network), threads)
    return lambda x: _tensors(session.run(["scores", "embedding"], {"spectrogram": x.numpy()}))


def onnx(network: MobileNetV3, threads: int) -> Scores:
    """In ONNX Runtime as `OnnxBackend` runs it: clip by clip, each on a thread of its own where there are several."""
    graph = ParallelGraph(_graph(network), threads)
    return lambda x: _tensors(map(np.stack, zip(*graph(x.numpy()), strict=True)))


def _graph(network: MobileNetV3) -> bytes:
    return to_onnx(network, "network", network_only=True).SerializeToString()


def _tensors(arrays: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    scores, embedding = map(torch.from_numpy, arrays)
    return scores, embedding


VARIANTS: dict[str, Callable[[MobileNetV3, int], Scores]] = {
    "eager": eager, "folded": folded, "onnx_batched": onnx_batched, "onnx": onnx,
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument(
        "--widths", type=cli.positive_float, nargs="+", default=[1.0, 0.4], help="width multipliers of the networks"
    )
    parser.add_argument("--batch_sizes", type=cli.positive_int, nargs="+", default=[1, 8], help="clips in a batch")
    parser.add_argument("--threads", type=cli.positive_int, nargs="+", default=sorted({1, available_cores()}), help="threads")
    parser.add_argument("--clip_seconds", type=cli.positive_float, default=10.0, help="length of the clips")
    parser.add_argument("--rounds", type=cli.positive_int, default=20, help="timed runs of each variant")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the weights and the sound")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(f"{common.machine('torch', 'onnxruntime')}, {torch.backends.cpu.get_cpu_capability()}")
    results = {}
    for threads, batch in product(args.threads, args.batch_sizes):
        rows, limits = [], []
        for variants in [partial(front_ends, args.widths[0]), *(partial(networks, width) for width in args.widths)]:
            # a fresh process each, so that mapped memory and threads of earlier runs have no effect
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                task = process.submit(measure_part, variants, threads, batch, args.clip_seconds, args.rounds, args.seed)
                more, limit = task.result()
            rows += more
            limits.append(limit)
        limit = median(limits)
        title = f"{threads} thread{'s' if threads > 1 else ''}, batch {batch}, matrix product {limit / 1e9:.0f} GFLOP/s"
        results[title] = rows
        print_table(title, rows)
    if args.figure:
        draw(results, args.figure)
    return 0


def measure_part(
    variants: Callable[[int, Tensor], list[TimedVariant]], threads: int, batch: int, clip_seconds: float, rounds: int, seed: int
) -> tuple[list[Row], float]:
    """Return what was measured of `variants(threads, waveforms)`, and the limit in operations per second."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    matrix = torch.randn(MATRIX, MATRIX)
    product = TimedVariant(LIMIT, "", 2 * MATRIX**3, partial(torch.mm, matrix, matrix, out=torch.empty_like(matrix)))
    with torch.inference_mode():
        waveforms = 0.1 * torch.randn(batch, round(clip_seconds * MelConfig().sample_rate))
        times = measure([product, *variants(threads, waveforms)], rounds)
    limit = product.operations / median(times[product])
    return evaluate(times, limit), limit


def front_ends(width: float, threads: int, waveforms: Tensor) -> list[TimedVariant]:
    """Variants of computing log-mel spectrograms, each after a run of an eager network of this width; the reference first."""
    mel = MelConfig()
    front_end = AugmentMelSTFT.from_config(mel).eval()
    runs = {"plain": partial(plain_log_mel, mel, waveforms), "AugmentMelSTFT": partial(front_end, waveforms)}
    check(runs)
    network = partial(get_model(width_mult=width).eval(), front_end(waveforms)[:, None])
    operations = len(waveforms) * front_end_operations(mel, waveforms.shape[1])
    return [TimedVariant("front end", name, operations, run, before=network) for name, run in runs.items()]


def networks(width: float, threads: int, waveforms: Tensor) -> list[TimedVariant]:
    """Variants of running a network of this width; the reference first."""
    network = get_model(width_mult=width).eval()
    spectrograms = AugmentMelSTFT.from_config(network.mel).eval()(waveforms)[:, None]
    runs = {name: partial(build(network, threads), spectrograms) for name, build in VARIANTS.items()}
    check(runs)
    operations = len(waveforms) * 2 * count_macs(network, spectrograms[:1].shape).macs
    return [TimedVariant(f"mn{round(10 * width):02d}", name, operations, run) for name, run in runs.items()]


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


def front_end_operations(config: MelConfig, samples: int) -> float:
    """Additions and multiplications for one clip; 2.5 n log2 n is the usual count of a Fourier transform of n real numbers."""
    bank = mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
    transform = config.win_length + 2.5 * config.n_fft * log2(config.n_fft)
    bands = 3 * (config.n_fft // 2 + 1) + 2 * int(bank.count_nonzero()) + 4 * config.n_mels
    return 2 * samples + config.frames(samples) * (transform + bands)


def check(runs: Mapping[str, Callable[[], tuple[Tensor, ...] | Tensor]]) -> None:
    """Raise `ValueError` where a variant's results are not the first's."""
    (_, reference), *others = ((name, run()) for name, run in runs.items())
    for name, result in others:
        for one, other in zip(*((x,) if isinstance(x, Tensor) else x for x in (result, reference)), strict=True):
            if not (one - other).abs().max() <= TOLERANCE * other.abs().max():
                raise UserError(f"{name} computes something else: {(one - other).abs().max():g} of {other.abs().max():g}")


def measure(variants: Sequence[TimedVariant], rounds: int) -> dict[TimedVariant, list[float]]:
    return common.measure_interleaved({variant: variant.run for variant in variants}, rounds, before=lambda one: one.before())


def evaluate(times: Mapping[TimedVariant, Sequence[float]], limit: float) -> list[Row]:
    """Compare each variant with the first of its part; `limit` is in operations per second."""
    rows = []
    reference: dict[str, Sequence[float]] = {}
    for variant, seconds in times.items():
        if variant.part != LIMIT:
            ratio = median(common.ratios(reference.setdefault(variant.part, seconds), seconds))
            share = variant.operations / median(seconds) / limit
            rows.append(Row(variant.part, variant.name, median(seconds), ratio, share))
    return rows


def print_table(title: str, rows: Sequence[Row]) -> None:
    cells = [(row.part, row.variant, f"{1e3 * row.seconds:.2f}", f"{row.times_as_fast:.2f}", f"{row.share:.1%}") for row in rows]
    common.print_table(title, ("part", "variant", "ms", "times as fast", "share of the limit"), cells)


def draw(results: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw a panel for each table, two in a row: bars as long as a variant is times as fast as its reference."""
    from matplotlib.figure import Figure

    columns = min(2, len(results))
    height = (1 + 0.24 * max(len(rows) for rows in results.values())) * -(-len(results) // columns)
    figure = Figure(figsize=(6 * columns, height), layout="constrained")
    panels = figure.subplots(-(-len(results) // columns), columns, squeeze=False).flat
    longest = max(row.times_as_fast for rows in results.values() for row in rows)
    for axes, (title, rows) in zip(panels, results.items(), strict=False):
        parts = list(dict.fromkeys(row.part for row in rows))
        for place, row in enumerate(rows):
            plain = row.variant in ("plain", "eager")
            axes.barh(place, row.times_as_fast, color="0.75" if plain else f"C{parts.index(row.part) % 10}")
            note = f" {1e3 * row.seconds:.3g} ms, {row.share:.0%} of the limit"
            axes.text(row.times_as_fast, place, note, va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [f"{row.part}, {row.variant}" for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.6 * longest)
        axes.set_xlabel("times as fast as plain PyTorch")
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    common.save_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
