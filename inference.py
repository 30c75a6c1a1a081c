"""Print the ten likeliest events of a recording.

python inference.py --model_name mn10_as --audio_path recording.wav --cuda
python inference.py --ensemble mn40_as_ext mn40_as --audio_path recording.mp3
python inference.py --model_name mn04_opensounds --audio_path resources/recordings/scene.ogg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from helpers import cli
from helpers.tagger import AudioTagger


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--model_name", default="mn10_as", help="a released or bundled name, or the path of a checkpoint")
    names.add_argument("--ensemble", nargs="+", metavar="NAME", help="models to use together instead, by the mean of their logits")
    parser.add_argument("--audio_path", required=True, help="wav, flac, ogg or mp3 file of any rate, length and channel count")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    tagger = AudioTagger(args.ensemble or args.model_name, cli.pick_device(args.cuda))
    tags = tagger.tag(args.audio_path)
    print("************* Acoustic Event Detected: *****************")
    for tag in tags:
        print(f"{tag.label}: {tag.score:.3f}")
    print("********************************************************")
    return 0


if __name__ == "__main__":
    cli.run(main)
