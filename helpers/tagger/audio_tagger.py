"""The tagger: recordings in; labelled scores, timelines and embeddings out. Without torch where another backend computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from datasets.audio import crop_or_pad
from datasets.labels import default_labels
from helpers.devices import available_cores
from helpers.tagger.averaging import Average, average_windows
from helpers.tagger.backends import LAYERS, load_backend
from helpers.tagger.frame_methods import FrameMethods
from helpers.tagger.overlapping import OverlappingWindows
from helpers.tagger.reading import ReadOptions, Recording, each_recording, open_recording, read_ahead, report, with_rates
from helpers.tagger.results import Embedding, Failure, Tagging, Timeline
from helpers.tagger.selection import Selection, find_classes
from helpers.tagger.windows import cut_windows, to_samples
from models.config import POOLINGS, is_number, is_whole
from models.errors import UserError

if TYPE_CHECKING:
    import torch

    from datasets.sound import AudioSource
    from helpers.tagger.reading import Source

WINDOW_SECONDS, HOP_SECONDS = 10.0, 2.5
MAX_PADDING = 60.0  # seconds that short recordings may be padded to

T = TypeVar("T")


class AudioTagger(FrameMethods):
    """A model with its front end, its labels and its device, ready for recordings of any rate, length and channel count.

    Audio is what `datasets.sound.open_sound` takes: a path, bytes, a binary file object, or samples as an array or a tensor with
    their `sample_rate`. All methods raise `FileNotFoundError` for a missing file, `AudioError` for one that cannot be used, and
    `UserError` for an impossible argument.

    `start` and `end` in seconds choose a part of a recording, whose times in results count from the beginning of the recording;
    `channel`, from 1, chooses one channel. A damaged recording is used as far as it can be read; `strict` refuses it. Results hold
    `warnings`; those of methods that return arrays are logged.

    A recording of more than 11 s is computed in windows of 10 s side by side, the last of up to 11 s, in constant memory, and
    gets their mean, each weighted with the time it adds; `whole=True` computes it in one piece, as the published code does. For
    events that are short against the recording, use `tag_windows`.

    Recordings and windows shorter than the clips of the model's training are padded with zeros at their end to that length, where
    the checkpoint gives it (released ones do not). `min_seconds` sets another length; `python -m studies.robustness` compares.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Sequence[str] = "mn10_as",
        device: torch.device | str | None = None,
        backend: str = "torch",
        *,
        batch_size: int = 8,
        min_seconds: float | None = None,
        whole: bool = False,
        layers: str | Sequence[str] = LAYERS,
        pooling: str = POOLINGS[0],
    ) -> None:
        """`model`: a released or bundled name, a checkpoint, or several of them for an ensemble (torch only).

        `device` None is a GPU when there is one, else the CPU (onnx: always the CPU). `batch_size` windows or recordings
        are computed at once (of short windows, as many as hold 10 s of sound); it does not change results. `min_seconds` is the
        length that shorter recordings are padded to (None: the model's own). `whole` computes long recordings in one piece.
        `layers` and `pooling` choose the embedding, see `models.embeddings` (torch only). Errors are those of
        `models.checkpoints.load`.
        """
        names = [model] if isinstance(model, (str, os.PathLike)) else model
        if not isinstance(names, Sequence) or not names or not all(isinstance(name, (str, os.PathLike)) for name in names):
            raise UserError(f"model is {model!r:.100}; pass a name, the path of a file, or a list of them for an ensemble")
        if not is_whole(batch_size) or batch_size < 1:
            raise UserError(f"batch_size is {batch_size!r:.50}; it must be 1 or more")
        if min_seconds is not None and not (is_number(min_seconds) and 0 <= min_seconds <= MAX_PADDING):
            raise UserError(f"min_seconds is {min_seconds!r:.50}; it must be from 0 to {MAX_PADDING:g}")
        self.backend = load_backend(model, device, backend, layers, pooling)
        self.labels = self.backend.labels or default_labels(self.backend.num_classes)
        self.batch_size = batch_size
        self.min_seconds = min(self.backend.clip_seconds or 0.0, MAX_PADDING) if min_seconds is None else min_seconds
        self.whole = whole
        self._name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else [os.fspath(name) for name in model]

    def __repr__(self) -> str:
        device = getattr(self.backend, "device", "cpu")
        return f"AudioTagger({self._name!r}, device='{device}', {len(self.labels)} classes, {self.sample_rate} Hz)"

    @property
    def sample_rate(self) -> int:
        """Sample rate of the network in Hz; recordings are resampled to it."""
        return self.backend.sample_rate

    def tag(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        top_k: int | None = 10,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> Tagging:
        """Return the `top_k` tags (None: all) of a whole recording, highest score first.

        `threshold` leaves out lower scores, `labels` all but these classes. `name` is what result and errors call the recording.
        """
        select = self._selection(top_k, threshold, labels)
        return self._average_one(audio, sample_rate, name, ReadOptions(start, end, channel, strict)).tagging(select)

    def scores(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> np.ndarray:
        """Return the scores (K,) float32 of all classes, in the order of `labels`, for a whole recording."""
        self._require_classes()
        whole = self._average_one(audio, sample_rate, None, ReadOptions(start, end, channel, strict))
        report(whole.warnings)
        return whole.scores

    def embed(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> np.ndarray:
        """Return the embedding (C,) float32 of a whole recording or, with a `window` in seconds, (W, C) of its windows.

        `embed_files` also gives the times.
        """
        options = ReadOptions(start, end, channel, strict)
        if window is None:
            whole = self._average_one(audio, sample_rate, name, options)
            report(whole.warnings)
            return whole.embedding
        recording = self._open(audio, sample_rate, name, options)
        embeddings = np.stack([embedding for *_, embedding in self._windows(recording, window, hop)])
        report(recording.warnings)
        return embeddings

    def tag_windows(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        top_k: int | None = 10,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
    ) -> Timeline:
        """Return the scores of overlapping windows of `window` seconds, one every `hop` seconds.

        The last window is moved back so that it ends with the recording. A recording shorter than a window is one window of its
        own length. Scores take 2 kB per window for 527 classes, 3 MB for an hour at the defaults; `iter_windows` keeps none.
        """
        select = self._selection(top_k, threshold, labels)
        recording = self._open(audio, sample_rate, name, ReadOptions(start, end, channel, strict))
        starts, ends, scores = zip(*self._scored(recording, window, hop), strict=True)
        times, chosen = (np.array(starts), np.array(ends)), (top_k, threshold, select.classes)
        warnings = tuple(recording.warnings)
        return Timeline(recording.name, self.labels, *times, np.stack(scores), *chosen, warnings, recording.channel)

    def iter_windows(
        self,
        audio: AudioSource | Recording,
        sample_rate: float | None = None,
        *,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        name: str | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        warnings: list[str] | None = None,
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield start and end in seconds and the (K,) scores of each window of `tag_windows`, in constant memory.

        What is wrong with the recording is appended to `warnings` at the end (None: it is logged). A recording of `open_files` is
        read as it was opened.
        """
        self._require_classes()
        recording = self._open(audio, sample_rate, name, ReadOptions(start, end, channel, strict))

        def windows() -> Iterator[tuple[float, float, np.ndarray]]:
            yield from self._scored(recording, window, hop)
            report(recording.warnings, warnings)

        return windows()

    def tag_files(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        *,
        top_k: int | None = 10,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        workers: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        per_channel: bool = False,
        time_limit: float | None = None,
    ) -> Iterator[Tagging | Failure]:
        """Tag recordings in their order; yield a `Failure` for each that cannot be used, and continue.

        Recordings are what `tag` takes, or pairs (samples, sample rate); `sample_rate` is that of arrays without one of their own.
        An array of (recordings, samples) is several. `per_channel` gives a result for each channel of a recording.
        `workers` threads (None: one for each core, 8 at most) decode while the network computes. They take `batch_size` + `workers`
        of `sources`, which may be endless, in advance, of each at most a minute. With a `time_limit` in seconds, processes decode
        files: one that crashes its decoder, or keeps it busy for longer without any sound, is a `Failure` as well.
        """
        select = self._selection(top_k, threshold, labels)
        options = ReadOptions(start, end, channel, strict)
        recordings = self.open_files(
            sources, sample_rate, options, workers=workers, per_channel=per_channel, time_limit=time_limit, depth=self.batch_size
        )
        return self._average_each(recordings, lambda whole: whole.tagging(select))

    def embed_files(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        workers: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        channel: int | None = None,
        strict: bool = False,
        time_limit: float | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Embed recordings in their order; yield a `Failure` for each that cannot be used, and continue.

        A recording gives one `Embedding` or, with a `window` in seconds, one for each window of `tag_windows`. If a recording turns
        out to be damaged, a `Failure` follows the windows before the damage. `sources`, `sample_rate`, `workers` and `time_limit`
        are those of `tag_files`.
        """
        options = ReadOptions(start, end, channel, strict)
        if window is not None:
            to_samples(window, hop, self.sample_rate)  # impossible ones are one error, not one for each recording
        depth = self.batch_size if window is None else 1
        recordings = self.open_files(sources, sample_rate, options, workers=workers, time_limit=time_limit, depth=depth)
        if window is None:
            return self._average_each(recordings, Average.embedded)

        def embeddings(recording: Recording) -> Iterator[Embedding]:
            for start, end, _, embedding in self._windows(recording, window, hop):
                yield Embedding(recording.name, start, end, embedding, channel=recording.channel)

        return each_recording(recordings, embeddings)

    def open_files(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        options: ReadOptions | None = None,
        *,
        workers: int | None = None,
        per_channel: bool = False,
        time_limit: float | None = None,
        depth: int = 1,
    ) -> Iterator[Recording | Failure]:
        """Open recordings in their order, `workers` and `depth` of them in advance; arguments are those of `tag_files`."""
        options = options or ReadOptions()
        workers = min(8, available_cores()) if workers is None else workers
        if not is_whole(workers) or workers < 1:
            raise UserError(f"workers is {workers!r:.50}; it must be 1 or more")
        if time_limit is not None and not (is_number(time_limit) and time_limit > 0):
            raise UserError(f"time_limit is {time_limit!r:.50}; it must be a number of seconds above 0")
        if per_channel and options.channel is not None:
            raise UserError(f"per_channel reads all channels, so it does not go with channel {options.channel}; leave one out")
        pairs = with_rates(sources, sample_rate)
        return read_ahead(pairs, self.sample_rate, options, workers, depth + workers, per_channel, time_limit)

    def averages(self, recordings: Iterable[Recording | Failure]) -> Iterator[Average | Failure]:
        """Yield scores and embedding of each whole recording of `open_files`, in their order, as `tag_files` computes them."""
        window = round(max(WINDOW_SECONDS, self.min_seconds) * self.sample_rate)
        return average_windows(recordings, self._batched, None if self.whole else window, self.batch_size, self.batch_size * window)

    def classes(self, labels: Sequence[str] | None) -> tuple[int, ...] | None:
        """Return the indices of classes by name, in any case; `UserError` for an unknown name, with similar ones."""
        self._require_classes()
        return find_classes(labels, self.labels)

    def compute_windows(
        self, windows: Iterable[tuple[int, np.ndarray]], overlapping: OverlappingWindows | None = None
    ) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
        """(First sample, window) -> start and end in seconds, scores (K,) and embedding (C,), computed in batches.

        Windows of one sound share frames of the spectrogram where they are computed by its `overlapping`.
        """
        windows = iter(windows)
        for first in windows:
            length = max(len(first[1]), round(self.min_seconds * self.sample_rate))
            size = max(self.batch_size, round(WINDOW_SECONDS * self.sample_rate / length))
            batch = [first, *islice(windows, size - 1)]
            results = overlapping(batch) if overlapping else self._batched([waveform for _, waveform in batch])
            for (start, waveform), (scores, embedding) in zip(batch, results, strict=True):
                yield start / self.sample_rate, (start + len(waveform)) / self.sample_rate, scores, embedding

    def overlapping(self, window: int, hop: int) -> OverlappingWindows:
        """Return what computes the windows of one sound; window and hop in samples."""
        return OverlappingWindows(self.backend, window, hop, round(self.min_seconds * self.sample_rate))

    def _require_classes(self) -> None:
        if not self.labels:
            raise UserError(f"{self._name} has no classes, so it gives embeddings alone; use another model to tag")

    def _selection(self, top_k: int | None, threshold: float, labels: Sequence[str] | None) -> Selection:
        return Selection(self.labels, top_k, threshold, self.classes(labels))

    def _open(self, audio: AudioSource | Recording, sample_rate: float | None, name: str | None, options: ReadOptions) -> Recording:
        if isinstance(audio, Recording):
            return audio
        recording = open_recording(audio, sample_rate, self.sample_rate, options, name)
        recording.read_in_thread()
        return recording

    def _windows(self, recording: Recording, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
        """Yield start, end, scores and embedding of each window."""
        samples = to_samples(window, hop, self.sample_rate)
        windows = cut_windows(recording.blocks, *samples)
        for start, end, scores, embedding in self.compute_windows(windows, self.overlapping(*samples)):
            yield recording.start + start, recording.start + end, scores, embedding

    def _scored(self, recording: Recording, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray]]:
        """The same without embeddings, of which a timeline keeps none."""
        return ((start, end, scores) for start, end, scores, _ in self._windows(recording, window, hop))

    def _average_one(self, audio: AudioSource, sample_rate: float | None, name: str | None, options: ReadOptions) -> Average:
        [result] = self.averages([self._open(audio, sample_rate, name, options)])
        if isinstance(result, Failure):
            raise result.error
        return result

    def _average_each(self, recordings: Iterable[Recording | Failure], make: Callable[[Average], T]) -> Iterator[T | Failure]:
        """Yield make(scores and embedding) of each whole recording."""
        return (result if isinstance(result, Failure) else make(result) for result in self.averages(recordings))

    def _batched(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores (K,) and embedding (C,) of each waveform, padded where it is too short."""
        return self.backend(self._padded(waveforms)) if waveforms else []

    def _padded(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        shortest = round(self.min_seconds * self.sample_rate)
        return [crop_or_pad(waveform, max(len(waveform), shortest)) for waveform in waveforms]
