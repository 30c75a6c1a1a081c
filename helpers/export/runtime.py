"""An exported model in ONNX Runtime: waveforms in, scores and embeddings out. Nothing here imports torch.

backend = load_backend("mn04_distilled")
[(scores, embedding)] = backend([np.zeros(320000, np.float32)])  # (num_classes,), (embedding_size,)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from weakref import WeakSet

import numpy as np
import onnxruntime

from helpers.devices import available_cores
from helpers.export.cache import METADATA_KEY, exported
from helpers.export.checks import check_results, check_scores_frames, check_waveforms, check_weights, checked_metadata
from helpers.export.parts import front_end_part, network_part
from models.assets import AssetError
from models.errors import UserError

OUTPUTS = ("scores", "embedding")
FRAME_OUTPUTS = ("frame_scores", "frame_embeddings")


class BackendError(AssetError):
    """A file that is not an exported model, or not one that takes waveforms."""


class OnnxBackend:
    """A file that export.py wrote, ready for waveforms of any number and length."""

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None, content: bytes | None = None) -> None:
        """`threads`: how many to compute with; None: one for each core this process may use.

        With the `content` of the file, as pickles have it, the file itself need not be there. Raises `FileNotFoundError` and
        `BackendError`.
        """
        path = Path(path)
        if content is None and not path.is_file():
            raise FileNotFoundError(f"exported model {path} not found; make it with export.py")
        self.path = path
        try:
            self._graph = ParallelGraph(path.absolute() if content is None else content, threads)
            stored = self._graph.metadata
        except Exception as error:  # ONNX Runtime's own classes, a dozen of them, have no other base
            reason = " ".join(str(error).split())
            raise BackendError(f"{path} cannot be read by ONNX Runtime; export the model again ({reason})") from error
        try:
            metadata = checked_metadata(stored.get(METADATA_KEY, "null"))
            self._graph.check_ports(metadata["num_classes"], metadata["embedding_size"], metadata["step_seconds"] is not None)
            self._graph.check_weights()
        except (ValueError, LookupError, TypeError) as error:
            reason = error if isinstance(error, UserError) else "its weights cannot be read"
            raise BackendError(f"{path} is not what this version of export.py writes: {reason}; export the model again") from error
        self.metadata = metadata
        self.name: str = metadata["model_name"]
        self.sample_rate: int = metadata["sample_rate"]  # Hz
        self.num_classes: int = metadata["num_classes"]
        self.embedding_size: int = metadata["embedding_size"]
        self.columns = {"embedding": (0, self.embedding_size)}
        self.single_label: bool = metadata["single_label"]
        self.clip_seconds: float | None = metadata["clip_seconds"]  # of the clips that the model was trained with
        self.step_seconds: float | None = metadata["step_seconds"]
        self.labels: tuple[str, ...] = tuple(metadata["labels"])
        self.hop_size: int = metadata["hop_size"]  # samples
        self.min_samples: int = metadata["min_samples"]

    def __reduce__(self) -> tuple[type, tuple[Path, int, bytes]]:
        """Take the content along: other machines, as in Ray or Spark, have no such file."""
        return type(self), (self.path, self._graph.threads, self._graph.content())

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute scores (num_classes,) and embedding (embedding_size,) of each waveform, of any number and lengths.

        A waveform is (samples,) float32, mono, [-1, 1], at `sample_rate`. Raises `UserError` for others, and where a result is
        not finite; `BackendError` where ONNX Runtime cannot compute.
        """
        if self.has_parts:
            return self.from_spectrograms(self.spectrograms(waveforms))
        check_waveforms(waveforms)
        with self._explained():
            results = self._graph(waveforms)
        check_results(results, self.name)
        return results

    @property
    def has_parts(self) -> bool:
        """Whether front end and network are loaded apart, in place of the whole, as the first call of the methods below does."""
        return "_parts" in self.__dict__

    def spectrograms(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute the spectrogram (1, n_mels, frames) of each waveform; what is taken and raised is as in a call."""
        check_waveforms(waveforms)
        with self._explained():
            return [spectrogram for (spectrogram,) in self._parts[0](waveforms)]

    def from_spectrograms(self, spectrograms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute what a call does, from spectrograms (1, n_mels, frames) float32."""
        with self._explained():
            results = self._parts[1](spectrograms)
        check_results(results, self.name)
        return results

    def frames(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute scores (T, num_classes) and embeddings (T, embedding_size) of each waveform's frames, one each `step_seconds`.

        Errors are those of a call, and `UserError` where the model scores whole clips only.
        """
        check_scores_frames(self)
        check_waveforms(waveforms)
        with self._explained():
            if self.has_parts:
                results = self._parts[1](self.spectrograms(waveforms), FRAME_OUTPUTS)
            else:
                results = self._graph(waveforms, FRAME_OUTPUTS)
        check_results(results, self.name)
        return results

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Make a `BackendError` of an error of ONNX Runtime: a damaged graph may be noticed only when it is computed."""
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            reason = " ".join(str(error).split())
            raise BackendError(f"{self.path} cannot be computed by ONNX Runtime; export the model again ({reason})") from error

    @cached_property
    def _parts(self) -> tuple[ParallelGraph, ParallelGraph]:
        content, n_mels = memoryview(self._graph.content()), self.metadata["n_mels"]
        self._graph.unload()
        front_end = ParallelGraph(front_end_part(content, n_mels), self._graph.threads, ("spectrogram",))
        part = network_part(content, n_mels, self.num_classes, self.embedding_size, self.step_seconds is not None)
        network = ParallelGraph(part, self._graph.threads)
        return front_end, network


class ParallelGraph:
    """A graph of `helpers.export.graph`, computed by several threads.

    All threads share a single clip; of several clips, each thread computes one at a time. That is faster than sharing the layers
    of a batch (`python -m benchmarks.speed`), as the data of one clip stays in the cache, and needs less memory, though the weights
    are loaded twice. It can be pickled, and used after a fork: the other process loads the graph again.
    """

    def __init__(self, model: Path | bytes, threads: int | None = None, outputs: Sequence[str] = OUTPUTS) -> None:
        """`model`: a file or its content; `threads` None: one for each core this process may use; `outputs`: what a call returns.

        It is loaded when it is first used. Errors are ONNX Runtime's own.
        """
        self._model, self.threads, self._outputs = model, threads or available_cores(), tuple(outputs)
        _GRAPHS.add(self)

    def __reduce__(self) -> tuple[type, tuple[Path | bytes, int, tuple[str, ...]]]:
        return type(self), (self._model, self.threads, self._outputs)

    @cached_property
    def metadata(self) -> dict[str, str]:
        return self._shared.get_modelmeta().custom_metadata_map

    def check_ports(self, num_classes: int, embedding_size: int, frames: bool = False) -> None:
        """Raise `UserError` unless the graph takes waveforms and gives scores and embeddings of these sizes, all float32.

        With `frames` it must give those of frames as well, in any number.
        """
        ports = [(port.name, port.type, len(port.shape)) for port in self._shared.get_inputs()]
        if len(ports) != 1 or ports[0][1:] != ("tensor(float)", 2):
            raise UserError(f"it takes {ports}")
        found = {port.name: (port.type, port.shape) for port in self._shared.get_outputs()}
        for number, (name, size) in enumerate(zip((*OUTPUTS, *FRAME_OUTPUTS), (num_classes, embedding_size) * 2, strict=True)):
            kind, shape = found.get(name, (None, []))
            if (number < 2 or frames) and (kind, len(shape), shape[-1:]) != ("tensor(float)", 2 + (number >= 2), [size]):
                raise UserError(f"its output {name} is {found.get(name)}, not {size} numbers")

    def check_weights(self) -> None:
        """Raise as `checks.check_weights`."""
        if isinstance(self._model, bytes):
            check_weights(memoryview(self._model))
            return
        with open(self._model, "rb") as file:
            check_weights(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))

    def content(self) -> bytes:
        """Return the content of the file."""
        return self._model if isinstance(self._model, bytes) else self._model.read_bytes()

    def __call__(self, clips: Sequence[np.ndarray], outputs: Sequence[str] | None = None) -> list[tuple[np.ndarray, ...]]:
        """Compute outputs (None: those it was made for), such as scores (K,) and embedding (C,), of clips.

        Clips are waveforms (samples,), or spectrograms (1, n_mels, frames) where the graph takes these.
        """
        outputs = outputs or self._outputs
        if len(clips) == 1:
            return [self._run(self._shared, clips[0], outputs)]
        single = self._single  # loaded here, once, and not in each of the threads
        return list(self._pool.map(lambda clip: self._run(single, clip, outputs), clips))

    @staticmethod
    def _run(session: onnxruntime.InferenceSession, clip: np.ndarray, outputs: Sequence[str]) -> tuple[np.ndarray, ...]:
        return tuple(values[0] for values in session.run(outputs, {session.get_inputs()[0].name: clip[None]}))

    @cached_property
    def _shared(self) -> onnxruntime.InferenceSession:
        """The graph for one caller, whose layers all threads share."""
        return new_session(self._model, self.threads)

    @cached_property
    def _single(self) -> onnxruntime.InferenceSession:
        """The graph for several callers, each of which is one thread."""
        return self._shared if self.threads == 1 else new_session(self._model, 1)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads)

    def unload(self) -> None:
        """Give back the memory of the sessions; the next call loads them again."""
        for name in ("_shared", "_single"):
            self.__dict__.pop(name, None)
        _trim()

    def _drop_threads(self) -> None:
        """Forget sessions and pool in a forked process: without their threads, running or freeing them would hang."""
        for name in ("_shared", "_single", "_pool"):
            if name in self.__dict__:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.__dict__.pop(name)))  # so it is never freed


_GRAPHS: WeakSet[ParallelGraph] = WeakSet()


def _after_fork() -> None:
    """Let a forked process load graphs again, and end: at its exit ONNX Runtime would wait for threads that are not there."""
    for graph in list(_GRAPHS):
        graph._drop_threads()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc's, which gets the exit code before the libraries' destructors run
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load_onnx(content: bytes, threads: int | None = None) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from a clip, as the graph takes it, to its scores (K,) and embedding (C,); `threads` as `ParallelGraph`."""
    graph = ParallelGraph(content, threads)
    return lambda clip: graph([clip])[0]


def load_backend(name: str | os.PathLike[str]) -> OnnxBackend:
    """Load an exported model (.onnx), or a model by name or checkpoint, which is exported when it is first used.

    Errors are those of `cache.exported` and of `OnnxBackend`.
    """
    return OnnxBackend(exported(name))


def new_session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph, from a file or its content, whose layers `threads` threads share."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised
    # Threads wait actively for the next layer, but not, as by default, for some 40 ms after the last: others need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    _trim()  # of the memory in which the graph was parsed
    return session


def _trim() -> None:
    """Give freed memory back to the system; glibc would keep most of it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
