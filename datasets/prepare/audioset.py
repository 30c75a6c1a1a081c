r"""Turn AudioSet as people have it into the HDF5 file that training and evaluation read.

    python -m datasets.prepare.audioset --csv eval_segments.csv --audio_dir eval_audio \
        --output data/audioset/eval_segments_mp3.hdf
    python -m datasets.prepare.audioset --parquet hub/data/eval --output data/audioset/eval_segments_mp3.hdf

The recordings are files in a folder and its subfolders, in any format, video too, named as downloaders do: ID, YID, ID_START or
ID_START_END, with times in seconds or milliseconds that fit the CSV; or rows of parquet files as on the Hugging Face Hub; or
members of uncompressed tars as webdataset reads them (key.flac, key.json). Whole videos are cut to the CSV's segment. With shards
the CSV chooses the clips and has their labels; without it all clips are taken, with the shards' labels. An interrupted run resumes
where it stopped. What is missing, unreadable, damaged or there twice is listed in <output>.report.tsv.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from datasets import audio
from datasets.audio_folders import Problem, describe_skipped, list_recordings
from datasets.audioset import NUM_CLASSES
from datasets.hdf5_mp3 import NAME_BYTES
from datasets.prepare.command_line import command_parser, positive_int
from datasets.prepare.conversion import Converter, Recording, Source, write_recordings, write_report
from datasets.prepare.segments import Segment, match, read_segments
from datasets.shards.clips import ShardClip, clip_name
from datasets.shards.files import find_shards, read_shard
from models.command import printable, run
from models.errors import UserError

_PRINTED = 5  # problems


def find_files(
    audio_dir: Path, segments: Mapping[str, Segment], problems: list[Problem], notes: list[str]
) -> dict[str, list[Source]]:
    """Recordings below a folder by the id of their segment, the better formats first; `notes` gets what was passed over.

    Raises FileNotFoundError and NotADirectoryError.
    """
    found: defaultdict[str, list[Source]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    others: list[Path] = []
    for path in list_recordings(audio_dir, problems=problems, skipped=skipped):
        matched = match(path.stem, segments)
        if matched is None:
            others.append(path)
        else:
            youtube_id, has_times = matched
            found[youtube_id].append(Source(path, None if has_times else segments[youtube_id][:2]))
    if skipped:
        notes.append(describe_skipped(skipped))
    if others:
        notes.append(f"{len(others)} recordings belong to no segment of the CSV by their name, the first: {others[0]}")
    for sources in found.values():
        sources.sort(key=lambda source: audio.SUFFIXES.index(source.path.suffix.lower()))
    return found


def find_clips(shards: Sequence[Path], num_workers: int, problems: list[Problem]) -> Iterable[ShardClip]:
    """Yield the clips of all shards in order. Shards that cannot be read, or not to their end, are problems."""

    def read(shard: Path) -> tuple[list[ShardClip], UserError | None]:
        clips = []
        try:
            clips.extend(read_shard(shard))
        except UserError as error:
            return clips, error
        return clips, None

    with ThreadPoolExecutor(num_workers) as pool:
        results = tqdm(pool.map(read, shards), total=len(shards), desc="looking through shards", unit="file", disable=None)
        for shard, (clips, error) in zip(shards, results, strict=True):
            if error:
                problems.append(Problem(shard, str(error).removeprefix(str(shard)).lstrip(" ,")))
            yield from clips


def recordings_of_shards(
    clips: Iterable[ShardClip], segments: Mapping[str, Segment] | None, unfit: list[Problem]
) -> list[Recording]:
    """Recordings in the order of the CSV, or of the shards where there is none.

    `unfit` gets the clips whose name or labels do not fit.
    """
    found: dict[str, list[Source]] = {} if segments is None else {f"Y{youtube_id}.mp3": [] for youtube_id in segments}
    classes = {} if segments is None else {f"Y{youtube_id}.mp3": segment.classes for youtube_id, segment in segments.items()}
    for clip in clips:
        part = None
        if segments is None:
            name = clip_name(clip.key)
            try:
                if len(name.encode()) > NAME_BYTES:
                    raise UserError(f"is a name of more than {NAME_BYTES} bytes; clips are named by YouTube id")
                classes[name] = classes.get(name) or clip.classes()
            except UserError as error:
                unfit.append(Problem(Path(name), str(error)))
                continue
        else:
            matched = match(clip.key, segments)
            if matched is None:
                continue
            youtube_id, has_times = matched
            name = f"Y{youtube_id}.mp3"
            part = None if has_times else segments[youtube_id][:2]
        sources = found.setdefault(name, [])
        if clip.stored:
            sources.append(Source(clip.stored, part))
    return [Recording(name, tuple(sources), classes[name]) for name, sources in found.items()]


def build_parser() -> argparse.ArgumentParser:
    parser = command_parser("audioset", __doc__)
    parser.add_argument("--csv", type=Path, help="AudioSet's list, such as balanced_train_segments.csv")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--audio_dir", type=Path, help="folder of the recordings; subfolders count. Needs --csv")
    source.add_argument(
        "--parquet", nargs="+", metavar="PATH", help="parquet files, their folders or patterns such as 'eval/*.parquet'"
    )
    source.add_argument("--webdataset", nargs="+", metavar="PATH", help="uncompressed tars, their folders or patterns")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="HDF5 file to write: {balanced_train,unbalanced_train,eval}_segments_mp3.hdf, in the data set's folder",
    )
    parser.add_argument("--num_workers", type=positive_int, default=2, help="worker threads")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return prepare(build_parser().parse_args(argv))


def prepare(args: argparse.Namespace, converter: Converter | None = None) -> int:
    """Write the file; returns 0 also when clips are missing, which the report lists, but 1 when not all was looked through.

    A `converter` is that of `write_recordings`.
    """
    if args.audio_dir and not args.csv:
        raise UserError("--audio_dir needs AudioSet's --csv, which has the labels")
    if args.output.exists():
        raise FileExistsError(f"{args.output} exists; remove it or give another --output")
    segments = read_segments(args.csv) if args.csv else None
    problems: list[Problem] = []
    unfit: list[Problem] = []
    notes: list[str] = []
    if args.audio_dir:
        files = find_files(args.audio_dir, segments, problems, notes)
        recordings = [Recording(f"Y{key}.mp3", tuple(files.get(key, ())), segment.classes) for key, segment in segments.items()]
    else:
        shards = find_shards(args.parquet or args.webdataset, ".parquet" if args.parquet else ".tar")
        recordings = recordings_of_shards(find_clips(shards, args.num_workers, problems), segments, unfit)
    found = problems + unfit
    notes += [str(problem) for problem in found[:_PRINTED]]
    if len(found) > _PRINTED:
        notes.append(f"{len(found) - _PRINTED} more such problems are in the report")
    try:
        report = write_recordings(recordings, args.output, NUM_CLASSES, num_workers=args.num_workers, converter=converter)
    except UserError as error:
        raise UserError("; ".join([str(error), *notes[:3]])) from error
    print(*map(printable, notes), sep="\n", end="\n" if notes else "")
    report = replace(report, problems=tuple((str(problem.path), problem.reason) for problem in found))
    write_report(report, args.output)
    return 0 if all(problem.is_harmless for problem in problems) else 1


if __name__ == "__main__":
    run(main)
