"""Peak memory of the activations of a model during inference of a clip of 10 seconds, in kB = 1000 bytes.

    python peak_memory.py --model_name mn10_as
    python peak_memory.py --model_name mn10_as --memory_efficient_inference --bits_per_elem 8
    python peak_memory.py --model_width 0.5 --n_mels 64

The convention is told in helpers/activation_memory.py; no weights are downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli
from helpers.activation_memory import peak_memory
from helpers.macs import describe, meta_network


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", help="a released or bundled model, or the path of a checkpoint")
    parser.add_argument(
        "--memory_efficient_inference",
        action="store_true",
        help="blocks worked through in slices of channels, stem and first block fused",
    )
    parser.add_argument("--bits_per_elem", type=int, choices=(8, 16, 32), default=16, help="bits an activation")
    cli.add_network_options(parser)
    cli.add_front_end_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    arch, mel = cli.described_model(args.model_name, args)
    report = peak_memory(
        meta_network(arch, mel), bits_per_elem=args.bits_per_elem, memory_efficient=args.memory_efficient_inference
    )

    tensors = ", ".join(f"{tensor} {report.kilobytes(size):.2f} kB" for tensor, size in report.peak.tensors.items())
    print(f"The peak is at {report.peak.name}: {tensors}.")
    name, peak = args.model_name or describe(arch), f"{report.peak_kb:.2f} kB"
    mode = " (memory efficient)" if report.memory_efficient else ""
    print(f"Model '{name}' inference{mode} of a single 10-seconds audio clip has a peak memory of {peak}.")
    return 0


if __name__ == "__main__":
    cli.run(main)
