"""Draw how well the blocks of a run with --feature_kd have learnt the teacher's features, epoch by epoch.

python -m helpers.distillation.block_figure runs/audioset blocks.png
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from helpers import cli
from models.errors import UserError
from models.files import write_atomically


def read_errors(run_folder: Path) -> dict[str, list[float]]:
    """Read metrics.csv of a run: the relative error of each block by epoch, in the order of the blocks."""
    path = run_folder / "metrics.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found; give the folder of a run, such as runs/audioset")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ()) if name.startswith("block_")}
    if not errors:
        raise UserError(f"{path} has no errors of blocks; train with --feature_kd")
    return errors


def block_figure(errors: dict[str, list[float]], path: Path) -> None:
    """Draw a line for each block into a file of any format matplotlib writes; the last block is the logits."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, values in enumerate(errors.values()):
        is_logits = number == len(errors) - 1
        colour = "black" if is_logits else colormaps["viridis"](number / len(errors))
        axes.plot(values, color=colour, marker=".", label="logits" if is_logits else f"block {number}")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("error / variance of the teacher's features")
    axes.locator_params("x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.distillation.block_figure", description=__doc__, formatter_class=cli.HelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("output", type=cli.figure_path, help="file to draw into: .png, .pdf or .svg")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    block_figure(read_errors(args.run), args.output)
    return 0


if __name__ == "__main__":
    cli.run(main)
