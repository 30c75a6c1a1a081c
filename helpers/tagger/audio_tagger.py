"""The tagger: recordings in; labelled scores, timelines and embeddings out. Without torch where another backend computes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from datasets.audio import crop_or_pad
from datasets.labels import default_labels
from datasets.sound import open_sound
from helpers.devices import available_cores
from helpers.tagger.averaging import Average, average_windows
from helpers.tagger.reading import UNUSABLE, Recording, describe, read_ahead, with_rates
from helpers.tagger.results import Embedding, Failure, Tagging, Timeline, top_tags
from helpers.tagger.windows import cut_windows, to_samples
from models.config import POOLINGS
from models.errors import UserError

if TYPE_CHECKING:
    import torch

    from datasets.sound import AudioSource
    from helpers.tagger.reading import Source

BACKENDS = ("torch", "onnx")
LAYERS = "embedding"  # the network's own
WINDOW_SECONDS, HOP_SECONDS = 10.0, 2.5
MAX_PADDING = 60.0  # seconds that short recordings may be padded to

T = TypeVar("T")


class Backend(Protocol):
    """A backend: waveforms (samples,) float32 of any lengths -> scores (K,) in [0, 1] and embedding (C,) of each, float32."""

    sample_rate: int
    labels: tuple[str, ...] | None
    num_classes: int
    embedding_size: int
    columns: dict[str, tuple[int, int]]  # first column of each layer in the embedding, and the one behind its last
    clip_seconds: float | None  # of the clips that the model was trained with, where it is known

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]: ...


class AudioTagger:
    """A model with its front end, its labels and its device, ready for recordings of any rate, length and channel count.

    Audio is what `datasets.sound.open_sound` takes: a path, bytes, a binary file object, or samples as an array or a tensor with
    their `sample_rate`. All methods raise `FileNotFoundError` for a missing file, `AudioError` for one that cannot be used, and
    `UserError` for an impossible argument.

    A recording of more than 11 s is computed in windows of 10 s side by side, the last of up to 11 s, in constant memory, and
    gets their mean, each weighted with the time it adds; `whole=True` computes it in one piece, as the published code does. For
    events that are short against the recording, use `tag_windows`.

    Recordings and windows shorter than the clips of the model's training are padded with zeros at their end to that length, where
    the checkpoint gives it (released ones do not). `min_seconds` sets another length; `python -m studies.short_clips` compares.
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

        `device` None is a GPU when there is one, else the CPU (onnx: always the CPU). `batch_size` windows or recordings are
        computed at once (of short windows, as many as hold 10 s of sound); it does not change results. `min_seconds` is the
        length that shorter recordings are padded to (None: the model's own). `whole` computes long recordings in one piece.
        `layers` and `pooling` choose the embedding, see `models.embeddings` (torch only). Errors are those of
        `models.checkpoints.load`.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be 1 or more")
        if min_seconds is not None and not 0 <= min_seconds <= MAX_PADDING:
            raise UserError(f"min_seconds is {min_seconds}; it must be from 0 to {MAX_PADDING:g}")
        self.backend = _load_backend(model, device, backend, layers, pooling)
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
    ) -> Tagging:
        """Return the `top_k` tags (None: all) of a whole recording, highest score first.

        `threshold` leaves out lower scores, `labels` all but these classes. `name` is what result and errors call the recording.
        """
        select = self._selection(top_k, threshold, labels)
        return select(self._average_one(audio, sample_rate, name))

    def scores(self, audio: AudioSource, sample_rate: float | None = None) -> np.ndarray:
        """Return the scores (K,) float32 of all classes, in the order of `labels`, for a whole recording."""
        self._require_classes()
        return self._average_one(audio, sample_rate, None).scores

    def embed(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        name: str | None = None,
    ) -> np.ndarray:
        """Return the embedding (C,) float32 of a whole recording or, with a `window` in seconds, (W, C) of its windows.

        `embed_files` also gives the times.
        """
        if window is None:
            return self._average_one(audio, sample_rate, name).embedding
        return np.stack([embedding for *_, embedding in self._windows(self._open(audio, sample_rate, name), window, hop)])

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
    ) -> Timeline:
        """Return the scores of overlapping windows of `window` seconds, one every `hop` seconds.

        The last window is moved back so that it ends with the recording. A recording shorter than a window is one window of its
        own length. Scores take 2 kB per window for 527 classes, 3 MB for an hour at the defaults; `iter_windows` keeps none.
        """
        self._selection(top_k, threshold, labels)
        recording = self._open(audio, sample_rate, name)
        starts, ends, scores = zip(*self._scored(recording, window, hop), strict=True)
        times = np.array(starts), np.array(ends)
        return Timeline(recording.name, self.labels, *times, np.stack(scores), top_k, threshold, self.classes(labels))

    def iter_windows(
        self,
        audio: AudioSource,
        sample_rate: float | None = None,
        *,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        name: str | None = None,
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield start and end in seconds and the (K,) scores of each window of `tag_windows`, in constant memory."""
        self._require_classes()
        return self._scored(self._open(audio, sample_rate, name), window, hop)

    def tag_files(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        *,
        top_k: int | None = 10,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        workers: int | None = None,
    ) -> Iterator[Tagging | Failure]:
        """Tag recordings in their order; yield a `Failure` for each that cannot be used, and continue.

        Recordings are what `tag` takes, or pairs (samples, sample rate); `sample_rate` is that of samples without one of their own.
        `workers` threads (None: one for each core, 8 at most) decode while the network computes. They take `batch_size` + `workers`
        of `sources`, which may be endless, in advance, of each at most a minute.
        """
        return self._average_each(sources, sample_rate, workers, self._selection(top_k, threshold, labels))

    def embed_files(
        self,
        sources: Iterable[Source] | Source,
        sample_rate: float | None = None,
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        workers: int | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Embed recordings in their order; yield a `Failure` for each that cannot be used, and continue.

        A recording gives one `Embedding` or, with a `window` in seconds, one for each window of `tag_windows`. If a recording turns
        out to be damaged, a `Failure` follows the windows before the damage. `sources`, `sample_rate` and `workers` (for whole
        recordings) are those of `tag_files`.
        """
        if window is None:
            return self._average_each(
                sources, sample_rate, workers, lambda whole: Embedding(whole.name, 0.0, whole.seconds, whole.embedding)
            )
        to_samples(window, hop, self.sample_rate)  # impossible ones are one error, not one for each recording
        return self._embed_windows(with_rates(sources, sample_rate), window, hop)

    def classes(self, labels: Sequence[str] | None) -> tuple[int, ...] | None:
        """Return the indices of classes by name, in any case; `UserError` for an unknown name, with similar ones."""
        self._require_classes()
        if labels is None:
            return None
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise UserError(f"labels are {labels!r}; pass a list of names of classes")
        known = {label.lower(): k for k, label in reversed(list(enumerate(self.labels)))}
        found = []
        for label in labels:
            if label.lower() not in known:
                similar = [self.labels[known[name]] for name in difflib.get_close_matches(label.lower(), known, n=3)]
                containing = [name for name in self.labels if label.lower() in name.lower()][:3]
                hint = " or ".join(dict.fromkeys(repr(name) for name in containing + similar))
                raise UserError(f"unknown label {label!r}; " + (f"did you mean {hint}?" if hint else "the model has no such class"))
            found.append(known[label.lower()])
        return tuple(dict.fromkeys(found))

    def compute_windows(self, windows: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
        """(First sample, window) -> start and end in seconds, scores (K,) and embedding (C,), computed in batches."""
        windows = iter(windows)
        for first in windows:
            length = max(len(first[1]), round(self.min_seconds * self.sample_rate))
            size = max(self.batch_size, round(WINDOW_SECONDS * self.sample_rate / length))
            batch = [first, *islice(windows, size - 1)]
            results = self._batched([waveform for _, waveform in batch])
            for (start, waveform), (scores, embedding) in zip(batch, results, strict=True):
                yield start / self.sample_rate, (start + len(waveform)) / self.sample_rate, scores, embedding

    def _require_classes(self) -> None:
        if not self.labels:
            raise UserError(f"{self._name} has no classes, so it gives embeddings alone; use another model to tag")

    def _selection(self, top_k: int | None, threshold: float, labels: Sequence[str] | None) -> Callable[[Average], Tagging]:
        """Check which tags are asked for; return what picks them."""
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k is {top_k}; it must be 1 or more, or None for all classes")
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}; it must be from 0 to 1")
        classes = self.classes(labels)
        return lambda whole: Tagging(whole.name, 0.0, whole.seconds, top_tags(self.labels, whole.scores, top_k, threshold, classes))

    def _open(self, audio: AudioSource, sample_rate: float | None, name: str | None) -> Recording:
        recording = Recording(open_sound(audio, sample_rate, name=name), self.sample_rate)
        recording.read_in_thread()
        return recording

    def _windows(self, recording: Recording, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
        """Yield start, end, scores and embedding of each window."""
        return self.compute_windows(cut_windows(recording.blocks, *to_samples(window, hop, self.sample_rate)))

    def _scored(self, recording: Recording, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray]]:
        """The same without embeddings, of which a timeline keeps none."""
        return ((start, end, scores) for start, end, scores, _ in self._windows(recording, window, hop))

    def _embed_windows(
        self, sources: Iterable[tuple[AudioSource, float | None]], window: float, hop: float
    ) -> Iterator[Embedding | Failure]:
        for source, sample_rate in sources:
            name = describe(source)
            try:
                recording = self._open(source, sample_rate, None)
                name = recording.name
                for start, end, _, embedding in self._windows(recording, window, hop):
                    yield Embedding(name, start, end, embedding)
            except UNUSABLE as error:
                yield Failure(name, error)

    def _average_one(self, audio: AudioSource, sample_rate: float | None, name: str | None) -> Average:
        [result] = self._averages([self._open(audio, sample_rate, name)])
        if isinstance(result, Failure):
            raise result.error
        return result

    def _average_each(
        self, sources: Iterable[Source] | Source, sample_rate: float | None, workers: int | None, make: Callable[[Average], T]
    ) -> Iterator[T | Failure]:
        """Yield make(scores and embedding) of each whole recording, decoded by threads."""
        workers = min(8, available_cores()) if workers is None else workers
        if workers < 1:
            raise UserError(f"workers is {workers}; it must be 1 or more")
        recordings = read_ahead(with_rates(sources, sample_rate), self.sample_rate, workers, self.batch_size + workers)
        return (result if isinstance(result, Failure) else make(result) for result in self._averages(recordings))

    def _averages(self, recordings: Iterable[Recording | Failure]) -> Iterator[Average | Failure]:
        window = round(max(WINDOW_SECONDS, self.min_seconds) * self.sample_rate)
        return average_windows(recordings, self._batched, None if self.whole else window, self.batch_size, self.batch_size * window)

    def _batched(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores (K,) and embedding (C,) of each waveform, padded where it is too short."""
        shortest = round(self.min_seconds * self.sample_rate)
        padded = [crop_or_pad(waveform, max(len(waveform), shortest)) for waveform in waveforms]
        return self.backend(padded) if padded else []


def _load_backend(
    model: str | os.PathLike[str] | Sequence[str],
    device: torch.device | str | None,
    backend: str,
    layers: str | Sequence[str],
    pooling: str,
) -> Backend:
    """Import the backend and nothing else: the onnx backend must do without torch."""
    if backend == "torch":
        names = [model] if isinstance(model, (str, os.PathLike)) else model
        if exported := [name for name in names if os.fspath(name).endswith(".onnx")]:
            raise UserError(f"{exported[0]} is an exported model; use the onnx backend")
        from helpers.tagger.torch_backend import TorchBackend

        return TorchBackend(model, device, layers, pooling)
    if backend != "onnx":
        raise UserError(f"unknown backend {backend!r}; allowed: {', '.join(BACKENDS)}")
    if not isinstance(model, (str, os.PathLike)):
        raise UserError("an ensemble needs the torch backend; onnx runs one model")
    if device is not None and str(device) != "cpu":
        raise UserError(f"the onnx backend computes on the CPU, not on {device}; leave the device out or use torch")
    if (layers, pooling) != (LAYERS, POOLINGS[0]):
        raise UserError(f"the onnx backend has the network's own embedding only, not {layers} ({pooling}); use torch")
    from helpers.export.runtime import load_backend

    return load_backend(model)
