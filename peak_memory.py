"""Peak memory of the activations of a model during inference of a clip of 10 seconds, in kB = 1000 bytes.

    python peak_memory.py --model_name mn10_as
    python peak_memory.py --model_name mn10_as --memory_efficient_inference --bits_per_elem 8
    python peak_memory.py --model_width 0.5 --n_mels 64 --plot memory.png
    python peak_memory.py --model_width 2 --measure

helpers/costs/activation_memory.py has the convention; no weights are downloaded. `--measure` also runs the network with random
weights, plain and memory-efficient (models/memory_efficient.py), in float32 and float16. It reports the measured peak memory (see
helpers/costs/measured_memory.py), the error of the outputs, and the times.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence

import torch
from torch.optim.swa_utils import update_bn

from helpers import cli, network_options
from helpers.costs.activation_memory import MemoryReport, peak_memory
from helpers.costs.macs import describe, meta_network, spectrogram_shape
from helpers.costs.measured_memory import DTYPES, compare_outputs, inference_seconds, measure_memory
from helpers.costs.tables import table
from models.base import TaggingNetwork
from models.config import Architecture, MelConfig
from models.memory_efficient import check_family, memory_efficient
from models.network import MobileNetV3

PLAIN, EFFICIENT = "plain", "memory-efficient"  # variants of inference


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", help="a released or bundled model, or the path of a checkpoint")
    parser.add_argument(
        "--memory_efficient_inference",
        action="store_true",
        help="blocks computed in channel chunks, stem and first block fused",
    )
    parser.add_argument(
        "--two_passes",
        action="store_true",
        help="memory-efficient, chunks in front of squeeze-and-excitation computed twice and never held together",
    )
    parser.add_argument("--bits_per_elem", type=int, choices=(8, 16, 32), default=16, help="bits per activation")
    parser.add_argument("--measure", action="store_true", help="also run both variants and compare")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="interleaved runs that --measure times")
    parser.add_argument("--plot", type=cli.figure_path, help="draw bars by block, both variants, into this file")
    network_options.add_architecture_options(parser)
    network_options.add_front_end_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    arch, mel = network_options.described_model(args.model_name, args)
    network = meta_network(arch, mel)
    name = args.model_name or describe(arch)
    variant = EFFICIENT if args.memory_efficient_inference or args.two_passes else PLAIN
    variants = {PLAIN: {}, EFFICIENT: {"memory_efficient": True, "two_passes": args.two_passes}}
    if variant == EFFICIENT:
        check_family(network)
    elif not isinstance(network, MobileNetV3):
        del variants[EFFICIENT]

    analytic = {variant: peak_memory(network, bits_per_elem=args.bits_per_elem, **options) for variant, options in variants.items()}
    measured = measure(random_network(arch, mel), variants, args.rounds) if args.measure else {}
    measured = {variant: report for (variant, bits), report in measured.items() if bits == args.bits_per_elem}
    if args.plot:
        from helpers.costs.figures import memory_figure

        memory_figure(analytic, measured, f"'{name}', a clip of 10 seconds, {args.bits_per_elem} bits per activation", args.plot)
        print(f"figure: {args.plot}")
    report = analytic[variant]
    print(table(block_rows(report, measured.get(variant))))
    tensors = ", ".join(f"{tensor} {report.kilobytes(size):.2f} kB" for tensor, size in report.peak.tensors.items())
    print(f"The peak is at {report.peak.name}: {tensors}.")
    mode = " (memory efficient)" if report.memory_efficient else ""
    print(f"Model '{name}' inference{mode} of a single 10-seconds audio clip has a peak memory of {report.peak_kb:.2f} kB.")
    return 0


def block_rows(analytic: MemoryReport, measured: MemoryReport | None) -> list[dict[str, object]]:
    """Return a row for each block, with the layer at which it needs most and, where there is one, the measured size."""
    rows = []
    for block, row in analytic.blocks.items():
        size = {"measured": f"{measured.kilobytes(measured.blocks[block].elements):.2f}"} if measured else {}
        tensors = ", ".join(f"{tensor} {analytic.kilobytes(size):.2f}" for tensor, size in row.tensors.items())
        at = row.name.removeprefix(block).lstrip(". ")
        rows.append({"block": block, "kB": f"{analytic.kilobytes(row.elements):.2f}", **size, "at": at, "tensors": tensors})
    return rows


def random_network(arch: Architecture, mel: MelConfig) -> TaggingNetwork:
    """Return a network with random weights whose norms keep activations at the scale of trained ones, in the range of float16."""
    network = arch.build(mel)
    update_bn([noises(network, 4)], network)
    return network.eval()


def noises(network: TaggingNetwork, count: int) -> torch.Tensor:
    """Return spectrograms for `network` of stationary noises, each with a spectrum of its own, (count, 1, n_mels, frames)."""
    _, _, n_mels, frames = spectrogram_shape(network)
    return torch.randn(count, 1, n_mels, 1) + torch.randn(count, 1, n_mels, frames)


def measure(network: TaggingNetwork, variants: dict[str, dict[str, bool]], rounds: int) -> dict[tuple[str, int], MemoryReport]:
    """Run `network` in each variant in float32 and float16, print a table, and return the measured memory by variant and bits."""
    executions, analytic, measured = {}, {}, {}
    for bits, dtype in DTYPES.items():
        for variant, options in variants.items():
            key = (variant, bits)
            executions[key] = memory_efficient(network, two_passes=options["two_passes"]) if options else copy.deepcopy(network)
            executions[key].to(dtype)
            analytic[key] = peak_memory(network, bits_per_elem=bits, **options)
            measured[key] = measure_memory(network, bits_per_elem=bits, **options)
    x, exact = noises(network, 1), copy.deepcopy(network).double()
    seconds = inference_seconds(executions, x, rounds)
    rows = [
        {
            "inference": variant,
            "bits": bits,
            "analytic kB": f"{analytic[variant, bits].peak_kb:.2f}",
            "measured kB": f"{measured[variant, bits].peak_kb:.2f}",
            "measured/analytic": f"{measured[variant, bits].peak_kb / analytic[variant, bits].peak_kb:.3f}",
            "measured/plain": f"{measured[variant, bits].peak_kb / measured[PLAIN, bits].peak_kb:.3f}",
            "ms": f"{1000 * seconds[variant, bits]:.1f}",
            "time/plain": f"{seconds[variant, bits] / seconds[PLAIN, bits]:.2f}",
            "difference": f"{compare_outputs(exact, execution, x):.1e}",
        }
        for (variant, bits), execution in executions.items()
    ]
    print(table(rows))
    print("difference: the largest of an output from plain inference in float64, in standard deviations of the outputs")
    print(f"ms: median of {rounds} interleaved runs, {torch.get_num_threads()} threads\n")
    return measured


if __name__ == "__main__":
    cli.run(main)
