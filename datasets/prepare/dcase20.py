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
from datasets.prepare.command_line import check_count, command_parser, positive_int
from datasets.prepare.conversion import write_report, write_wavs
from datasets.prepare.downloads import Download
from models.command import run
from models.errors import UserError
from models.files import write_bytes

TABLES = ("meta.csv", *(f"evaluation_setup/fold1_{part}.csv" for part in ("train", "test", "evaluate")))


def prepare(source: Path, output_dir: Path, sample_rate: int | None, num_workers: int) -> None:
    """Write meta.csv, evaluation_setup/ and audio/, the recordings of the fold only (the official fold leaves some out).

    Raises OSError and UserError, warns of counts that are not the published ones.
    """
    if source.resolve() == output_dir.resolve():
        raise UserError(f"{source} is --output_dir as well; it can be read as it is, or give another --output_dir")
    download = Download(source)
    for table in TABLES:
        write_bytes(output_dir / table, download.read_required(table))
    rows = {part: dcase20.read_list(output_dir, part) for part in ("train", "evaluate")}
    names = [row["filename"] for part in rows.values() for row in part]
    wavs = {PurePosixPath(name).name: download.find(name) for name in names}
    _check_rate(output_dir, sample_rate)
    report = write_wavs(wavs, output_dir / "audio", sample_rate, num_workers=num_workers)
    write_report(report, output_dir / "report.tsv")
    lost = {*report.missing, *(name for name, _ in report.unreadable)}
    for part, published in (("train", 13965), ("evaluate", 2970)):
        files = [PurePosixPath(row["filename"]).name for row in rows[part]]
        check_count(f"clips to {part.replace('evaluate', 'test')}", sum(file not in lost for file in files), published)
    check_count("scenes", len({row["scene_label"] for part in rows.values() for row in part}), dcase20.NUM_CLASSES)
    check_count("cities", len({dcase20.city_of(row["identifier"]) for part in rows.values() for row in part}), 10)
    print(f"{output_dir}: {report}, listed in {output_dir / 'report.tsv'}")


def _check_rate(output_dir: Path, sample_rate: int | None) -> None:
    """Refuse to resume at another rate than that of the run before."""
    note, rate = output_dir / "audio_rate.txt", str(sample_rate or "as downloaded")
    rate_before = note.read_text(encoding="utf-8") if note.is_file() else rate
    if rate_before != rate:
        raise UserError(f"{output_dir} has recordings at another rate ({rate_before}); remove it or give another --output_dir")
    write_bytes(note, rate.encode())


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("dcase20", __doc__)
    parser.add_argument("--source", required=True, type=Path, help="folder of the downloaded zips, or of what they hold")
    parser.add_argument("--output_dir", type=Path, default=dcase20.LOCATION.default, help="folder to write")
    parser.add_argument("--sample_rate", type=positive_int, help="rate in Hz to resample to (default: the files as they are)")
    parser.add_argument("--num_workers", type=positive_int, default=2, help="worker processes")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set; returns 0 also when clips are missing, which the report lists."""
    args = build_parser().parse_args(argv)
    prepare(args.source, args.output_dir, args.sample_rate, args.num_workers)
    return 0


if __name__ == "__main__":
    run(main)
