r"""Turn the download of TAU Urban Acoustic Scenes 2020 Mobile, development, into the folder that training and evaluation read.

    python -m datasets.prepare.dcase20 --source downloads --output_dir data/dcase20

The download is the folder of the zips that https://zenodo.org/record/3670167 gives, or of what they hold: that one can also be
read as it is. Recordings are copied as they are, 44.1 kHz in 24 bits, or resampled (--sample_rate 32000) to mono in 16 bits. An
interrupted run resumes where it stopped. What is missing or unreadable is listed in <output_dir>/report.tsv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from datasets import dcase20
from datasets.prepare.command_line import check_count, download_parser, positive_int
from datasets.prepare.conversion import write_report, write_wavs
from datasets.prepare.downloads import Download
from models.command import run
from models.errors import UserError
from models.files import write_bytes

TABLES = ("meta.csv", *(f"evaluation_setup/fold1_{part}.csv" for part in ("train", "test", "evaluate")))


def build_parser() -> argparse.ArgumentParser:
    source = "folder of the downloaded zips, or of what they hold"
    parser = download_parser("dcase20", __doc__, source, dcase20.LOCATION.default)
    parser.add_argument("--sample_rate", type=positive_int, help="rate in Hz to resample to (default: the files as they are)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write meta.csv, evaluation_setup/ and audio/, the recordings of the fold only (the official fold leaves some out).

    Returns 0 also when clips are missing, which the report lists.
    """
    args = build_parser().parse_args(argv)
    output_dir = args.output_dir
    if args.source.resolve() == output_dir.resolve():
        raise UserError(f"{args.source} is --output_dir as well; it can be read as it is, or give another --output_dir")
    download = Download(args.source)
    for table in TABLES:
        write_bytes(output_dir / table, download.read_required(table))
    rows = {part: dcase20.read_list(output_dir, part) for part in ("train", "evaluate")}
    names = [row["filename"] for part in rows.values() for row in part]
    wavs = {PurePosixPath(name).name: download.find(name) for name in names}
    _check_rate(output_dir, args.sample_rate)
    report = write_wavs(wavs, output_dir / "audio", args.sample_rate, num_workers=args.num_workers)
    for part, published in (("train", 13965), ("evaluate", 2970)):
        files = [PurePosixPath(row["filename"]).name for row in rows[part]]
        check_count(f"clips to {part.replace('evaluate', 'test')}", sum(file not in report.lost for file in files), published)
    check_count("scenes", len({row["scene_label"] for part in rows.values() for row in part}), dcase20.NUM_CLASSES)
    check_count("cities", len({dcase20.city_of(row["identifier"]) for part in rows.values() for row in part}), 10)
    write_report(report, output_dir)
    return 0


def _check_rate(output_dir: Path, sample_rate: int | None) -> None:
    """Refuse to resume at another rate than that of the run before."""
    note, rate = output_dir / "audio_rate.txt", str(sample_rate or "as downloaded")
    rate_before = note.read_text(encoding="utf-8") if note.is_file() else rate
    if rate_before != rate:
        raise UserError(f"{output_dir} has recordings at another rate ({rate_before}); remove it or give another --output_dir")
    write_bytes(note, rate.encode())


if __name__ == "__main__":
    run(main)
