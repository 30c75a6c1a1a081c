"""The timeline of a recording as a figure, drawn without a display. Importing this imports matplotlib, but not torch.

The spectrogram has a log-mel of its own, in numpy, so that every backend can draw and an hour of sound takes constant memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from datasets.sound import open_sound
from helpers.tagger.events import cell_edges
from helpers.tagger.results import Timeline
from models.errors import UserError
from models.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from datasets.sound import AudioSource

RATE, N_FFT, BANDS = 32000, 1024, 64  # of the picture, not of a model
COLUMNS = 1500  # of the spectrogram at most, more than its pixels
LABEL_CHARACTERS = 32


def timeline_figure(
    audio: AudioSource, timeline: Timeline, path: str | Path, sample_rate: float | None = None, *, count: int = 10
) -> None:
    """Draw a log-mel spectrogram above the scores of the `count` classes with the highest scores, on one time axis.

    The part of `audio` is read once more, in constant memory. Each window is drawn as its cell, see `helpers.tagger.events`. The
    suffix of `path` decides the format; the file appears under its name when it is complete.
    """
    path = Path(path)
    if count < 1:
        raise UserError(f"count is {count}; it must be 1 or more")
    start, end = float(timeline.starts[0]), float(timeline.ends[-1])
    seconds = end - start
    sound = open_sound(audio, sample_rate, name=timeline.source, start=start, end=end, channel=timeline.channel)
    picture = log_mel_picture(sound.at_rate(RATE), seconds)
    allowed = np.arange(len(timeline.labels)) if timeline.classes is None else np.asarray(timeline.classes)
    best = allowed[np.argsort(-timeline.scores[:, allowed].max(0), kind="stable")[:count]]
    unit, per_unit = unit_of_time(end)
    edges = cell_edges(timeline.starts, timeline.ends) / per_unit

    figure = Figure(figsize=(11, 3.4 + 0.3 * len(best)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 0.3 * len(best) + 0.2])
    draw_spectrogram(above, picture, timeline.source, start / per_unit, end / per_unit)

    scores = timeline.scores[:, best].T  # (classes, windows)
    mesh = below.pcolormesh(edges, np.arange(len(best) + 1) - 0.5, scores, cmap="Blues", vmin=0, vmax=1)
    name_rows(below, [timeline.labels[k] for k in best])
    below.set_xlim(start / per_unit, end / per_unit)
    below.set_xlabel(unit)
    figure.colorbar(mesh, ax=below, label="score", pad=0.01)
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=130))


def unit_of_time(seconds: float) -> tuple[str, int]:
    """Return the unit of an axis that ends at `seconds`, and how many seconds it has."""
    return ("hours", 3600) if seconds > 7200 else ("minutes", 60) if seconds > 180 else ("seconds", 1)


def draw_spectrogram(axes: Axes, picture: np.ndarray, title: str, start: float, end: float) -> None:
    """Draw what `log_mel_picture` returns from `start` to `end`, in the unit of the axis."""
    axes.set_title(_shortened(title, 90), loc="left", fontsize="medium", parse_math=False)
    low = np.quantile(picture, 0.02)  # not the minimum: digital silence would take all of the scale
    image = axes.imshow(
        picture, origin="lower", aspect="auto", cmap="magma", extent=(start, end, 0, BANDS),
        vmin=max(low, picture.max() - 80), vmax=picture.max() + 1e-3, interpolation="nearest",
    )  # fmt: skip
    ticks = [hertz for hertz in (100, 500, 1000, 2000, 4000, 8000) if hertz < RATE / 2]
    axes.set_yticks([_mel(hertz) / _mel(RATE / 2) * BANDS for hertz in ticks], [f"{hertz:g}" for hertz in ticks], fontsize="small")
    axes.set_ylabel("Hz, mel scale")
    axes.figure.colorbar(image, ax=axes, label="dB", pad=0.01)


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label rows of height 1 around 0, 1, 2, ... from the top, with lines between them."""
    axes.set_yticks(
        range(len(labels)), [_shortened(label, LABEL_CHARACTERS) for label in labels], fontsize="small", parse_math=False
    )
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(axis="y", which="minor", color="0.85", linewidth=0.8)
    axes.tick_params(axis="y", which="minor", length=0)


def log_mel_picture(blocks: Iterable[np.ndarray], seconds: float) -> np.ndarray:
    """Sound at 32 kHz -> power in dB (bands, columns). A column is the mean of its frames, so that memory is constant."""
    hop = N_FFT // 2
    frames = max(1, math.ceil(seconds * RATE / hop))
    columns = min(COLUMNS, frames)
    window, bank = np.hanning(N_FFT).astype(np.float32), _mel_bank()
    power, counts = np.zeros((columns, BANDS)), np.zeros(columns)
    rest, done = np.zeros(hop, np.float32), 0  # silence before the first frame's middle
    for block in chain(blocks, [np.zeros(hop, np.float32)]):
        rest = np.concatenate([rest, block])
        number = max(0, 1 + (len(rest) - N_FFT) // hop)
        if number == 0:
            continue
        framed = np.lib.stride_tricks.sliding_window_view(rest, N_FFT)[: number * hop : hop]  # (frames, n_fft)
        spectra = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2
        where = np.minimum((done + np.arange(number)) * columns // frames, columns - 1)
        np.add.at(power, where, spectra @ bank)
        np.add.at(counts, where, 1)
        rest, done = rest[number * hop :], done + number
    return 10 * np.log10(power / np.maximum(counts, 1)[:, None] + 1e-8).T


def _mel(hertz: float | np.ndarray) -> float | np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def _mel_bank() -> np.ndarray:
    """Triangles (bins, bands) between 0 and the Nyquist frequency."""
    bins = _mel(np.fft.rfftfreq(N_FFT, 1 / RATE)) / _mel(RATE / 2) * (BANDS + 1)
    distance = np.abs(bins[:, None] - np.arange(1, BANDS + 1))
    return np.maximum(0, 1 - distance).astype(np.float32)


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
