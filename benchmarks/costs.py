"""Performance against cost: the released models next to others from the literature, and the time of ours on this CPU.

    python -m benchmarks.costs --figure costs.png

Draws the published mAP on AudioSet against parameters, multiply-accumulates (MACs), peak memory of activations at 16 bits each, and
the time for the spectrogram of a clip of 10 seconds: of plain eager PyTorch and of the exported network in ONNX Runtime. What our
models cost is analytic (helpers/costs/). The time is measured here with random weights, all models interleaved. Figures of other
models, with their sources, are in resources/published_models.tsv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from tqdm import tqdm

from benchmarks import common, speed
from benchmarks.speed import TimedVariant
from helpers import cli
from helpers.costs.macs import spectrogram_shape
from helpers.costs.released import model_costs, published_models
from helpers.costs.tables import table
from models.registry import PRETRAINED

VARIANTS = {"PyTorch": speed.eager, "ONNX Runtime": speed.onnx}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = [name for name, entry in PRETRAINED.items() if entry.reported_map is not None]
    parser.add_argument(
        "--model_name",
        nargs="+",
        choices=PRETRAINED,
        default=distinct(names),
        metavar="NAME",
        help="released models (those with an mAP)",
    )
    parser.add_argument("--threads", type=cli.positive_int, default=1, help="threads of PyTorch and of ONNX Runtime")
    parser.add_argument("--rounds", type=cli.positive_int, default=10, help="timed runs of each variant")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the weights")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the table into this file, next to other models")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.figure and (without := [name for name in args.model_name if PRETRAINED[name].reported_map is None]):
        parser.error(f"--figure draws published mAPs, and {without[0]} has none")
    print(common.machine("torch", "onnxruntime"), f"\n{args.threads} threads, batch 1, median of {args.rounds} interleaved runs")
    torch.manual_seed(args.seed)
    entries = {name: PRETRAINED[name] for name in args.model_name}
    costs = [
        replace(model_costs(name, entry.arch, entry.mel, entry.reported_map), published_psds1=entry.reported_psds1)
        for name, entry in entries.items()
    ]
    seconds = measure(args.model_name, args.threads, args.rounds)
    times = [{f"{variant}, ms": f"{1000 * seconds[row.name, variant]:.1f}" for variant in VARIANTS} for row in costs]
    print(table([row.rounded() | of_row for row, of_row in zip(costs, times, strict=True)]))
    if args.figure:
        from helpers.costs.figures import cost_figure

        cost_figure(costs, seconds, published_models(), args.figure)
        print(f"figure: {args.figure}")
    return 0


def distinct(names: Sequence[str]) -> list[str]:
    """Return the best of the models of equal cost, at the position of the first of them."""
    best: dict[tuple[object, object], str] = {}
    for name in names:
        entry = PRETRAINED[name]
        key = (entry.arch, entry.mel)
        if key not in best or entry.reported_map > PRETRAINED[best[key]].reported_map:
            best[key] = name
    return list(best.values())


def measure(names: Sequence[str], threads: int, rounds: int) -> dict[tuple[str, str], float]:
    """Return the median time in seconds of each model in each of `VARIANTS`."""
    torch.set_num_threads(threads)
    variants: list[TimedVariant] = []
    with torch.inference_mode():
        for name in tqdm(names, desc="building", unit="model", disable=None):
            network = PRETRAINED[name].arch.build(PRETRAINED[name].mel).eval()
            spectrogram = torch.randn(spectrogram_shape(network))
            runs = {variant: partial(build(network, threads), spectrogram) for variant, build in VARIANTS.items()}
            speed.check(runs)
            variants += [TimedVariant(name, variant, 0, run) for variant, run in runs.items()]
        times = speed.measure(variants, rounds)
    return {(timed.part, timed.name): median(seconds) for timed, seconds in times.items()}


if __name__ == "__main__":
    cli.run(main)
