"""What inference.py does with files: tags, timelines and events of recordings, printed or written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from helpers.inference.event_files import event_lines, events_suffix, header
from helpers.inference.options import decoding_options, event_options, open_inputs, reading_options
from helpers.inference.sources import Inputs
from helpers.median_filter import MEDIAN_FRAMES
from helpers.tagger.audio_tagger import HOP_SECONDS, WINDOW_SECONDS
from helpers.tagger.events import RecordingEvents
from helpers.tagger.reading import ReadOptions, Recording, each_recording, to_read_again
from helpers.tagger.recording_events import EventFinder
from helpers.tagger.results import Failure, Tagging
from helpers.tagger.rows import COLUMNS, csv_lines, result_lines
from helpers.tagger.run_files import RunFile
from helpers.tagger.selection import Selection
from helpers.tagger.windows import to_samples
from models.command import printable
from models.errors import UserError

if TYPE_CHECKING:
    from helpers.inference.sources import Result
    from helpers.tagger.audio_tagger import AudioTagger

TOP_K, TOP_K_WINDOW = 10, 3


def tag_recordings(tagger: AudioTagger, args: argparse.Namespace, inputs: Inputs, run: RunFile | None) -> int:
    """Tag recordings or their windows, or find their events; print results, or write them to a run's file. Return the exit code."""
    if run:
        inputs.skip(run.done.__contains__, len(run.done))
    has_events = args.events or (args.plot and tagger.step_seconds is not None)
    if has_events and args.whole:
        raise UserError("--plot draws the events of a frame-wise model, in frames; --whole means nothing to them, leave it out")
    groups = inputs.follow(_event_results(tagger, args, inputs) if has_events else _tag_results(tagger, args, inputs))
    if run:
        with run:
            _write(run, groups)
        print(f"{printable(run.path)}: {run.summary()}", file=sys.stderr)
        return 1 if run.failed else inputs.code
    if inputs.is_one and not args.window and not args.per_channel and not has_events:
        for _, [tags] in groups:
            print_published(tags)
    else:
        print_results(groups, windows=args.window is not None)
    return inputs.code


def _event_results(tagger: AudioTagger, args: argparse.Namespace, inputs: Inputs) -> Iterable[Result]:
    """Find events."""
    find = EventFinder(tagger, **event_options(args), classes=tagger.classes(args.labels), window=args.window, hop=args.hop)
    if args.plot:
        return _plot_events(find, args, inputs)
    files = {"per_channel": args.per_channel, **decoding_options(args, inputs)}
    recordings = tagger.open_files(open_inputs(inputs), options=ReadOptions(**reading_options(args)), **files)
    return each_recording(recordings, lambda recording: [find(recording)])


def _tag_results(tagger: AudioTagger, args: argparse.Namespace, inputs: Inputs) -> Iterable[Result]:
    """Tag recordings or their windows."""
    if isinstance(args.threshold, str):
        raise UserError(
            f"--threshold {args.threshold}: thresholds of classes go with --events of a frame-wise model; give a number"
        )
    if args.median is not None:
        raise UserError("--median needs a frame-wise model; leave it out")
    windows = {"window": args.window or WINDOW_SECONDS, "hop": args.hop or HOP_SECONDS}
    to_samples(**windows, rate=tagger.sample_rate)  # impossible ones are one error, not one for each recording
    tags = {
        "top_k": args.top_k or (TOP_K_WINDOW if args.window else TOP_K),
        "threshold": args.threshold or 0.0,
        "labels": args.labels,
    }
    if args.plot:
        return _plot(tagger, args, inputs, windows, tags)
    files = {"per_channel": args.per_channel, **decoding_options(args, inputs)}
    sources = open_inputs(inputs)
    if not args.window:
        return tagger.tag_files(sources, **tags, **reading_options(args), **files)
    recordings = tagger.open_files(sources, options=ReadOptions(**reading_options(args)), **files)
    select = Selection(tagger.labels, tags["top_k"], tags["threshold"], tagger.classes(args.labels))
    return each_recording(recordings, lambda recording: _windows(tagger, recording, windows, select))


def _windows(tagger: AudioTagger, recording: Recording, windows: dict[str, float], select: Selection) -> Iterator[Tagging]:
    for start, end, scores in tagger.iter_windows(recording, **windows, warnings=[]):
        yield Tagging(recording.name, start, end, select(scores), channel=recording.channel)


def _plot(
    tagger: AudioTagger, args: argparse.Namespace, inputs: Inputs, windows: dict[str, float], tags: dict[str, Any]
) -> list[Tagging]:
    """Draw the timeline of one recording, which is read twice; return its tags, or those of its windows."""
    from helpers.tagger.timeline_figure import timeline_figure  # imports matplotlib

    [source] = open_inputs(inputs)
    audio, name = to_read_again(source)
    timeline = tagger.tag_windows(audio, **windows, **tags, **reading_options(args), name=name)
    timeline_figure(audio, timeline, args.plot, count=args.top_k or TOP_K)
    if args.window:
        return [*timeline[:-1], replace(timeline[-1], warnings=timeline.warnings)]
    return [tagger.tag(audio, **tags, **reading_options(args), name=name)]


def _plot_events(find: EventFinder, args: argparse.Namespace, inputs: Inputs) -> list[RecordingEvents]:
    """Draw the events of one recording, which is read twice, above the scores of its frames; return them."""
    from helpers.tagger.events_figure import events_figure  # imports matplotlib

    [source] = open_inputs(inputs)
    audio, name = to_read_again(source)
    window, hop = find.windows
    frames = find.tagger.frames(audio, window=window, hop=hop, name=name, **reading_options(args))
    events = frames.events(find.threshold, find.median_frames or MEDIAN_FRAMES, args.labels)
    events_figure(audio, frames, events, args.plot, count=args.top_k or TOP_K, labels=args.labels)
    return [events]


def _write(run: RunFile, groups: Iterable[tuple[str, Iterator[Result]]]) -> None:
    """Write results in the format that the name of the run's file ends in."""
    suffix = events_suffix(run.path)
    for source, results in groups:
        rows = failed = warnings = 0
        for result in results:
            text, count = _text(result, suffix, run.rows + rows, is_first=run.size == 0)
            run.write(text.encode("utf-8", "backslashreplace"))  # names may be no UTF-8
            rows += count
            failed += isinstance(result, Failure)
            warnings += 0 if isinstance(result, Failure) else len(result.warnings)
        run.finish_recording(source, rows=rows, failed=failed > 0, warnings=warnings)
    if suffix == ".csv" and run.size == 0:  # all failed
        run.write(csv_lines([], COLUMNS, header=True).encode())


def _text(result: Result, suffix: str, count: int, *, is_first: bool) -> tuple[str, int]:
    """Return a result as lines of a file that has `count` rows, and how many rows these are."""
    if suffix in (".jsonl", ".csv"):
        return result_lines(result, suffix, header=is_first), 1 if suffix == ".jsonl" else len(result.to_rows())
    head = header(suffix) if is_first else ""
    if not isinstance(result, RecordingEvents):  # a failure, for which such files have no place
        return head, 0
    return head + event_lines(result, suffix, count), len(result.events)


def print_published(tags: Tagging) -> None:
    """Print one recording in the form of the published code."""
    print("************* Acoustic Event Detected: *****************")
    for tag in tags:
        print(f"{printable(tag.label)}: {tag.score:.3f}")
    print("********************************************************")


def print_results(groups: Iterable[tuple[str, Iterator[Result]]], *, windows: bool) -> None:
    """Print recordings, each with its tags, its timeline or its events below its name."""
    from tqdm import tqdm  # takes 20 ms, which `print_published` saves

    for source, results in groups:
        last = None
        for result in results:
            if isinstance(result, Failure):
                continue
            heading = source if result.channel is None else f"{source}, channel {result.channel}"
            lines = [heading] if heading != last else []
            last = heading
            if isinstance(result, RecordingEvents):
                lines += [f"{event.start:9.2f} {event.end:9.2f}  {event.label} {event.score:.3f}" for event in result]
            elif windows:
                tags = ", ".join(f"{tag.label} {tag.score:.3f}" for tag in result)
                lines.append(f"{result.start:9.2f} {result.end:9.2f}  {tags or '-'}")
            else:
                lines += [f"  {tag.label}: {tag.score:.3f}" for tag in result]
            tqdm.write("\n".join(map(printable, lines)))
