"""Timestamp embeddings: all windows in batches, against a loop over windows.

    python -m benchmarks.timestamps --width 0.4 1 --threads 2

The loop takes a window of 160 ms every 50 ms and sends one after the other through front end and network, both as they are.
`EmbeddingModel.timestamps` computes the same. Both have the same random weights and the same layers; their runs are interleaved.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import common
from helpers import cli
from models.embeddings import TIMESTAMP_HOP, TIMESTAMP_WINDOW, EmbeddingConfig, EmbeddingModel, forward_layers
from models.errors import UserError
from models.MobileNetV3 import MobileNetV3, get_model
from models.waveform import WaveformModel

TOLERANCE = 1e-4  # of the largest value of a layer


class OneByOne(WaveformModel):
    """The same embeddings, one window after the other."""

    def __init__(self, network: MobileNetV3, config: EmbeddingConfig) -> None:
        super().__init__(network)
        self.config = config
        self.columns = config.columns(network)

    @torch.no_grad()
    def timestamps(self, sound: Tensor) -> tuple[Tensor, None]:
        """(1, samples) -> (1, windows, embedding_size)."""
        length, hop = round(TIMESTAMP_WINDOW * self.sample_rate), round(TIMESTAMP_HOP * self.sample_rate)
        padded = functional.pad(sound, (length // 2, length - length // 2))
        rows = []
        for window in padded.unfold(1, length, hop).unbind(1):
            layers = forward_layers(self.network, self.front_end(window)[:, None], list(self.columns), self.config.pooling)
            rows.append(torch.cat(list(layers.values()), dim=1))
        return torch.stack(rows, dim=1), None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--width", type=cli.positive_float, nargs="+", default=[0.4, 1.0], help="width multipliers")
    parser.add_argument("--layers", default=str(EmbeddingConfig()), help="what the embedding consists of")
    parser.add_argument("--seconds", type=cli.positive_float, default=5.0, help="length of the sound")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="timed runs of each variant")
    parser.add_argument("--threads", type=cli.positive_int, default=common.available_cores(), help="threads")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    print(common.machine("torch"))
    rows = []
    for width in args.width:
        models = {}
        for name, module in (("loop", OneByOne), ("together", EmbeddingModel)):
            torch.manual_seed(0)
            models[name] = module(get_model(width_mult=width), EmbeddingConfig(args.layers)).eval()
        sound = 0.1 * torch.randn(1, round(args.seconds * models["loop"].sample_rate))
        results = {name: model.timestamps(sound)[0] for name, model in models.items()}
        difference = max(
            float((one - other).abs().max() / one.abs().max())
            for one, other in (
                (results["loop"][..., columns], results["together"][..., columns]) for columns in models["loop"].columns.values()
            )
        )
        if not difference <= TOLERANCE:
            raise UserError(f"the two variants differ by {difference:g} of a layer's largest value")
        times = common.measure_interleaved({name: partial(model.timestamps, sound) for name, model in models.items()}, args.rounds)
        windows = results["loop"].shape[1]
        loop, together = (f"{1e3 * median(seconds) / windows:.2f}" for seconds in times.values())
        ratio = median(common.ratios(times["loop"], times["together"]))
        rows.append((width, windows, loop, together, f"{ratio:.1f}", f"{difference:.1e}"))
    header = ("width", "windows", "loop, ms", "together, ms", "times as fast", "difference")
    common.print_table("milliseconds per window", header, rows)
    return 0


if __name__ == "__main__":
    cli.run(main)
