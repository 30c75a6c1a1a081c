"""Does archive.py keep up with `AudioTagger.tag_files` on the cores of this machine?

    python -m benchmarks.archive --folder /usr/share/klettres --mp3s opensounds/eval_segments_mp3.hdf

Both tag the same recordings, each in a process of its own, in random order in each round: those of the folder, of any format, mp3s
of an HDF5 file of this project, and long recordings that are made of these mp3s. A row is one run: seconds of sound a second with
and without the time until the first rows are there. The last lines are the ratios of the medians, and how many recordings have the
same best label.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np

from benchmarks import common
from datasets.audio_folders import list_recordings
from datasets.decoding.isolated import TIME_LIMIT
from helpers import cli
from helpers.archive.output import REPORT, Output
from helpers.costs.tables import table
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.results import Failure

VARIANTS = ("tag_files", "archive")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="recordings of any format")
    parser.add_argument("--mp3s", type=Path, required=True, help="HDF5 file of mp3s")
    parser.add_argument("--count", type=cli.positive_int, default=5000, help="recordings")
    parser.add_argument("--long", type=cli.non_negative_int, default=20, help="of them that are long")
    parser.add_argument("--minutes", type=cli.positive_int, default=15, help="of a long recording, about")
    parser.add_argument("--model_name", default="mn04_distilled")
    parser.add_argument("--batch_size", type=cli.positive_int, default=8)
    parser.add_argument("--rounds", type=cli.positive_int, default=1)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)  # tag_files, in a process of its own
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.run:
        print(json.dumps(by_tag_files(args)))
        return 0
    print(common.machine("torch", "ray"))
    with tempfile.TemporaryDirectory() as folder:
        args.work = Path(folder)
        size = prepare(args, args.work / "recordings")
        print(f"{args.count} recordings, {args.long} of them of about {args.minutes} min, {size:.0f} MB")
        rows: list[dict[str, Any]] = []
        for number, variant in common.interleaved(VARIANTS, args.rounds - 1):
            rows.append({"round": number + 1, "variant": variant, **measure(args, variant)})
            print(table([{name: value for name, value in rows[-1].items() if name != "best"}]), flush=True)
    print(table([{name: value for name, value in row.items() if name != "best"} for row in rows]))
    for figure in ("sound/s", "sound/s begun"):
        ours, theirs = (median(row[figure] for row in rows if row["variant"] == variant) for variant in reversed(VARIANTS))
        print(f"{figure}: {ours / theirs:.2f} of tag_files")
    one, other = (next(row["best"] for row in rows if row["variant"] == variant) for variant in VARIANTS)
    print(f"same best label: {sum(one[name] == other.get(name) for name in one)} of {len(one)}")
    return 0


def prepare(args: argparse.Namespace, folder: Path) -> float:
    """Link and write recordings in an order that mixes them; return their size in MB."""
    folder.mkdir()
    with h5py.File(args.mp3s, "r") as file:
        mp3s = [content.tobytes() for content in file["mp3"][: args.count]]
    sounds = list(islice(list_recordings(args.folder, problems=[]), args.count - args.long))
    others = args.count - args.long - len(sounds)
    for number, path in enumerate(sounds):
        (folder / f"{number % 100:02}-{number:05}{path.suffix}").symlink_to(path.resolve())
    for number in range(others):
        (folder / f"{number % 100:02}-clip{number:05}.mp3").write_bytes(mp3s[number % len(mp3s)])
    clips = cycle(mp3s)
    for number in range(args.long):
        with open(folder / f"{number % 100:02}-long{number:02}.mp3", "wb") as file:
            for clip in islice(clips, args.minutes * 6):
                file.write(clip)
    return sum(path.stat().st_size for path in folder.iterdir()) / common.MB


def measure(args: argparse.Namespace, variant: str) -> dict[str, Any]:
    """Run a variant in a process of its own."""
    start = time.perf_counter()
    if variant == "archive":
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            options = [f"--model_name={args.model_name}", f"--batch_size={args.batch_size}"]
            common.run_process(["archive.py", args.work / "recordings", "--output", folder, *options])
            wall = time.perf_counter() - start
            result = read_archive(folder)
            result["first"] += wall - result.pop("run")
    else:
        options = [f"--{name}={getattr(args, name)}" for name in ("folder", "mp3s", "model_name", "batch_size", "work")]
        printed = common.run_process(["-m", "benchmarks.archive", "--run", *options]).printed
        wall = time.perf_counter() - start
        result = json.loads(printed.splitlines()[-1])
        result["first"] += wall - result.pop("run")
    return {
        "wall s": round(wall, 1),
        "start s": round(result["first"], 1),
        "sound/s": round(result["sound"] / wall, 1),
        "sound/s begun": round(result["sound"] / (wall - result["first"]), 1),
        "failed": result["failed"],
        "best": result["best"],
    }


def by_tag_files(args: argparse.Namespace) -> dict[str, Any]:
    """Tag all recordings; return seconds until the first result and until the last one, and what was found."""
    start = time.perf_counter()
    tagger = AudioTagger(args.model_name, "cpu", batch_size=args.batch_size)
    paths = sorted((args.work / "recordings").iterdir())
    first, sound, failed, best = None, 0.0, 0, {}
    for result in tagger.tag_files(map(str, paths), time_limit=TIME_LIMIT):
        first = first or time.perf_counter() - start
        failed += isinstance(result, Failure)
        if not isinstance(result, Failure):
            sound += result.end - result.start
            best[Path(result.source).name] = result[0].label
    return {"first": first, "run": time.perf_counter() - start, "sound": sound, "failed": failed, "best": best}


def read_archive(folder: str) -> dict[str, Any]:
    """Return the same of an archive."""
    output = Output(folder)
    report = json.loads(output.folder.read(REPORT))
    run, labels = report["last_run"], output.manifest["models"][0]["labels"]
    sums: dict[str, Any] = {}  # of the scores of parts
    for batch in output.rows(["source", "start", "end", "scores"]):
        for row in batch.to_pylist():
            if row["scores"] is not None:
                sums[row["source"]] = sums.get(row["source"], 0) + (row["end"] - row["start"]) * np.array(row["scores"])
    best = {name: labels[int(scores.argmax())] for name, scores in sums.items()}
    failed = sum(report["failures"].values())
    return {"first": run["start_seconds"], "run": run["wall_seconds"], "sound": run["hours"] * 3600, "failed": failed, "best": best}


if __name__ == "__main__":
    cli.run(main)
