"""Memory of tagging recordings of minutes and of hours.

    python -m benchmarks.memory --figure memory.png

Repeats a bundled recording into FLAC files of 3 hours, a 6th and a 60th of it, and runs `inference.py` on each: on the whole
recording (`--audio_path`), and for a timeline of overlapping windows (`--window 10`). The resident set of the process is read 20
times in a second; the table shows its peak. In constant memory, it does not grow with the recording. For Linux.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from benchmarks import common
from benchmarks.common import ProcessRun
from helpers import cli
from helpers.export import cache as model_cache
from helpers.tagger.backends import BACKENDS

SHARES = (1 / 60, 1 / 6, 1)  # of the longest recording
OPTIONS = {"whole": [], "timeline": ["--window", 10]}
INTERVAL = 0.05  # seconds from one reading of the memory to the next


@dataclass(frozen=True)
class TaggingRun:
    backend: str
    what: str  # of OPTIONS
    length: float  # seconds of sound
    run: ProcessRun


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--hours", type=cli.positive_float, default=3.0, help="length of the longest recording")
    parser.add_argument("--recording", type=Path, default=common.RECORDINGS / "scene.ogg", help="recording to repeat")
    parser.add_argument("--model_name", default="mn04_distilled", help="a name, or the path of a checkpoint")
    parser.add_argument("--backends", choices=BACKENDS, nargs="+", default=["onnx"], help="library that computes")
    parser.add_argument("--figure", type=cli.figure_path, help="also draw the memory of each run over time into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    print(common.machine(*("onnxruntime" if backend == "onnx" else backend for backend in args.backends), "soundfile"))
    if "onnx" in args.backends:
        model_cache.exported(args.model_name)
    tagged = []
    with tempfile.TemporaryDirectory() as folder:
        for share in SHARES:
            path, length = Path(folder) / "recording.flac", share * args.hours * 3600
            write_repeated(path, args.recording, length)
            for backend in args.backends:
                for what, options in OPTIONS.items():
                    command = ["inference.py", "--backend", backend, "--model_name", args.model_name, "--audio_path", path]
                    run = common.run_process([*command, *options], interval=INTERVAL)
                    tagged.append(TaggingRun(backend, what, length, run))
    tagged.sort(key=lambda one: (one.backend, one.what, one.length))
    print_table(f"{args.recording.name}, repeated, with {args.model_name}", tagged)
    if args.figure:
        draw(tagged, args.figure)
    return 0


def write_repeated(path: Path, recording: Path, seconds: float) -> None:
    """Write a 16-bit file of `seconds`, at the recording's own rate and with its channels, without holding it in memory."""
    samples, rate = soundfile.read(recording, dtype="int16", always_2d=True)
    missing = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], "PCM_16") as file:
        while missing > 0:
            file.write(samples[:missing])
            missing -= len(samples)


def duration(seconds: float) -> str:
    size, unit = (3600, "h") if seconds >= 3600 else (60, "min") if seconds >= 60 else (1, "s")
    return f"{seconds / size:.3g} {unit}"


def print_table(title: str, tagged: Sequence[TaggingRun]) -> None:
    rows = [
        (f"{one.what}, {one.backend}", duration(one.length), f"{one.run.seconds:.1f}",
         f"{one.length / one.run.seconds:.0f}", f"{one.run.peak / common.MB:.1f}")
        for one in tagged
    ]  # fmt: skip
    common.print_table(title, ("result, backend", "length", "seconds", "times real time", "peak MB"), rows)


def draw(tagged: Sequence[TaggingRun], path: Path) -> None:
    """Draw a panel for each backend and kind of result: a line for each length, with time on a logarithmic axis."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((one.backend, one.what) for one in tagged))
    figure = Figure(figsize=(4.5 * len(kinds), 4.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for one in tagged:
            if (one.backend, one.what) == kind:
                seconds, sizes = zip(*one.run.samples, strict=True)
                label = f"{duration(one.length)} of sound: peak {one.run.peak / common.MB:.0f} MB"
                axes.plot(seconds, [size / common.MB for size in sizes], label=label, alpha=0.8)
        axes.set_title(f"{kind[1]}, {kind[0]}", fontsize=10)
        axes.set_xscale("log")
        axes.set_xlabel("seconds since the start")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("memory, MB")
    common.save_figure(figure, path)


if __name__ == "__main__":
    cli.run(main)
