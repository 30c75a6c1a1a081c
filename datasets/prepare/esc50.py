r"""Turn the download of ESC-50 into 32 kHz recordings (640 MB), which are read faster than the original 44.1 kHz.

    python -m datasets.prepare.esc50 --source ESC-50-master.zip --output_dir data/esc50

The download is the zip of https://github.com/karolpiczak/ESC-50, or the folder that it holds. An interrupted run resumes where
it stopped. What is missing or unreadable is listed in <output_dir>/report.tsv.
"""

import argparse
from collections import Counter
from collections.abc import Sequence

from datasets import esc50
from datasets.prepare.command_line import check_count, download_parser
from datasets.prepare.conversion import write_report, write_wavs
from datasets.prepare.downloads import Download
from models.command import run
from models.files import write_bytes


def build_parser() -> argparse.ArgumentParser:
    source = "ESC-50-master.zip, or the extracted folder"
    return download_parser("esc50", __doc__, source, esc50.LOCATION.default)


def main(argv: Sequence[str] | None = None) -> int:
    """Write audio_32k/, then meta/esc50.csv; returns 0 also when clips are missing, which the report lists."""
    args = build_parser().parse_args(argv)
    download = Download(args.source)
    meta = args.output_dir / "meta" / "esc50.csv"
    write_bytes(meta, download.read_required("meta/esc50.csv"))
    rows = esc50.read_rows(meta)
    wavs = {row["filename"]: download.find(f"audio/{row['filename']}") for row in rows}
    report = write_wavs(wavs, args.output_dir / "audio_32k", 32000, num_workers=args.num_workers)
    rows = [row for row in rows if row["filename"] not in report.lost]
    check_count("clips", len(rows), 2000)
    for fold in esc50.FOLDS:
        check_count(f"clips in fold {fold}", sum(row["fold"] == str(fold) for row in rows), 400)
    by_class = Counter(row["category"] for row in rows)
    check_count("classes", len(by_class), esc50.NUM_CLASSES)
    check_count("classes of 40 clips", sum(count == 40 for count in by_class.values()), esc50.NUM_CLASSES)
    write_report(report, args.output_dir)
    return 0


if __name__ == "__main__":
    run(main)
