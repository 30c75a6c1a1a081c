"""Frame-wise models on long sound: what windows change, how late streams are, how long it takes, next to a model that tags clips.

    python -m benchmarks.frames --model_name runs/audioset_strong/best.pt
    python -m benchmarks.frames --model_name fmn10+tf-256 --seconds 60

The sound is made of the bundled recordings, unless one is given.

windows: frame scores of the sound in windows of 10 s, for several margins whose frames are dropped on each side, against the scores
of all of it in one piece, and against windows that begin elsewhere, whose seams so lie elsewhere. Both differ from what is dropped
for lack of context, and by squeeze-and-excitation, which averages over a window. The first and the last 10 s are left out. "events"
is the F1 of the events of both, at a threshold of 0.3, by onset within 200 ms. "seams" is the mean change of a score from frame
to frame where a window takes over from another, divided by that between all frames: 1 where no seam shows.

stream: seconds of sound after which an event is reported, counted from its beginning or end, in pieces of 100 ms, from 20 s on; and
the time to compute a window.

time: processor time for a second of sound on one thread, the median over rounds in which all variants take turns: events of files,
in windows of the default lengths, and of streams.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import machine, print_table
from benchmarks.input_speed import bundled_waveforms
from datasets.sound import open_sound
from datasets.strong_labels import LabelledEvent
from helpers import cli
from helpers.frame_windows import FADE, FRAME_WINDOW, FrameWindows, SeamlessFrames
from helpers.probing.scoring import count_matches
from helpers.tagger import AudioTagger, StreamTagger
from helpers.tagger.event_decoding import decode

MARGINS = (0.0, 0.5, 1.0, 2.0, 3.0)  # seconds
SHIFT = 3.0  # seconds, of the windows that begin elsewhere
EDGES = 10.0  # seconds at both ends that are not compared
COLLAR = 0.2  # seconds
PIECE = 7.0  # seconds of each bundled recording at a time
WINDOW_COLUMNS = ("margin, s", "against", "largest", "99.9 %", "mean", "F1 of events", "change at seams, times that elsewhere")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=cli.HelpFormatter)
    parser.add_argument("--model_name", required=True, help="a frame-wise model: a name, or the path of a checkpoint")
    parser.add_argument("--clip_model", default="mn04_distilled", help="a model that tags clips, to compare the time with")
    parser.add_argument("--audio_path", type=Path, help="a recording")
    parser.add_argument("--seconds", type=cli.positive_float, default=300.0, help="length of the sound, at most")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="timed runs of each variant")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    import torch

    torch.set_num_threads(1)
    print(machine("torch", "onnxruntime", "numpy"))
    tagger = AudioTagger(args.model_name, "cpu")
    sound = load(args.audio_path, args.seconds, tagger.sample_rate)
    seconds = len(sound) / tagger.sample_rate
    about = f"{Path(args.model_name).name}, {seconds:g} s"
    print_table(f"windows: {about}", WINDOW_COLUMNS, compare_windows(tagger, sound))
    print_table(f"stream: {about}", ("reported after, s", "at most, s", "computing a window, ms"), [follow_stream(tagger, sound)])
    print_table(f"time: {about}", ("", "ms per second", "times real time"), measure_time(args, tagger, sound))
    return 0


def load(path: Path | None, seconds: float, rate: int) -> np.ndarray:
    """Return a sound (samples,) at `rate`: that of a file, or the bundled recordings one after the other."""
    if path is not None:
        return np.concatenate(list(open_sound(path, end=seconds).at_rate(rate)))
    pieces = bundled_waveforms(PIECE, -(-round(seconds) // round(PIECE)), 0).values()
    return np.concatenate(list(open_sound(np.concatenate(list(pieces)), 32000, end=seconds).at_rate(rate)))


def compare_windows(tagger: AudioTagger, sound: np.ndarray) -> list[tuple[str, ...]]:
    """Return a row for each margin and what it is compared with."""
    step, rate = tagger.step_seconds, tagger.sample_rate
    [(whole, _)] = tagger.backend.frames([sound])
    inner = slice(round(EDGES / step), len(whole) - round(EDGES / step))
    rows = []
    for margin in MARGINS:
        cut = FrameWindows.of_seconds(rate, step, FRAME_WINDOW, FRAME_WINDOW - 2 * margin - FADE, margin)
        scores = in_windows(tagger, cut, sound)
        skipped = round(SHIFT / step)
        shifted = np.concatenate([scores[:skipped], in_windows(tagger, cut, sound[skipped * cut.step :])])
        seams = f"{change_at_seams(scores, cut):.2f}"
        for name, other in (("the whole", whole), ("windows elsewhere", shifted)):
            rows.append((f"{margin:g}", name, *differences(scores[inner], other[inner], step), seams))
    return rows


def change_at_seams(scores: np.ndarray, cut: FrameWindows) -> float:
    """Return the mean change of scores (T, K) where a window takes over, by that from any frame to the next."""
    changes = np.abs(np.diff(scores, axis=0)).mean(1)
    firsts = np.arange(cut.window - cut.margin - cut.fade, (len(scores) - 1) * cut.step - cut.fade, cut.hop) // cut.step
    seams = firsts[:, None] + np.arange(-1, cut.fade // cut.step)
    return float(changes[seams].mean() / changes.mean())


def in_windows(tagger: AudioTagger, cut: FrameWindows, sound: np.ndarray) -> np.ndarray:
    frames = SeamlessFrames(cut, tagger.backend.frames).all(cut.cut(sound), tagger.batch_size)
    return np.concatenate([scores for scores, _ in frames])


def differences(scores: np.ndarray, others: np.ndarray, step: float) -> tuple[str, ...]:
    """Return the largest, a high and the mean difference of scores (T, K), and the F1 of their events."""
    difference = np.abs(scores - others)
    return (
        f"{difference.max():.3f}",
        f"{np.quantile(difference, 0.999):.4f}",
        f"{difference.mean():.1e}",
        f"{agreement(*(onsets(values, step) for values in (scores, others))):.3f}",
    )


def onsets(scores: np.ndarray, step: float) -> list[LabelledEvent]:
    labels = tuple(map(str, range(scores.shape[1])))
    return [LabelledEvent(event.start, event.end, int(event.label)) for event in decode(scores, step, labels=labels)]


def agreement(events: Sequence[LabelledEvent], others: Sequence[LabelledEvent]) -> float:
    """Return the F1 of two lists of events, by onset."""
    found = 0
    for k in {event.class_index for event in events}:
        starts = [[event.onset for event in part if event.class_index == k] for part in (events, others)]
        found += count_matches(*starts, COLLAR)
    return 2 * found / max(1, len(events) + len(others))


def follow_stream(tagger: AudioTagger, sound: np.ndarray) -> tuple[str, ...]:
    """Return the median and the longest time until an event is reported, and how long a window takes."""
    rate, waits, times = tagger.sample_rate, [], []
    live, piece = StreamTagger(tagger, rate), tagger.sample_rate // 10
    for start in range(0, len(sound), piece):
        before, heard = time.perf_counter(), (start + piece) / rate
        windows = live.windows(sound[start : start + piece])
        if windows:
            times.append(time.perf_counter() - before)
        for event in (event for window in windows for event in live.track(*window)):
            moment = event.start if event.end is None else event.end
            if moment > 2 * FRAME_WINDOW:
                waits.append(heard - moment)
    reported = (f"{median(waits):.2f}", f"{max(waits):.2f}") if waits else ("no events", "")
    return *reported, f"{1e3 * median(times):.0f}"


def measure_time(args: argparse.Namespace, tagger: AudioTagger, sound: np.ndarray) -> list[tuple[str, ...]]:
    """Return a row for each variant."""
    part = sound[: 60 * tagger.sample_rate]
    rate, seconds = tagger.sample_rate, len(part) / tagger.sample_rate
    variants: dict[str, Callable[[], object]] = {}
    for backend in ("torch", "onnx"):
        one = AudioTagger(args.model_name, backend=backend, batch_size=1)
        clips = AudioTagger(args.clip_model, backend=backend, batch_size=1)
        for model in (one, clips):
            if backend == "onnx":
                model.backend = type(model.backend)(model.backend.path, threads=1)
        variants[f"frames of files, {backend}"] = partial(one.events, part, rate)
        variants[f"frames of a stream, {backend}"] = partial(stream_events, one, part)
        variants[f"{args.clip_model}, windows of files, {backend}"] = partial(clips.events, part, rate)
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.rounds):
        for name, run in variants.items():
            before = time.process_time()
            run()
            spent[name].append(time.process_time() - before)
    medians = {name: median(values) / seconds for name, values in spent.items()}
    return [(name, f"{1e3 * value:.1f}", f"{1 / value:.0f}") for name, value in medians.items()]


def stream_events(tagger: AudioTagger, sound: np.ndarray) -> None:
    live = StreamTagger(tagger, tagger.sample_rate)
    for start in range(0, len(sound), tagger.sample_rate):
        live.feed(sound[start : start + tagger.sample_rate])
    live.finish()


if __name__ == "__main__":
    cli.run(main)
