"""An exported model whose network OpenVINO computes. Nothing here imports torch; openvino only where it is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.export.cache import exported
from helpers.export.runtime import OnnxBackend
from models.errors import UserError, install_command

if TYPE_CHECKING:
    import openvino

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # and OpenVINO's names of them


class OpenVinoBackend(OnnxBackend):
    """A file that export.py wrote; attributes and calls are those of `OnnxBackend`.

    ONNX Runtime computes the front end, always in float32: its power spectra span ten decades.
    """

    has_parts = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        content: bytes | None = None,
        precision: str = "float32",
    ) -> None:
        """`precision` of the network: one of `PRECISIONS`; bfloat16 loses accuracy. The rest is as in `OnnxBackend`."""
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
        _import()
        super().__init__(path, threads, content)
        self.precision = precision

    def __reduce__(self) -> tuple[type, tuple[Path, int, bytes, str]]:
        return type(self), (self.path, self._graph.threads, self._graph.content(), self.precision)

    def _load_network(self, model: bytes) -> OpenVinoGraph:
        return OpenVinoGraph(model, self._graph.threads, self.precision)


class OpenVinoGraph:
    """The network: spectrograms (1, n_mels, frames) -> scores (K,) and embedding (C,) of each.

    As in `ParallelGraph`, all threads share a single clip; of several clips, each thread computes one at a time.
    """

    def __init__(self, model: bytes, threads: int, precision: str) -> None:
        self._model, self._threads, self._precision, self._process = model, threads, precision, os.getpid()
        self._lock = threading.Lock()

    def __call__(self, clips: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        if os.getpid() != self._process:  # its threads are gone, and waiting for them would never end
            raise UserError("the openvino backend cannot be used in a forked process; load the model there, or start it by spawn")
        with self._lock:  # a queue serves one caller at a time
            return self._computed(self._shared if len(clips) == 1 else self._single, clips)

    @staticmethod
    def _computed(queue: openvino.AsyncInferQueue, clips: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        results: list[Any] = [None] * len(clips)

        def keep(request: openvino.InferRequest, place: int) -> None:
            results[place] = tuple(request.get_tensor(name).data[0].copy() for name in ("scores", "embedding"))

        queue.set_callback(keep)
        for place, clip in enumerate(clips):
            queue.start_async({"spectrogram": clip[None]}, place)
        queue.wait_all()
        return results

    @cached_property
    def _shared(self) -> openvino.AsyncInferQueue:
        return self._compile(1)

    @cached_property
    def _single(self) -> openvino.AsyncInferQueue:
        return self._shared if self._threads == 1 else self._compile(self._threads)

    def _compile(self, streams: int) -> openvino.AsyncInferQueue:
        """Compile the network for so many clips at once, which share the threads evenly."""
        openvino = _import()
        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": PRECISIONS[self._precision],
        }
        return openvino.AsyncInferQueue(core.compile_model(core.read_model(self._model), "CPU", options), streams)


def _import() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"the openvino backend needs the package openvino ({error}): {install_command('openvino')}") from error
    return openvino


def load_backend(name: str | os.PathLike[str]) -> OpenVinoBackend:
    """Load an exported model, or a model by name or checkpoint, as `runtime.load_backend` does."""
    return OpenVinoBackend(exported(name))
