"""Export a model to an ONNX file that runs without this project and PyTorch: waveform in, scores and embedding out.

    python export.py --model_name mn10_as --output mn10_as.onnx
    python export.py --model_name mn04_distilled --output small.onnx --weights int8

The file has the front end (unless --network_only), the labels and the sample rate. It takes any number of clips of any length;
clips shorter than 16 ms are padded. Weights in 8 or 16 bits make the file smaller, not faster. Use it as follows:

    import json, numpy as np, onnxruntime, soundfile, soxr

    session = onnxruntime.InferenceSession("mn10_as.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["efficientat"])
    sound, rate = soundfile.read("recording.wav", dtype="float32", always_2d=True)
    waveform = soxr.resample(sound.mean(1), rate, about["sample_rate"]).astype(np.float32)[None]  # (B, samples)
    scores, embedding = session.run(["scores", "embedding"], {"waveform": waveform})  # (B, classes), (B, channels)
    for k in scores[0].argsort()[::-1][:10]:
        print(about["labels"][k], scores[0, k])
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from helpers import cli
from helpers.export import cache, comparison
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from models import checkpoints
from models.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", required=True, help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    parser.add_argument("--network_only", action="store_true", help="take log-mel spectrograms (B, 1, bands, frames) instead")
    parser.add_argument("--weights", choices=cache.WEIGHTS, default="float32", help="how the file keeps the network's weights")
    parser.add_argument(
        "--compare", type=Path, nargs="*", metavar="PATH",
        help="recordings, or folders of them, whose scores are compared with PyTorch's (default: the bundled ones); no PATH: none",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".onnx":
        raise UserError(f"--output must end in .onnx, not {args.output.name!r}")
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder")
    checkpoint = checkpoints.load(args.model_name)
    network = checkpoints.build(checkpoint).eval()
    name = args.model_name if os.sep not in args.model_name else Path(args.model_name).stem
    model = to_onnx(network, name, weights=args.weights, network_only=args.network_only)
    recordings = [comparison.RECORDINGS] if args.compare is None else args.compare
    difference = comparison.compare(model, network, recordings, network_only=args.network_only) if recordings else None
    write(args.output, model)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")
    if difference:
        print(difference)
    return 0


if __name__ == "__main__":
    cli.run(main)
