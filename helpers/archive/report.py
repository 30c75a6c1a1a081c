"""What a run says: its progress, and a report at its end, which is kept as report.json."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helpers.archive.parcels import Counts

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 60.0  # between lines of progress where standard error is no terminal


class Progress:
    """A bar of recordings on a terminal, else a line a minute: throughput, and when it will be done."""

    def __init__(self, recordings: int) -> None:
        self.recordings = recordings  # of the archive
        self.counts = Counts()
        self._begin = self._told = time.monotonic()
        self.start_seconds = 0.0  # until the first rows were there
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=recordings, unit="recording", smoothing=0.05)

    def __call__(self, counts: Counts) -> None:
        self.counts.add(counts)
        if counts.recordings and not self.start_seconds:
            self.start_seconds = self.wall_seconds
        if self._bar:
            self._bar.set_postfix_str(self._speed(), refresh=False)
            self._bar.update(counts.recordings + counts.staged)
        elif time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            print(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Return the progress in one line."""
        recordings, done = self.counts.recordings, self.counts.staged + self.counts.recordings
        left = (self.recordings - done) * self.wall_seconds / max(1, recordings)
        return f"{done:,} of {self.recordings:,} recordings, {self._speed()}, {_time(left)} left"

    @property
    def wall_seconds(self) -> float:
        return time.monotonic() - self._begin

    def close(self) -> None:
        if self._bar:
            self._bar.close()

    def _speed(self) -> str:
        speed = self.counts.seconds / max(1e-3, self.wall_seconds)
        return f"{self.counts.seconds / 3600:.1f} h, {speed:.0f} s of sound a second"


def run_report(progress: Progress) -> dict[str, Any]:
    """Return what one run did; `core_seconds` are CPU time of its workers."""
    counts, wall_seconds = progress.counts, progress.wall_seconds
    core = counts.decode_seconds + counts.network_seconds + counts.write_seconds
    return {
        "recordings": counts.recordings,
        "hours": round(counts.seconds / 3600, 4),
        "failures": dict(sorted(counts.failures.items())),
        "warnings": counts.warnings,
        "wall_seconds": round(wall_seconds, 1),
        "start_seconds": round(progress.start_seconds, 1),
        "core_seconds": {
            "decode": round(counts.decode_seconds, 1),
            "network": round(counts.network_seconds, 1),
            "write": round(counts.write_seconds, 1),
        },
        "audio_seconds_per_second": round(counts.seconds / max(1e-3, wall_seconds), 1),
        "audio_seconds_per_core_second": round(counts.seconds / max(1e-3, core), 1),
    }


def report_lines(recordings: int, failures: Mapping[str, int], run: dict[str, Any]) -> list[str]:
    """Return the report that is printed: about the whole archive, then about this run."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(failures.items()))
    lines = [f"{recordings:,} recordings, {f'{sum(failures.values()):,} failed ({kinds})' if kinds else 'none failed'}"]
    if run["recordings"]:
        lines.append(
            f"this run: {run['recordings']:,} recordings, {run['hours']:.2f} h of sound in {_time(run['wall_seconds'])}, "
            f"{run['audio_seconds_per_second']:.0f} s of sound a second, {run['audio_seconds_per_core_second']:.0f} a core second"
        )
    return lines


def _time(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
