"""Export a model to a file that runs without this project and PyTorch: waveform in, scores and embedding out.

    python export.py --model_name mn10_as --output mn10_as.onnx
    python export.py --model_name mn04_distilled --output small.onnx --weights int8
    python export.py --model_name mn04_distilled --output small.tflite --format litert --weights int8
    python export.py --model_name mn04_distilled --output small.pte --format executorch --clip_seconds 2

A file has the front end (unless --network_only), the labels and the sample rate. Weights in 8 or 16 bits make it smaller, not
faster. Files for phones (LiteRT, ExecuTorch) take one clip of --clip_seconds; docs/mobile.md shows how they are used. An ONNX file
takes any number of clips of any length; clips shorter than 16 ms are padded. Use it as follows:

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
from helpers.export.executorch import load_executorch, to_executorch
from helpers.export.graph import to_onnx
from helpers.export.litert import load_litert, to_litert
from helpers.export.runtime import load_onnx
from helpers.export.static_model import CLIP_SECONDS, clip_samples
from models import checkpoints
from models.errors import UserError
from models.files import write_bytes

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "executorch": ".pte"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", required=True, help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the file to write: .onnx, .tflite (litert), .pte (executorch)"
    )
    parser.add_argument("--format", choices=SUFFIXES, default="onnx", help="for ONNX Runtime, or for phones: LiteRT, ExecuTorch")
    parser.add_argument(
        "--clip_seconds", type=cli.positive_float, metavar="SECONDS",
        help=f"length of the clips that a LiteRT or ExecuTorch file takes (default: {CLIP_SECONDS:g})",
    )  # fmt: skip
    parser.add_argument("--network_only", action="store_true", help="take log-mel spectrograms (B, 1, bands, frames) instead")
    parser.add_argument("--weights", choices=cache.WEIGHTS, default="float32", help="how the file keeps the network's weights")
    parser.add_argument(
        "--compare", type=Path, nargs="*", metavar="PATH",
        help="recordings, or folders of them, whose scores are compared with PyTorch's (default: the bundled ones); no PATH: none",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    suffix = SUFFIXES[args.format]
    if args.output.suffix != suffix:
        raise UserError(f"--output must end in {suffix} with --format {args.format}, not {args.output.name!r}")
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder")
    if args.format == "onnx" and args.clip_seconds:
        raise UserError("--clip_seconds goes with --format litert or executorch: ONNX files take any length")
    if args.format != "onnx" and args.network_only:
        raise UserError(f"--network_only goes with --format onnx: files for {args.format} have the front end")
    recordings = comparison.find([comparison.RECORDINGS] if args.compare is None else args.compare)
    checkpoint = checkpoints.load(args.model_name)
    network = checkpoints.build(checkpoint).eval()
    name = args.model_name if os.sep not in args.model_name else Path(args.model_name).stem
    samples = None
    if args.format == "onnx":
        content = to_onnx(network, name, weights=args.weights, network_only=args.network_only).SerializeToString()
        compute = load_onnx(content)
    else:
        seconds = args.clip_seconds or CLIP_SECONDS
        samples = clip_samples(network, name, seconds)
        convert, load = (to_litert, load_litert) if args.format == "litert" else (to_executorch, load_executorch)
        content = convert(network, name, weights=args.weights, seconds=seconds)
        compute = load(content)
    difference = None
    if recordings:
        difference = comparison.compare(compute, network, recordings, network_only=args.network_only, samples=samples)
    write_bytes(args.output, content)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")
    if difference:
        print(difference)
    return 0


if __name__ == "__main__":
    cli.run(main)
