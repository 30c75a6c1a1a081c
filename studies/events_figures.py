"""Figures of studies.events: scores by model, and one scene with what is true and what is found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datasets.strong_labels import LabelledEvent
from helpers.tagger.timeline_figure import RATE, draw_spectrogram, log_mel_picture, name_rows
from models.files import write_atomically
from studies.common import Scores

MEASURES = {"psds1": "PSDS1", "psds2": "PSDS2", "event_f1": "event-based F1", "segment_f1": "segment F1"}
COLOURS = ("0.35", "tab:orange", "tab:blue")  # of truth and of what is found
MOST_FALSE_ROWS = 4  # classes of a scene that are found and not there

__all__ = ["RATE", "draw_scene", "draw_scores"]


def draw_scores(path: Path, scores: Scores, names: Mapping[str, str]) -> None:
    """Draw each measure by model: a point for each seed, a line for their mean."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for place, arm in enumerate(scores):
            values = [run[measure] for run in scores[arm]]
            mean = statistics.mean(values)
            axes.vlines(mean, place - 0.3, place + 0.3, color="tab:blue")
            axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.6)
            axes.annotate(f"{mean:.3f}", (mean, place + 0.32), ha="center", va="top", fontsize=9)
        axes.set(title=title, xlim=(0, 1.25 * max(run[measure] for runs in scores.values() for run in runs) + 0.01))
        axes.grid(axis="x", alpha=0.3)
    labels = [names[arm].replace(", ", ",\n") for arm in scores]
    panels[0].set_yticks(range(len(scores)), labels, fontsize=9)
    panels[0].set_ylim(len(scores) - 0.3, -0.6)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def draw_scene(
    path: Path, waveform: np.ndarray, events: Mapping[str, Sequence[LabelledEvent]], labels: Sequence[str], title: str
) -> None:
    """Draw the spectrogram of (samples,) at `RATE` above a row for each class with a bar for each event.

    `events` are "truth" and those that models find. Rows are the classes of the truth, then others that were found, longest first.
    """
    seconds = len(waveform) / RATE
    true = {event.class_index: event.onset for event in reversed(events["truth"])}
    false: dict[int, float] = {}
    for found in events.values():
        for event in found:
            if event.class_index not in true:
                false[event.class_index] = false.get(event.class_index, 0.0) + event.offset - event.onset
    rows = [*sorted(true, key=true.__getitem__), *sorted(false, key=lambda k: -false[k])[:MOST_FALSE_ROWS]]
    figure = Figure(figsize=(11, 3.6 + 0.5 * len(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 0.5 * len(rows) + 0.2])
    draw_spectrogram(above, log_mel_picture([waveform], seconds), title, 0, seconds)
    height = 0.8 / len(events)
    for place, ((who, found), colour) in enumerate(zip(events.items(), COLOURS, strict=True)):
        for row, k in enumerate(rows):
            bars = [(event.onset, event.offset - event.onset) for event in found if event.class_index == k]
            below.broken_barh(bars, (row - 0.4 + place * height, 0.9 * height), color=colour, label=who if row == 0 else None)
    name_rows(below, [labels[k] for k in rows])
    below.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(events), fontsize="small", frameon=False)
    below.set_xlim(0, seconds)
    below.set_xlabel("seconds")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
