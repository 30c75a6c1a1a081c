"""Find the threshold of each class with which a frame-wise model's frames have the best F1 on recordings with known events.

python -m helpers.tagger.calibration --model_name best.pt --audio_path validation --events validation.tsv --output thresholds.csv
python inference.py --model_name best.pt --audio_path recordings --events events.csv --threshold thresholds.csv

The table of events is of the form of AudioSet Strong's (`datasets.strong_labels`). Recordings are those of a folder, or in an HDF5
file of the AudioSet format; they are found by the names in the table, with or without their suffix. Use others than those that the
model was trained on. Classes without events there are left out: their threshold is the usual one. Events of classes that the model
does not have are left out, and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from datasets.audio_folders import list_recordings
from datasets.labels import audioset_labels, audioset_mids, audioset_strong_labels, audioset_strong_mids
from datasets.strong_labels import ClipRows, encode, read_strong_labels
from helpers import cli
from helpers.devices import pick_device
from helpers.median_filter import MEDIAN_FRAMES, median_filter
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.backends import BACKENDS
from helpers.tagger.events import THRESHOLD
from helpers.tagger.thresholds import write_thresholds
from models.errors import UserError

BINS = 1000  # of the scores from 0 to 1
HDF5_SUFFIXES = (".hdf", ".h5", ".hdf5")


class FrameCounts:
    """How many frames of each class have which score, those of its events and the others: all that F1 at any threshold needs."""

    def __init__(self, num_classes: int) -> None:
        self._counts = np.zeros((2, num_classes, BINS), np.int64)

    def add(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """Count the frames (T, K) of a recording; targets are 0 and 1."""
        bins = np.clip(np.ceil(scores * BINS).astype(int) - 1, 0, BINS - 1)  # bin b holds scores above b / BINS
        np.add.at(self._counts, ((targets > 0).astype(int), np.arange(scores.shape[1]), bins), 1)

    def f1(self) -> np.ndarray:
        """Return F1 (K, BINS) at the thresholds 0, 1 / BINS, ...; NaN for classes without events."""
        others, hits = self._counts[:, :, ::-1].cumsum(2)[:, :, ::-1]  # frames above each threshold
        positives = self._counts[1].sum(1, keepdims=True)
        return np.divide(2 * hits, hits + others + positives, where=positives > 0, out=np.full(hits.shape, np.nan))

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the threshold (K,) with the best F1 and that F1; of equal ones the middle one. NaN for classes without events."""
        f1 = self.f1()
        best, thresholds = f1.max(1), np.full(len(f1), np.nan)
        for k in np.flatnonzero(best > 0):
            equal = np.flatnonzero(f1[k] == best[k])
            thresholds[k] = equal[len(equal) // 2] / BINS
        return thresholds, best


def find_recordings(path: Path) -> Iterator[tuple[str, Path | bytes]]:
    """Yield name and content of each recording in a folder or HDF5 file."""
    if path.suffix.lower() in HDF5_SUFFIXES:
        from datasets.hdf5_mp3 import read_entries  # imports torch

        yield from ((name, mp3) for name, mp3, _ in read_entries(path, len(audioset_labels())))
    else:
        yield from ((recording.name, recording) for recording in list_recordings(path, problems=[]))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", required=True, help="a frame-wise model: a released or bundled name, or a checkpoint")
    parser.add_argument("--audio_path", type=Path, required=True, help="folder of recordings, or an HDF5 file")
    parser.add_argument("--events", type=Path, required=True, help="table of their events")
    parser.add_argument("--output", type=Path, required=True, help="table of thresholds to write")
    parser.add_argument("--median", type=cli.positive_int, default=MEDIAN_FRAMES, help="frames of the median filter, odd")
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="inference backend")
    parser.add_argument("--cuda", action="store_true", help="compute on a CUDA device if there is one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    device = pick_device(args.cuda) if args.backend == "torch" else None
    tagger = AudioTagger(args.model_name, device, args.backend)
    known = dict(zip(audioset_labels() + audioset_strong_labels(), audioset_mids() + audioset_strong_mids(), strict=True))
    mids = [known.get(label, label) for label in tagger.labels]
    truth = read_strong_labels(args.events, tagger.labels, mids, leave_out_unknown=True)
    rows, of_rows = ClipRows(list(truth)), list(truth.values())
    counts, found = FrameCounts(len(tagger.labels)), 0
    for name, audio in find_recordings(args.audio_path):
        if (row := rows.find(name)) is not None:
            frames = tagger.frames(audio, name=name)
            targets = encode(of_rows[row], len(tagger.labels), len(frames), frames.step_seconds).T
            counts.add(median_filter(frames.scores, args.median), targets)
            found += 1
    if not found:
        raise UserError(f"{args.audio_path} holds none of the {len(truth)} recordings in {args.events}; compare their names")
    thresholds, best = counts.best()
    found_classes = np.flatnonzero(~np.isnan(thresholds))
    if not len(found_classes):
        raise UserError(
            f"{args.events} has no events in the {found} recordings of {args.audio_path}, so there is nothing to calibrate"
        )
    write_thresholds(args.output, {tagger.labels[k]: thresholds[k] for k in found_classes})
    usual = counts.f1()[found_classes, round(THRESHOLD * BINS)].mean()
    print(
        f"{args.output}: {len(found_classes)} classes, {found} of {len(truth)} recordings; "
        f"mean F1 of frames {best[found_classes].mean():.3f}, with {THRESHOLD} for all classes {usual:.3f}",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
