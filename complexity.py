"""Parameters and multiply-accumulate operations of a model, or of an ensemble, for a clip of 10 seconds.

    python complexity.py --model_name mn10_as
    python complexity.py --model_width 2.0 --head_type fully_convolutional --n_mels 64
    python complexity.py --ensemble mn40_as mn40_as_ext mn10_as_hop_15

Counts convolutions and linear layers, biases included, as the published table does; no weights are downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli
from helpers.macs import ComplexityReport, count_macs, describe, meta_network
from models.ensemble import EnsembleModel
from models.network import MobileNetV3
from models.waveform import WaveformModel


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--model_name", help="a released or bundled model, or the path of a checkpoint")
    names.add_argument("--ensemble", nargs="+", metavar="NAME", help="models, whose costs add up")
    cli.add_network_options(parser)
    cli.add_front_end_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.ensemble:
        name = f"ensemble of {', '.join(args.ensemble)}"
        model = EnsembleModel([WaveformModel(described_network(args, one)) for one in args.ensemble])
        print_members(args.ensemble, [count_macs(member) for member in model.members])
    else:
        network = described_network(args, args.model_name)
        name = args.model_name or describe(network.arch)
        model = WaveformModel(network)
    report = count_macs(model)

    print("Counted: convolutions and linear layers. Not counted, with the number of modules:")
    print(", ".join(f"{kind} ({number})" for kind, number in report.uncounted.items()))
    print(
        f"Model '{name}' has {report.params / 1e6:.2f} million parameters and inference of a single 10-seconds "
        f"audio clip requires {report.macs / 1e9:.2f} billion multiply-accumulate operations."
    )
    return 0


def described_network(args: argparse.Namespace, name: str | None) -> MobileNetV3:
    """Build the network of `name`, or of the options, without weights."""
    return meta_network(*cli.described_model(name, args))


def print_members(names: Sequence[str], reports: Sequence[ComplexityReport]) -> None:
    """Print a row for each member, and the sum of the rounded figures, which is how the published table adds up ensembles."""
    rows = [(name, round(report.params / 1e6, 2), round(report.macs / 1e9, 2)) for name, report in zip(names, reports, strict=True)]
    rows.append(("sum of these rounded figures", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, params, macs in rows:
        print(f"{name:<30} {params:8.2f} million parameters {macs:7.2f} billion multiply-accumulate operations")


if __name__ == "__main__":
    cli.run(main)
