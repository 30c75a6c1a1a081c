r"""Turn a folder of AudioSet recordings and AudioSet's CSV into the HDF5 file that training and evaluation read.

    python -m datasets.prepare.audioset --csv eval_segments.csv --audio_dir eval_audio \
        --output data/audioset/eval_segments_mp3.hdf

The recordings are the 10 s segments, one file each, named by YouTube id with or without a leading 'Y', in any format
libsndfile reads, also in subfolders. An interrupted run resumes where it stopped. What is missing or unreadable
is listed in <output>.report.tsv.
"""

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import audio
from datasets.audioset import NUM_CLASSES
from datasets.labels import audioset_mids
from datasets.prepare.command_line import command_parser, positive_int
from datasets.prepare.conversion import Recording, write_recordings, write_report
from models.command import run
from models.errors import UserError

# Of several files for one clip the first suffix here wins. The last four are looked for to be reported: libsndfile
# does not read them, but they are what video downloaders leave behind.
SUFFIXES = (*audio.SUFFIXES, ".m4a", ".aac", ".webm", ".mp4")


def read_segments(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Read classes by YouTube id from an AudioSet CSV: comments begin with '#', other lines are `id, start, end, "mid,mid,..."`.

    Raises FileNotFoundError, and UserError, with the line, for a row of another form, an unknown MID or a repeated id.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found (or not a file); give one of AudioSet's CSV files")
    class_of = {mid: index for index, mid in enumerate(audioset_mids())}
    segments: dict[str, tuple[int, ...]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        try:
            for row in reader:
                if row and not row[0].startswith("#"):
                    youtube_id, classes = _parse_row(row, class_of)
                    if youtube_id in segments:
                        raise UserError(f"id {youtube_id} is listed twice")
                    segments[youtube_id] = classes
        except (ValueError, csv.Error) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    return segments


def _parse_row(row: Sequence[str], class_of: Mapping[str, int]) -> tuple[str, tuple[int, ...]]:
    try:
        youtube_id, start, end, mids = row
        float(start), float(end)  # which raise
    except ValueError as error:
        raise UserError(f'{row} is not `id, start, end, "mid,mid,..."` as in AudioSet\'s CSV files') from error
    unknown = [mid for mid in mids.split(",") if mid not in class_of]
    if unknown:
        raise UserError(f"{', '.join(unknown)} is not among AudioSet's {NUM_CLASSES} class identifiers (MIDs)")
    return youtube_id, tuple(class_of[mid] for mid in mids.split(","))


def find_audio(audio_dir: Path) -> dict[str, str]:
    """Audio files anywhere below a folder, by file name without suffix. Raises NotADirectoryError."""
    if not audio_dir.is_dir():
        raise NotADirectoryError(f"{audio_dir} is not a folder; give the one that holds the audio files")
    found: dict[str, str] = {}
    for folder, _, names in os.walk(audio_dir):
        for name in names:
            stem, suffix = os.path.splitext(name)
            path = os.path.join(folder, name)
            if suffix.lower() in SUFFIXES:
                found[stem] = min(path, found.get(stem, path), key=_preference)
    return found


def _preference(path: str) -> tuple[int, str]:
    return SUFFIXES.index(os.path.splitext(path)[1].lower()), path


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("audioset", __doc__)
    parser.add_argument("--csv", required=True, type=Path, help="AudioSet's list, such as balanced_train_segments.csv")
    parser.add_argument("--audio_dir", required=True, type=Path, help="folder of the recordings; subfolders count")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="HDF5 file to write: {balanced_train,unbalanced_train,eval}_segments_mp3.hdf, in the data set's folder",
    )
    parser.add_argument("--num_workers", type=positive_int, default=2, help="worker threads")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; returns 0 also when clips are missing, which the report lists."""
    args = build_parser().parse_args(argv)
    if args.output.exists():
        raise FileExistsError(f"{args.output} exists; remove it or give another --output")
    segments, files = read_segments(args.csv), find_audio(args.audio_dir)
    recordings = [Recording(f"Y{key}.mp3", files.get(f"Y{key}") or files.get(key), classes) for key, classes in segments.items()]
    report = write_recordings(recordings, args.output, NUM_CLASSES, num_workers=args.num_workers)
    write_report(report, args.output)
    return 0


if __name__ == "__main__":
    run(main)
