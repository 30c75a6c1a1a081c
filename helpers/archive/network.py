"""The second step: a parcel of sound becomes rows of scores, events or embeddings, by the tagger's own functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.sound import Sound
from helpers.archive.decode import Reading, TaskDecoder
from helpers.archive.parcels import Parcel, Piece
from helpers.archive.schema import Settings, to_table
from helpers.tagger.audio_tagger import AudioTagger
from helpers.tagger.reading import ReadOptions, Recording
from helpers.tagger.recording_events import EventFinder
from helpers.tagger.windows import cut_windows, to_samples

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Row:
    """A row of the output, before it is one; values by column, without those that all rows have."""

    piece: Piece
    start: float | None  # seconds
    end: float | None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tagging:
    """What tags, finds events or embeds: how recordings are read, by which models, and what rows hold. Sent to every worker."""

    settings: Settings
    reading: Reading
    schema: pa.Schema
    models: dict[str, Any]  # options of `AudioTagger`
    events: dict[str, Any] = field(default_factory=dict)  # options of `EventFinder`
    about: dict[str, str] = field(default_factory=dict)  # columns that are the same in all rows

    def decoder(self) -> TaskDecoder:
        return TaskDecoder(self.reading)

    def network(self, threads: int | None = None) -> Tagger:
        return Tagger(self, threads)


class Tagger:
    """The models of a worker, loaded once."""

    def __init__(self, work: Tagging, threads: int | None = None) -> None:
        """`threads` of the CPU to compute with (None: one for each core)."""
        is_torch = work.models["backend"] == "torch"
        if threads is not None and is_torch:
            import torch

            torch.set_num_threads(threads)
        self._work = work
        self.taggers = load_taggers(work.settings.models, **work.models)
        for tagger in self.taggers if threads is not None and not is_torch else ():
            tagger.backend = type(tagger.backend)(tagger.backend.path, threads)
        self._suffixes = work.settings.suffixes
        if work.settings.events:
            self._finders = [EventFinder(tagger, **work.events) for tagger in self.taggers]

    def __call__(self, parcel: Parcel, samples: np.ndarray) -> pa.Table:
        """Return the rows of a parcel, in the order of its pieces."""
        sound = [(piece, own) for piece, own in zip(parcel.pieces, parcel.waveforms(samples), strict=True) if piece.error is None]
        settings = self._work.settings
        compute = self._events if settings.events else self._windows if settings.window else self._whole
        rows = compute(sound) if sound else []
        failures = [Row(piece, None, None) for piece in parcel.pieces if piece.error is not None]
        ordered = sorted([*rows, *failures], key=lambda row: row.piece.position)  # rows of a piece stay in their order
        return self._table(ordered)

    def _whole(self, sound: Sequence[tuple[Piece, np.ndarray]]) -> list[Row]:
        """Scores and embeddings of recordings or their parts; those of similar length are computed together."""
        ordered = sorted(sound, key=lambda one: one[0].samples)
        values: list[dict[str, Any]] = [{} for _ in ordered]
        for tagger, suffix in zip(self.taggers, self._suffixes, strict=True):
            recordings = [_recording(piece, samples, tagger.sample_rate) for piece, samples in ordered]
            for own, average in zip(values, tagger.averages(recordings), strict=True):
                own |= self._values(average.scores, average.embedding, suffix)
        return [Row(piece, piece.start, piece.end, own) for (piece, _), own in zip(ordered, values, strict=True)]

    def _windows(self, sound: Sequence[tuple[Piece, np.ndarray]]) -> Iterator[Row]:
        settings = self._work.settings
        for piece, samples in sound:
            rows: list[Row] = []
            for tagger, suffix in zip(self.taggers, self._suffixes, strict=True):
                lengths = to_samples(settings.window, settings.hop, tagger.sample_rate)
                windows = cut_windows([samples], *lengths)
                for number, (start, end, *results) in enumerate(tagger.compute_windows(windows, tagger.overlapping(*lengths))):
                    if number == len(rows):
                        rows.append(Row(piece, piece.start + start, piece.start + end, {}))
                    rows[number].values.update(self._values(*results, suffix))
            yield from rows

    def _events(self, sound: Sequence[tuple[Piece, np.ndarray]]) -> Iterator[Row]:
        """A row for each event; one without a label for a piece that has none."""
        for piece, samples in sound:
            is_silent = True
            for tagger, suffix, find in zip(self.taggers, self._suffixes, self._finders, strict=True):
                for event in find(_recording(piece, samples, tagger.sample_rate)):
                    is_silent = False
                    label = tagger.labels.index(event.label)
                    yield Row(piece, event.start, event.end, {f"label{suffix}": label, f"score{suffix}": event.score})
            if is_silent:
                yield Row(piece, piece.start, piece.end)

    def _values(self, scores: np.ndarray, embedding: np.ndarray, suffix: str) -> dict[str, Any]:
        settings, values = self._work.settings, {}
        if settings.embed:
            values[f"embedding{suffix}"] = embedding
        if settings.top_k is not None:
            best = np.argsort(-scores, kind="stable")[: settings.top_k]
            values |= {f"labels{suffix}": best, f"label_scores{suffix}": scores[best]}
        else:
            values[f"scores{suffix}"] = scores
        return values

    def _table(self, rows: Sequence[Row]) -> pa.Table:
        columns: dict[str, Sequence[Any]] = {
            "source": [row.piece.source for row in rows],
            "start": [row.start for row in rows],
            "end": [row.end for row in rows],
            "channel": [row.piece.channel for row in rows],
            "warnings": [row.piece.warnings for row in rows],
            "error": [row.piece.error for row in rows],
            "error_kind": [row.piece.error_kind for row in rows],
        }
        columns |= {name: [value] * len(rows) for name, value in self._work.about.items()}
        own = set(self._work.schema.names) - set(columns)
        return to_table(columns | {name: [row.values.get(name) for row in rows] for name in own}, self._work.schema)


def load_taggers(names: Sequence[str], *, cuda: bool, backend: str, **options: Any) -> list[AudioTagger]:
    device = ("cuda" if cuda else "cpu") if backend == "torch" else None
    return [AudioTagger(name, device, backend, **options) for name in names]


def _recording(piece: Piece, samples: np.ndarray, rate: int) -> Recording:
    sound = Sound(piece.source, rate, 1, iter([samples]), [])
    return Recording(sound, rate, ReadOptions(start=piece.start or 0.0, channel=piece.channel))
