"""Find recordings of a folder in the sound without labels, such as those that a model will be measured on.

    python -m datasets.prepare.opensounds.copies --corpus_dir data/opensounds --audio_dir data/ESC-10

Both are cut into pieces of 5 s. Of each piece the loudest 0.3 s are compared: copies, recoded or scaled, have a similarity of
0.995, other sounds up to 0.985. Prints the most similar pairs, to be listened to; the exit code is 1 if one is above 0.99, else 0.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.audio import load
from datasets.audio_folders import find_recordings
from datasets.csv_table import read_table
from datasets.hdf5_mp3 import read_entries
from datasets.labels import audioset_labels
from datasets.location import data_dir
from datasets.prepare.command_line import command_parser
from datasets.prepare.opensounds.clips import DUPLICATE_SIMILARITY, fingerprint
from datasets.prepare.opensounds.sounds import SAMPLE_RATE, trim_silence
from models.command import printable, run
from models.errors import UserError

PIECE = 5 * SAMPLE_RATE  # samples
SHOWN = 10  # pairs
SHORTEST = SAMPLE_RATE * 3 // 10  # samples of a piece: those of a fingerprint


def fingerprints(recording: Path | bytes) -> list[np.ndarray]:
    """Fingerprints of the pieces of a recording that are neither too short nor silent."""
    waveform = load(recording, SAMPLE_RATE, warnings=[])
    waveform = trim_silence(waveform - waveform.mean())
    pieces = (waveform[start : start + PIECE] for start in range(0, len(waveform), PIECE))
    return [fingerprint(piece) for piece in pieces if len(piece) >= SHORTEST and np.abs(piece).max() > 1e-3]


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("opensounds.copies", __doc__)
    parser.add_argument("--corpus_dir", type=Path, default=data_dir("opensounds"), help="folder of the open corpus")
    parser.add_argument("--audio_dir", type=Path, required=True, help="folder with the recordings to look for, at any depth")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print how near the clips come to the recordings; returns 1 if there is a copy, else 0."""
    args = build_parser().parse_args(argv)
    table = read_table(args.corpus_dir / "unlabelled.csv", ("name", "package", "source"), advice="build it with --unlabelled")
    source_of = {row["name"]: f"{row['package']}: {row['source']}" for row in table}
    recordings = find_recordings([args.audio_dir])
    searched = [(path, one) for path in tqdm(recordings, unit="recording", disable=None) for one in fingerprints(path)]
    if not searched:
        raise UserError(f"{args.audio_dir} has no recording of {SHORTEST / SAMPLE_RATE} s or more")
    of_recordings = np.stack([one for _, one in searched])
    found: list[tuple[float, Path, str]] = []  # of each clip the most similar recording
    hdf5 = args.corpus_dir / "unlabelled_segments_mp3.hdf"
    for name, mp3, _ in tqdm(read_entries(hdf5, len(audioset_labels())), total=len(table), unit="clip", disable=None):
        if pieces := fingerprints(mp3):
            similarities = of_recordings @ np.stack(pieces).T  # (pieces of recordings, pieces of the clip)
            k = int(similarities.max(1).argmax())
            found.append((float(similarities[k].max()), searched[k][0], name))
    found.sort(reverse=True)
    for similarity, path, name in found[:SHOWN]:
        print(printable(f"{similarity:.3f}  {path}  {name} ({source_of[name]})"))
    copies = sum(similarity > DUPLICATE_SIMILARITY for similarity, *_ in found)
    print(f"{len(recordings)} recordings, {len(table)} clips: {copies} clips are copies")
    return 1 if copies else 0


if __name__ == "__main__":
    run(main)
