"""How much of a spectrogram a network sees: its analytic receptive field, and the effective one by gradients.

    python -m studies.receptive_field --model_name mn04_distilled
    python -m studies.receptive_field --model_width 0.4 --strides 2 2 1 1 --figure field.png

helpers/costs/receptive_field.py has terms and sources. The gradients are those of 10 s of each recording, repeated where it is
shorter. Weights of a released model are downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RECORDINGS
from datasets import audio
from datasets.audio_folders import find_recordings
from helpers import cli, network_options
from helpers.costs.macs import CLIP_SECONDS, describe, meta_network
from helpers.costs.receptive_field import SHARE, effective_receptive_field, receptive_field
from models import checkpoints
from models.errors import UserError
from models.preprocess import AugmentMelSTFT

STRIDES = ((2, 2, 2, 2), (2, 2, 2, 1), (2, 2, 1, 1))  # of the released models


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", help="a released or bundled model, or the path of a checkpoint (else random weights)")
    parser.add_argument("--recordings", type=Path, nargs="+", default=[RECORDINGS], help="recordings, or folders of them")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of random weights")
    parser.add_argument(
        "--figure",
        type=cli.figure_path,
        help="draw it into this file, next to networks with random weights for all released strides",
    )
    network_options.add_architecture_options(parser)
    network_options.add_front_end_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    arch, mel = network_options.described_model(args.model_name, args)
    report = receptive_field(meta_network(arch, mel))
    print(f"{'layer':<24} {'frames':>7} {'step':>5} {'bands':>6} {'step':>5}")
    for row in report.rows:
        print(f"{row.name:<24} {row.size[1]:7} {row.step[1]:5} {row.size[0]:6} {row.step[0]:5}")

    torch.manual_seed(args.seed)
    name = args.model_name or f"{describe(arch)}, random weights"
    network = checkpoints.load_model(args.model_name) if args.model_name else arch.build(mel).eval()
    paths = find_recordings(args.recordings)
    if not paths:
        raise UserError(f"no recordings in {', '.join(map(str, args.recordings))}")
    # repeated where they are shorter: silence would have no gradient to speak of
    clips = np.stack([np.resize(audio.load(path, mel.sample_rate), CLIP_SECONDS * mel.sample_rate) for path in paths])
    spectrograms = AugmentMelSTFT.from_config(mel).eval()(torch.from_numpy(clips))[:, None]
    field = effective_receptive_field(network, spectrograms)
    seconds = ((report.frames - 1) * mel.hop_size + mel.win_length) / mel.sample_rate
    size = f"{report.frames} frames ({seconds:.2f} s) and {report.bands} mel bands; the spectrograms have {mel.n_mels}"
    print(f"The receptive field of '{name}': {size}.")
    print(f"{SHARE:.0%} of the gradient's magnitude lie in {field.frames} frames, the mean over {len(clips)} recordings.")
    if args.figure:
        from helpers.costs.figures import receptive_field_figure

        fields = {name: (report, field)}
        for strides in STRIDES:
            other = replace(arch, strides=strides).build(mel).eval()
            title = f"strides {' '.join(map(str, strides))}, random weights"
            fields[title] = receptive_field(other), effective_receptive_field(other, spectrograms)
        receptive_field_figure(fields, args.figure)
        print(f"figure: {args.figure}")
    return 0


if __name__ == "__main__":
    cli.run(main)
