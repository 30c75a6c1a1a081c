"""An exported model in ONNX Runtime: waveforms in, scores and embeddings out. Nothing here imports torch.

backend = load_backend("mn04_opensounds")
scores, embeddings = backend(np.zeros((1, 320000), np.float32))  # (B, num_classes), (B, embedding_size)
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime

from helpers import model_cache
from helpers.model_cache import FORMAT_VERSION, METADATA_KEY
from models.assets import AssetError


class BackendError(AssetError):
    """A file that is no exported model, or not one that takes waveforms."""


class OnnxBackend:
    """A file that export.py wrote, ready for waveforms of any number and length."""

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        """`threads`: how many to compute with; None: one for each core this process may use.

        Raises `FileNotFoundError` and `BackendError`.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"exported model {path} not found; make it with export.py")
        try:
            self._session = onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes, a dozen of them, have no other base
            raise BackendError(f"{path} cannot be read by ONNX Runtime: {' '.join(str(error).split())}") from error
        try:
            self.metadata = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
            version = self.metadata["format_version"]
        except (KeyError, ValueError) as error:
            raise BackendError(f"{path} was not written by export.py: it tells neither labels nor sample rate") from error
        if version != FORMAT_VERSION:
            raise BackendError(f"{path} has format {version} instead of {FORMAT_VERSION}; export it again")
        if self.metadata["input"] != "waveform":
            raise BackendError(f"{path} takes spectrograms; export it without --network_only")
        self.name: str = self.metadata["model_name"]
        self.sample_rate: int = self.metadata["sample_rate"]  # Hz
        self.num_classes: int = self.metadata["num_classes"]
        self.embedding_size: int = self.metadata["embedding_size"]
        self.single_label: bool = self.metadata["single_label"]
        self.labels: tuple[str, ...] = tuple(self.metadata["labels"])

    def __call__(self, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, samples) float32, mono, [-1, 1], at `sample_rate` -> scores (B, num_classes), embeddings (B, embedding_size)."""
        if waveforms.ndim != 2 or 0 in waveforms.shape or waveforms.dtype != np.float32:
            raise ValueError(f"expected float32 waveforms of shape (B, samples), got {waveforms.dtype} {waveforms.shape}")
        scores, embeddings = self._session.run(["scores", "embedding"], {"waveform": waveforms})
        return scores, embeddings


def load_backend(name: str | os.PathLike[str], threads: int | None = None) -> OnnxBackend:
    """Load an exported model (.onnx), or a model by name or checkpoint, which is exported when it is first used.

    Errors are those of `model_cache.exported` and of `OnnxBackend`.
    """
    return OnnxBackend(model_cache.exported(name), threads)


def session_options(threads: int | None) -> onnxruntime.SessionOptions:
    """Return how graphs are run here; `threads` None means one for each core."""
    options = onnxruntime.SessionOptions()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0  # 0: ONNX Runtime counts them
    options.intra_op_num_threads = threads or cores
    # Waiting threads sleep: spinning took half as much processor time again on busy cores, which decoding needs as well.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL  # the graph has no branches worth a thread
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL  # blocked layout of convolutions
    options.log_severity_level = 3  # errors only
    return options
