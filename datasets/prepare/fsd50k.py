r"""Turn the download of FSD50K into the three HDF5 files of mp3s that training and evaluation read.

    python -m datasets.prepare.fsd50k --source downloads --output_dir data/fsd50k

The download is the folder of the zips that https://zenodo.org/record/4060432 gives, or of what they hold. The recordings come in
split archives (.z01, .z02, ..., .zip), which must be joined or extracted first. An interrupted run resumes where it
stopped. What is missing or unreadable is listed in <output_dir>/FSD50K.{train,val,eval}_mp3.hdf.report.tsv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets import fsd50k
from datasets.csv_table import read_table
from datasets.prepare.command_line import check_count, download_parser
from datasets.prepare.conversion import Recording, Source, write_recordings, write_report
from datasets.prepare.downloads import Download
from models.command import run
from models.errors import UserError
from models.files import write_bytes

PUBLISHED = {"train": 36796, "val": 4170, "eval": 10231}  # clips; Fonseca et al., FSD50K, TASLP 2022, table 2
_TRUTH = "FSD50K.ground_truth"


def build_parser() -> argparse.ArgumentParser:
    source = "folder of the downloaded zips, or of what they hold"
    return download_parser("fsd50k", __doc__, source, fsd50k.LOCATION.default)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the ground truth and three files; returns 0 also when clips are missing, which the reports list."""
    args = build_parser().parse_args(argv)
    download, truth = Download(args.source), args.output_dir / _TRUTH
    for table in ("vocabulary.csv", "dev.csv", "eval.csv"):
        write_bytes(truth / table, download.read_required(f"{_TRUTH}/{table}"))
    class_of = {label: index for index, label in enumerate(fsd50k.read_vocabulary(truth / "vocabulary.csv"))}
    for part, recordings in to_recordings(truth, class_of, download).items():
        path = args.output_dir / f"FSD50K.{part}_mp3.hdf"
        if path.exists():
            print(f"{path} is there")
            continue
        report = write_recordings(recordings, path, fsd50k.NUM_CLASSES, num_workers=args.num_workers)
        check_count(f"{part} clips", report.written + report.already_there, PUBLISHED[part])
        write_report(report, path)
    return 0


def to_recordings(truth: Path, class_of: dict[str, int], download: Download) -> dict[str, list[Recording]]:
    """Recordings of each part, named <fname>.mp3. Raises UserError, with the file, for unknown labels, splits and file names."""
    parts: dict[str, list[Recording]] = {part: [] for part in PUBLISHED}
    for half, columns in (("dev", ("fname", "labels", "mids", "split")), ("eval", ("fname", "labels", "mids"))):
        for row in read_table(truth / f"{half}.csv", columns):
            fname, labels, part = row["fname"], row["labels"].split(","), row.get("split", "eval")
            is_known = all(label in class_of for label in labels) and part in (("eval",) if half == "eval" else ("train", "val"))
            if not (is_known and fname.isalnum()):
                raise UserError(f"{truth / half}.csv: clip {fname!r}, split {part!r}, labels {row['labels']!r}: not FSD50K's")
            file = download.find(f"FSD50K.{half}_audio/{fname}.wav")
            sources = () if file is None else (Source(file),)
            parts[part].append(Recording(f"{fname}.mp3", sources, tuple(class_of[label] for label in labels)))
    return parts


if __name__ == "__main__":
    run(main)
