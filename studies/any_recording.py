"""Is any recording read whole, or refused aloud? Files of every kind, whole and damaged, next to FFmpeg's decoding of them.

    python -m studies.any_recording --output recordings.csv

Makes undamaged recordings of many formats, rates and channels, others of unusual structure, and damaged ones; reads each with the
project and with a plain loop over PyAV. Sound that the loop finds and the project leaves out without a warning is a silent loss,
and so is an undamaged recording whose samples differ. Fails if there is one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
from tqdm import tqdm

from benchmarks.common import machine, print_table
from datasets.csv_table import write_results
from helpers import cli
from models.errors import UserError
from studies.recordings import kinds
from studies.recordings.kinds import Recording
from studies.recordings.reading import LOST, REFUSED, WARNED, WHOLE, Verdict, judge, read

OUTCOMES = {WHOLE: "read whole", WARNED: "warned", REFUSED: "refused", LOST: "silent losses"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--output", type=Path, help="CSV file of every recording and what came of it")
    parser.add_argument("--seconds", type=cli.positive_float, default=2.0, help="length of each recording, or of its parts")
    parser.add_argument("--only", default="", help="read only kinds whose name begins with this, such as mp3")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    av.logging.set_level(av.logging.PANIC)
    print(machine("av", "soundfile"))
    groups = {
        "undamaged": kinds.whole(args.seconds, args.only),
        "unusual, nothing missing": kinds.unusual(args.seconds, args.only),
        "damaged": kinds.damaged(args.seconds, args.only),
    }
    rows, losses = [], []
    for group, recordings in groups.items():
        verdicts = judge_all(recordings, group)
        print_group(group, verdicts)
        rows += [(group, one.kind, one.details, len(one.content), verdict.outcome, verdict.reason) for one, verdict in verdicts]
        losses += [f"{one.kind}, {one.details}: {verdict.reason}" for one, verdict in verdicts if verdict.outcome == LOST]
    if args.output:
        write_results(args.output, [("group", "kind", "details", "bytes", "outcome", "reason"), *rows])
    if losses:
        raise UserError(f"sound is lost in silence in {len(losses)} of {len(rows)} recordings: {'; '.join(losses)}")
    print(f"\n{len(rows)} recordings, no silent loss")
    return 0


def judge_all(recordings: Iterable[Recording], group: str) -> list[tuple[Recording, Verdict]]:
    return [
        (one, judge(read(one.content), one.content, seconds=one.seconds, same_sound=group == "undamaged"))
        for one in tqdm(recordings, desc=group, disable=None)
    ]


def print_group(group: str, verdicts: Sequence[tuple[Recording, Verdict]]) -> None:
    """Print how many recordings of each family of kinds came out how."""
    counts: dict[str, Counter[str]] = {}
    for recording, verdict in verdicts:
        counts.setdefault(recording.kind.partition(",")[0], Counter())[verdict.outcome] += 1
    counts["all"] = sum(counts.values(), Counter())
    rows = [(family, count.total(), *(count[outcome] for outcome in OUTCOMES)) for family, count in counts.items()]
    print_table(group, ("kind", "files", *OUTCOMES.values()), rows)


if __name__ == "__main__":
    cli.run(main)
