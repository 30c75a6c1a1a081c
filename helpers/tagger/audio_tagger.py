"""Recording in, labelled scores, time lines and embeddings out; without torch where another backend computes."""

from __future__ import annotations

import difflib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from datasets.audio import crop_or_pad
from datasets.labels import default_labels
from datasets.sound import Sound, open_sound, resampled
from helpers.devices import available_cores
from helpers.tagger.results import Embedding, Failure, Tagging, Timeline, likeliest
from helpers.tagger.windows import cut_windows, to_samples
from models.config import POOLINGS
from models.errors import UserError

if TYPE_CHECKING:
    import torch

    from datasets.sound import AudioSource

BACKENDS = ("torch", "onnx")
LAYERS = "embedding"  # the network's own
WINDOW_SECONDS, HOP_SECONDS = 10.0, 2.5
WHOLE_SECONDS = 60.0  # longer recordings do not go through the network in one piece
AHEAD = 4  # blocks that are decoded while the network computes

T = TypeVar("T")


class Backend(Protocol):
    """What computes: waveforms (samples,) float32 of any lengths -> scores (K,) in [0, 1] and embedding (C,) of each, float32."""

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
    `ValueError` for an argument that makes no sense.

    A recording of up to 60 s goes through the network as a whole. A longer one is worked through in windows of 10 s side by
    side, in constant memory, and gets their mean, each weighted with the time it adds; for events that are short against it,
    use `tag_windows`.

    Recordings, and windows, that are shorter than the clips a model was trained with are padded with zeros at their end to that
    length, as in the training, where the model tells it; released checkpoints do not, and get recordings as they are, as in the
    published code. `min_seconds` sets another length. `python -m studies.short_clips` measures why: zeros up to the training's
    length help, more of them harm, and repeating the sound does not help.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Sequence[str] = "mn10_as",
        device: torch.device | str | None = None,
        backend: str = "torch",
        *,
        batch_size: int = 8,
        min_seconds: float | None = None,
        layers: str | Sequence[str] = LAYERS,
        pooling: str = POOLINGS[0],
    ) -> None:
        """`model`: a released or bundled name, a checkpoint, or several of them for an ensemble (torch only).

        `device` is torch's (None: the CPU). `batch_size` is how many windows or recordings are computed at once; without
        influence on results; of short windows there are as many as hold 10 s of sound. `min_seconds` is the length that shorter
        recordings are padded to; None: the model's own. `layers` and `pooling` say what embeddings consist of, see
        `models.embeddings` (torch only). Errors are those of `models.checkpoints.load`.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be 1 or more")
        if min_seconds is not None and not 0 <= min_seconds <= WHOLE_SECONDS:
            raise UserError(f"min_seconds is {min_seconds}; it must be from 0 to {WHOLE_SECONDS:g}")
        self.backend = _load_backend(model, device, backend, layers, pooling)
        self.labels = self.backend.labels or default_labels(self.backend.num_classes)
        self.batch_size = batch_size
        self.min_seconds = min(self.backend.clip_seconds or 0.0, WHOLE_SECONDS) if min_seconds is None else min_seconds

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which the network hears."""
        return self.backend.sample_rate

    def tag(
        self,
        audio: AudioSource,
        sample_rate: int | None = None,
        top_k: int = 10,
        *,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        name: str | None = None,
    ) -> Tagging:
        """Return the `top_k` likeliest events of a whole recording, likeliest first.

        `threshold` leaves out lower scores, `labels` all but these classes. `name` is what result and errors call the recording.
        """
        choose = self._chooser(top_k, threshold, labels)
        clip = self._read(audio, sample_rate, name)
        return choose(clip, *self._compute(clip))

    def embed(
        self,
        audio: AudioSource,
        sample_rate: int | None = None,
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        name: str | None = None,
    ) -> np.ndarray:
        """Return the embedding (C,) float32 of a whole recording or, with a `window` in seconds, (W, C) of its windows.

        `embed_files` also tells the times.
        """
        if window is None:
            return self._compute(self._read(audio, sample_rate, name))[1]
        parts = self._windows(open_sound(audio, sample_rate, name=name), window, hop)
        return np.stack([embedding for *_, embedding in parts])

    def tag_windows(
        self,
        audio: AudioSource,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        *,
        sample_rate: int | None = None,
        top_k: int = 10,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        name: str | None = None,
    ) -> Timeline:
        """Return the scores of overlapping windows, every `hop` seconds one of `window` seconds.

        The last window is moved back so that it ends with the recording; one that is shorter than a window is one window of its
        own length. The scores take 2 kB a window for 527 classes, 3 MB for an hour at the defaults; `iter_windows` holds none.
        """
        self._chooser(top_k, threshold, labels)
        sound = open_sound(audio, sample_rate, name=name)
        starts, ends, scores = zip(*self._scored(sound, window, hop), strict=True)
        return Timeline(
            sound.name, self.labels, np.array(starts), np.array(ends), np.stack(scores), top_k, threshold, self.classes(labels)
        )

    def iter_windows(
        self,
        audio: AudioSource,
        window: float = WINDOW_SECONDS,
        hop: float = HOP_SECONDS,
        *,
        sample_rate: int | None = None,
        name: str | None = None,
    ) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield start and end in seconds and the (K,) scores of each window of `tag_windows`, in constant memory."""
        return self._scored(open_sound(audio, sample_rate, name=name), window, hop)

    def tag_files(
        self,
        sources: Iterable[str | os.PathLike[str] | bytes],
        top_k: int = 10,
        *,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        workers: int | None = None,
    ) -> Iterator[Tagging | Failure]:
        """Tag recordings in their order; yield a `Failure` for each that cannot be used, and go on.

        `workers` threads (None: one for each processor, 8 at most) decode while the network computes. Of `sources`, which may be
        endless, `batch_size` + `workers` are taken in advance, of each no more than a minute at a time.
        """
        return self._whole_files(sources, self._chooser(top_k, threshold, labels), workers)

    def embed_files(
        self,
        sources: Iterable[AudioSource],
        *,
        window: float | None = None,
        hop: float = HOP_SECONDS,
        workers: int | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Embed recordings in their order; yield a `Failure` for each that cannot be used, and go on.

        A recording gives one `Embedding` or, with a `window` in seconds, one for each window of `tag_windows`; if it turns out to
        be damaged on the way, a `Failure` follows those of its beginning. `workers` are those of `tag_files`, for whole recordings.
        """
        if window is not None:
            to_samples(window, hop, self.sample_rate)  # impossible ones are one error, not one of each recording
            return self._embed_windows(sources, window, hop)
        return self._whole_files(sources, lambda clip, _, embedding: Embedding(clip.name, 0.0, clip.seconds, embedding), workers)

    def classes(self, labels: Sequence[str] | None) -> tuple[int, ...] | None:
        """Indices of classes by their names, whose case does not matter; an unknown one is a `ValueError` that tells near ones."""
        if labels is None:
            return None
        if isinstance(labels, str):
            raise UserError(f"labels is the text {labels!r}; pass a list of labels")
        if not all(isinstance(label, str) for label in labels):
            raise UserError(f"labels are {labels!r}; pass names of classes")
        known = {label.lower(): k for k, label in reversed(list(enumerate(self.labels)))}
        found = []
        for label in labels:
            if label.lower() not in known:
                near = [self.labels[known[name]] for name in difflib.get_close_matches(label.lower(), known, n=3)]
                parts = [name for name in self.labels if label.lower() in name.lower()][:3]
                hint = " or ".join(dict.fromkeys(repr(name) for name in parts + near))
                raise UserError(f"unknown label {label!r}; " + (f"did you mean {hint}?" if hint else "the model has no such class"))
            found.append(known[label.lower()])
        return tuple(dict.fromkeys(found))

    def _chooser(
        self, top_k: int, threshold: float, labels: Sequence[str] | None
    ) -> Callable[[_Clip, np.ndarray, np.ndarray], Tagging]:
        """Check what results are made of; return what makes them of scores (K,)."""
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; it must be 1 or more")
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}; it must be from 0 to 1")
        classes = self.classes(labels)

        def choose(clip: _Clip, scores: np.ndarray, _: np.ndarray) -> Tagging:
            return Tagging(clip.name, 0.0, clip.seconds, likeliest(self.labels, scores, top_k, threshold, classes))

        return choose

    def _read(self, audio: AudioSource, sample_rate: int | None, name: str | None) -> _Clip:
        """Decode a recording, or of a longer one than `WHOLE_SECONDS` the beginning."""
        sound = open_sound(audio, sample_rate, name=name)
        head, samples = [], 0
        for block in sound.blocks:
            head.append(block)
            samples += len(block)
            if samples > WHOLE_SECONDS * sound.rate:
                return _Clip(Sound(sound.name, sound.rate, chain(head, sound.blocks)), None, 0.0)
        waveform = np.concatenate(list(resampled(head, sound.rate, self.sample_rate, sound.name)))
        return _Clip(sound, waveform, samples / sound.rate)

    def _compute(self, clip: _Clip) -> tuple[np.ndarray, np.ndarray]:
        """Scores (K,) and embedding (C,) of a whole recording."""
        if clip.waveform is not None:
            return self._batched([clip.waveform])[0]
        total, seconds = np.zeros(self.backend.num_classes + self.backend.embedding_size), 0.0
        window = max(WINDOW_SECONDS, self.min_seconds)
        for _, end, *parts in self._windows(clip.sound, window, window):
            total += (end - seconds) * np.concatenate(parts)
            seconds = end
        clip.seconds = seconds
        scores, embedding = np.split((total / seconds).astype(np.float32), [self.backend.num_classes])
        return scores, embedding

    def _windows(self, sound: Sound, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
        """Yield start, end, scores and embedding of each window; decodes in a thread."""
        lengths = to_samples(window, hop, self.sample_rate)
        blocks = in_thread(sound.at_rate(self.sample_rate), AHEAD)
        return self.compute_windows(cut_windows(blocks, *lengths))

    def _scored(self, sound: Sound, window: float, hop: float) -> Iterator[tuple[float, float, np.ndarray]]:
        """The same without embeddings, of which a time line keeps none."""
        return ((start, end, scores) for start, end, scores, _ in self._windows(sound, window, hop))

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

    def _batched(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores (K,) and embedding (C,) of each waveform."""
        shortest = round(self.min_seconds * self.sample_rate)
        waveforms = [crop_or_pad(waveform, max(len(waveform), shortest)) for waveform in waveforms]
        return self.backend(waveforms)

    def _whole_files(
        self, sources: Iterable[Any], make: Callable[[_Clip, np.ndarray, np.ndarray], T], workers: int | None
    ) -> Iterator[T | Failure]:
        """Yield make(clip, scores, embedding) of each whole recording."""
        workers = min(8, available_cores()) if workers is None else workers
        if workers < 1:
            raise UserError(f"workers is {workers}; it must be 1 or more")
        return self._each_whole(sources, make, workers)

    def _each_whole(
        self, sources: Iterable[Any], make: Callable[[_Clip, np.ndarray, np.ndarray], T], workers: int
    ) -> Iterator[T | Failure]:
        clips = _ahead(self._read_or_fail, sources, workers, self.batch_size + workers)
        while batch := list(islice(clips, self.batch_size)):
            short = [clip for clip in batch if isinstance(clip, _Clip) and clip.waveform is not None]
            computed = iter(self._batched([clip.waveform for clip in short]))
            for clip in batch:
                if isinstance(clip, Failure):
                    yield clip
                elif clip.waveform is not None:
                    yield make(clip, *next(computed))
                else:
                    try:
                        result: T | Failure = make(clip, *self._compute(clip))
                    except (ValueError, OSError) as error:
                        result = Failure(clip.name, error)
                    yield result

    def _embed_windows(self, sources: Iterable[Any], window: float, hop: float) -> Iterator[Embedding | Failure]:
        for source in sources:
            name = _describe(source)
            try:
                sound = open_sound(source)
                name = sound.name
                for start, end, _, embedding in self._windows(sound, window, hop):
                    yield Embedding(name, start, end, embedding)
            except (ValueError, OSError) as error:
                yield Failure(name, error)

    def _read_or_fail(self, source: Any) -> _Clip | Failure:
        try:
            return self._read(source, None, None)
        except (ValueError, OSError) as error:
            return Failure(_describe(source), error)


@dataclass
class _Clip:
    """A recording on its way: its waveform (samples,) at the network's rate or, of a long one, the sound that is to be read."""

    sound: Sound
    waveform: np.ndarray | None
    seconds: float  # known of a long one when it was read

    @property
    def name(self) -> str:
        return self.sound.name


def _describe(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else f"a {type(source).__name__}"


def _load_backend(
    model: str | os.PathLike[str] | Sequence[str],
    device: torch.device | str | None,
    backend: str,
    layers: str | Sequence[str],
    pooling: str,
) -> Backend:
    """Import what computes and nothing else: the onnx path must do without torch."""
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


def in_thread(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield items that a thread takes from an iterable, up to `depth` in advance; errors arrive in their place."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1)  # one thread, so that the iterator sees one call at a time
    try:
        pending = deque(pool.submit(next, source, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(function: Callable[[Any], T], items: Iterable[Any], workers: int, depth: int) -> Iterator[T]:
    """Yield function(item) in order, computed by threads, up to `depth` in advance."""
    source = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        pending: deque[Future[T]] = deque(pool.submit(function, item) for item in islice(source, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
