"""Parameters and multiply-accumulate operations of a model, or of an ensemble, for a clip of 10 seconds.

    python complexity.py --model_name mn10_as
    python complexity.py --model_name mn10_as --layers
    python complexity.py --model_width 2.0 --head_type fully_convolutional --strides 2 2 2 1 --n_mels 64
    python complexity.py --ensemble mn40_as mn40_as_ext mn10_as_hop_15
    python complexity.py --all --format markdown

Counts convolutions and linear layers, biases included, as the published table does; no weights are downloaded. `--all` prints the
table of all released models with embedding size, receptive field and peak memory of activations; CSV has its figures unrounded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli, network_options
from helpers.costs.macs import ComplexityReport, count_macs, describe, meta_network
from helpers.costs.released import released_costs, sum_of_rounded
from helpers.costs.tables import FORMATS, table
from models.base import TaggingNetwork
from models.config import Arch
from models.ensemble import EnsembleModel
from models.registry import ENSEMBLE
from models.waveform import WaveformModel


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--model_name", help="a released or bundled model, or the path of a checkpoint")
    names.add_argument("--ensemble", nargs="+", metavar="NAME", help="models, whose costs add up")
    names.add_argument("--all", action="store_true", help="print a table of all released models")
    parser.add_argument("--layers", action="store_true", help="also print a table of the counted layers")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the table that --all or --layers prints")
    network_options.add_architecture_options(parser)
    network_options.add_front_end_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.all:
        others = {name: value for name, value in vars(args).items() if name not in ("all", "format")}
        if any(value not in (None, False) for value in others.values()):
            parser.error("--all takes no other option than --format: it prints a row for each released model")
        print_all(args.format)
        return 0
    if args.ensemble:
        name = f"ensemble of {', '.join(args.ensemble)}"
        model = EnsembleModel([WaveformModel(described_network(args, one)) for one in args.ensemble])
    else:
        network = described_network(args, args.model_name)
        name = args.model_name or describe(network.arch)
        model = WaveformModel(network)
    report = count_macs(model)

    if args.layers:
        print(table(layer_rows(report), args.format))
        if args.format == "csv":
            return 0
        print()
    if args.ensemble:
        print_members(args.ensemble, [count_macs(member) for member in model.members])
    print_uncounted(report)
    print(
        f"Model '{name}' has {report.params / 1e6:.2f} million parameters and inference of a single 10-seconds "
        f"audio clip requires {report.macs / 1e9:.2f} billion multiply-accumulate operations."
    )
    if report.mixing_macs:
        print(
            f"Mixing the kernels of its dynamic convolutions takes {report.mixing_macs / 1e6:.2f} million more. With the running "
            f"statistics of its norms, which published figures of dynamic networks count, it has "
            f"{(report.params + report.norm_statistics) / 1e6:.2f} million parameters."
        )
    return 0


def described_network(args: argparse.Namespace, name: str | None) -> TaggingNetwork:
    """Build the network of `name`, or of the options, without weights."""
    return meta_network(*network_options.described_model(name, args))


def layer_rows(report: ComplexityReport) -> list[dict[str, object]]:
    return [
        {
            "layer": layer.name,
            "type": layer.type,
            "input": " x ".join(map(str, layer.input_shape)),
            "output": " x ".join(map(str, layer.output_shape)),
            "params": layer.params,
            "MACs": layer.macs,
            "share": f"{layer.macs / report.macs:.2%}",
        }
        | ({"kernel mixing MACs": layer.mixing_macs} if report.mixing_macs else {})
        for layer in report.layers
    ]


def print_all(style: str) -> None:
    """Print a row for each released model, and the published ensemble: exactly, and as the sum of its members' rounded figures."""
    costs, ensemble = released_costs()
    if style == "csv":
        print(table([row.exact() for row in (*costs, ensemble)], style))
        return
    rows = [row.rounded() for row in (*costs, ensemble)]
    published = sum_of_rounded([row for row in costs if row.name in ENSEMBLE])
    rows.append({**rows[-1], "name": "as published", **published})
    print(table(rows, style))
    print(f"\nThe ensemble: {', '.join(ENSEMBLE)}.")
    print("As published: parameters and MACs as the sums of its members' rounded figures.")
    print("For a clip of 10 seconds. Peak memory is that of the activations, 16 bits each; an ensemble runs one member at a time.")
    print_uncounted(count_macs(WaveformModel(meta_network(Arch()))))


def print_uncounted(report: ComplexityReport) -> None:
    print("Counted: convolutions, linear and recurrent layers. Not counted, with the number of modules:")
    print(", ".join(f"{kind} ({number})" for kind, number in report.uncounted.items()))


def print_members(names: Sequence[str], reports: Sequence[ComplexityReport]) -> None:
    """Print a row for each member, and the sum of the rounded figures, which is how the published table adds up ensembles."""
    rows = [(name, round(report.params / 1e6, 2), round(report.macs / 1e9, 2)) for name, report in zip(names, reports, strict=True)]
    rows.append(("sum of these rounded figures", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, params, macs in rows:
        print(f"{name:<30} {params:8.2f} million parameters {macs:7.2f} billion multiply-accumulate operations")


if __name__ == "__main__":
    cli.run(main)
