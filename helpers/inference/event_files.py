"""Text formats of events that other programs read, chosen by the end of a file's name.

| name | format |
|---|---|
| .csv | a row for each event: source, start, end, label, score (the highest), mean |
| .jsonl | a line for each recording, with a list of its events |
| .selections.txt | Raven's selection table, tab-separated |
| .rttm | NIST's Rich Transcription Time Marked, one line for each event |
| .txt | Audacity's label track; one recording |
| .srt | SubRip subtitles; one recording |

Times are in seconds from the beginning of the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath

from helpers.tagger.events import Event, RecordingEvents
from helpers.tagger.rows import checked_path
from models.command import printable

SUFFIXES = (".csv", ".jsonl", ".selections.txt", ".rttm", ".txt", ".srt")
ONE_RECORDING = (".txt", ".srt")  # have no place for a recording's name
PRINTED = Path("-")  # in place of a file
RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
    "Begin File", "Begin Path", "File Offset (s)", "Annotation", "Score", "Mean Score",
)  # fmt: skip


def events_path(text: str | Path) -> Path:
    """Return the path of a file of events; `UserError` for another suffix and for a folder."""
    return checked_path(text, SUFFIXES, "events")


def events_suffix(path: Path) -> str:
    """Return which of `SUFFIXES` a path ends in, the longest one."""
    return max((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), key=len)


def header(suffix: str) -> str:
    """Return the first line of a format that has one, but for .csv, whose columns depend on the results."""
    return "\t".join(RAVEN_COLUMNS) + "\n" if suffix == ".selections.txt" else ""


def event_lines(recording: RecordingEvents, suffix: str, count: int = 0) -> str:
    """Return the events of a recording in one of `LINES`; `count` events are in the file already."""
    return "".join(LINES[suffix](recording, event, number) for number, event in enumerate(recording.events, count + 1))


def _raven(recording: RecordingEvents, event: Event, number: int) -> str:
    start, end = f"{event.start:.6f}", f"{event.end:.6f}"
    path = PurePath(recording.source)
    cells = [str(number), "Spectrogram 1", str(recording.channel or 1), start, end, "0", f"{recording.sample_rate / 2:g}"]
    cells += [path.name, str(path), start, event.label, f"{event.score:.3f}", f"{event.mean:.3f}"]
    return "\t".join(map(_one_line, cells)) + "\n"


def _audacity(recording: RecordingEvents, event: Event, number: int) -> str:
    return f"{event.start:.6f}\t{event.end:.6f}\t{_one_line(event.label)}\n"


def _subtitle(recording: RecordingEvents, event: Event, number: int) -> str:
    return f"{number}\n{_clock(event.start)} --> {_clock(event.end)}\n{_one_line(event.label)}\n\n"


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    return f"{milliseconds // 3600000:02}:{milliseconds // 60000 % 60:02}:{milliseconds // 1000 % 60:02},{milliseconds % 1000:03}"


def _rttm(recording: RecordingEvents, event: Event, number: int) -> str:
    """The file is the path without its suffix; names hold no spaces."""
    name, label = (
        "_".join(_one_line(text).split()) for text in (PurePath(recording.source).with_suffix("").as_posix(), event.label)
    )
    times = f"{event.start:.3f} {event.end - event.start:.3f}"
    return f"SPEAKER {name} {recording.channel or 1} {times} <NA> <NA> {label} {event.score:.3f} <NA>\n"


LINES: dict[str, Callable[[RecordingEvents, Event, int], str]] = {
    ".selections.txt": _raven,
    ".txt": _audacity,
    ".srt": _subtitle,
    ".rttm": _rttm,
}
