"""Export a model to an ONNX file that runs without this project and PyTorch: waveform in, scores and embedding out.

    python export.py --model_name mn10_as --output mn10_as.onnx
    python export.py --model_name mn04_distilled --output small.onnx --int8 --calibration resources/recordings

The file has the front end (unless --network_only), the labels and the sample rate. It takes any number of clips of any length;
clips shorter than 16 ms are padded. Use it as follows:

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
from helpers.export.graph import to_onnx
from helpers.export.onnx_writer import write
from helpers.export.quantization import calibration_clips, to_int8
from models import checkpoints
from models.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", required=True, help="a released or bundled name, or the path of a checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    parser.add_argument("--network_only", action="store_true", help="take log-mel spectrograms (B, 1, bands, frames) instead")
    parser.add_argument("--int8", action="store_true", help="convolutions in 8-bit integers; the front end stays float")
    parser.add_argument(
        "--calibration", type=Path, nargs="+", default=[], metavar="PATH",
        help="recordings, or folders of them, from which --int8 takes the ranges of values in the network",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.output.suffix != ".onnx":
        raise UserError(f"--output must end in .onnx, not {args.output.name!r}")
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder")
    if args.int8 != bool(args.calibration):
        raise UserError("--int8 and --calibration RECORDING... go together")
    checkpoint = checkpoints.load(args.model_name)
    network = checkpoints.build(checkpoint).eval()
    name = args.model_name if os.sep not in args.model_name else Path(args.model_name).stem
    if args.int8:
        clips = calibration_clips(args.calibration, network.mel.sample_rate)
        model = to_int8(network, name, clips, network_only=args.network_only)
    else:
        model = to_onnx(network, name, network_only=args.network_only)
    write(args.output, model)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    cli.run(main)
