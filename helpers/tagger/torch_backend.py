"""Models in PyTorch for the tagger: waveforms in; scores and embeddings out, as numpy arrays."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.devices import synchronize, upload
from helpers.export.checks import check_results, check_scores_frames, check_waveforms
from helpers.tagger.backends import Results
from helpers.tagger.padded import forward_padded, groups_of_similar_length, takes_padding
from models import checkpoints
from models.embeddings import EmbeddingConfig, EmbeddingModel
from models.ensemble import EnsembleModel
from models.errors import UserError


def float32_convolutions() -> AbstractContextManager[None]:
    """Within it, convolutions on a GPU do not round their inputs to TF32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class TorchBackend:
    """A model or an ensemble with its front end on its device; attributes and calls are those of `OnnxBackend`."""

    has_parts = True

    def __init__(
        self,
        names: str | os.PathLike[str] | Sequence[str],
        device: torch.device | str | None = None,
        layers: str | Sequence[str] = "embedding",
        pooling: str = "mean",
    ) -> None:
        """`names`: a released or bundled model, a checkpoint, or several of them for an ensemble; errors as `checkpoints.load`.

        `device` None is a GPU when there is one, else the CPU. `layers` and `pooling` are those of `EmbeddingConfig`; an ensemble's
        embedding has those of its members side by side.
        """
        is_single = isinstance(names, (str, os.PathLike))
        config = EmbeddingConfig(layers, pooling)
        members = [EmbeddingModel(checkpoints.load_model(name), config) for name in ([names] if is_single else names)]
        self.model: EmbeddingModel | EnsembleModel = members[0] if is_single else EnsembleModel(members)
        self.columns: dict[str, tuple[int, int]] = {}
        for number, member in enumerate(members):
            start = sum(other.embedding_size for other in members[:number])
            prefix = "" if is_single else f"{number}:"
            self.columns |= {f"{prefix}{layer}": (start + s.start, start + s.stop) for layer, s in member.columns.items()}
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.model.eval().to(torch.device(device))
        except (RuntimeError, AssertionError, TypeError) as error:  # the second where torch was built without CUDA
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"device {str(device)!r:.100} cannot be used: {reason}") from error
        self.sample_rate = self.model.sample_rate
        self.num_classes = self.model.num_classes
        self.embedding_size = self.model.embedding_size
        self.labels = self.model.labels
        self.clip_seconds = self.model.clip_seconds
        self.step_seconds = self.model.step_seconds
        mel = members[0].front_end.config
        # A GPU computes whole windows sooner than spectrograms move to the CPU and back.
        can_share = self.device.type == "cpu" and all(member.front_end.config == mel for member in members)
        self.hop_size, self.min_samples = mel.hop_size if can_share else None, mel.min_samples
        is_usual = is_single and config.layers == ("embedding",)
        self._pads = self.device.type == "cuda" and is_usual and takes_padding(self.model.network)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the model on the CPU, as the process that reads it may have no GPU."""
        model = self.model if self.device.type == "cpu" else copy.deepcopy(self.model).cpu()
        return {**vars(self), "model": model, "_device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state.pop("_device")
        vars(self).update(state, _process=os.getpid())
        self.model.to(device if device.type != "cuda" or torch.cuda.is_available() else "cpu")
        self._pads = self._pads and self.device.type == "cuda"

    @property
    def device(self) -> torch.device:
        return self.model.device

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute scores (K,) in [0, 1] and embedding (C,), float32, of each waveform (samples,) float32 in [-1, 1].

        Waveforms of equal length are computed together; on a GPU also those of which none is more than twice as long as another,
        where `helpers.tagger.padded` knows the network: results then differ by float32's rounding. Errors are those of
        `OnnxBackend`.
        """
        check_waveforms(waveforms)
        if not self._pads or len(set(map(len, waveforms))) == 1:
            return self._results(self.model, waveforms)
        results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for group in groups_of_similar_length([len(waveform) for waveform in waveforms]):
            results |= zip(group, self._padded([waveforms[i] for i in group]), strict=True)
        return [results[i] for i in range(len(waveforms))]

    def spectrograms(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Compute the spectrogram (1, n_mels, frames) of each waveform; what is taken and raised is as in a call."""
        check_waveforms(waveforms)
        front_end = (self.model.members[0] if isinstance(self.model, EnsembleModel) else self.model).front_end
        return [spectrogram for (spectrogram,) in self._in_batches(lambda batch: [front_end(batch).unsqueeze(1)], waveforms)]

    def from_spectrograms(self, spectrograms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Compute what a call does, from spectrograms (1, n_mels, frames) float32."""
        model = self.model if isinstance(self.model, EnsembleModel) else self.model.forward_spectrogram
        return self._results(model, spectrograms)

    def frames(self, waveforms: Sequence[np.ndarray]) -> Results:
        """Compute scores (T, K) in [0, 1] and embeddings (T, C), float32, of the frames of each waveform, one each `step_seconds`.

        Embeddings are the network's own, whatever `layers` are. Errors are those of a call, and `UserError` where the model scores
        whole clips only.
        """
        check_scores_frames(self)
        check_waveforms(waveforms)

        def scored(batch: Tensor) -> list[Tensor]:
            output = self.model.forward_frames(batch)
            return [self.model.scores(output.logits.float()), output.embedding]

        results = self._in_batches(scored, waveforms)
        check_results(results, "the model")
        return results

    def _results(self, model: Callable[[Tensor], tuple[Tensor, Tensor]], clips: Sequence[np.ndarray]) -> Results:
        def scored(batch: Tensor) -> list[Tensor]:
            logits, embeddings = model(batch)
            return [self.model.scores(logits.float()), embeddings]

        results = self._in_batches(scored, clips)
        check_results(results, "the model")
        return results

    @torch.inference_mode()
    def _padded(self, waveforms: Sequence[np.ndarray]) -> Results:
        """Compute waveforms of any lengths in one batch: spectrograms one after the other, the network at once."""
        spectrograms = [self.model.front_end(upload(torch.from_numpy(one)[None], self.device))[0].T for one in waveforms]
        frames = [len(spectrogram) for spectrogram in spectrograms]
        batch = torch.nn.utils.rnn.pad_sequence(spectrograms, batch_first=True).mT.unsqueeze(1)  # (B, 1, n_mels, frames)
        with float32_convolutions():
            logits, embeddings = forward_padded(self.model.network, batch, frames)
        outputs = [values.to("cpu", non_blocking=True) for values in (self.model.scores(logits), embeddings)]
        synchronize(self.device)
        results = list(zip(*(values.numpy() for values in outputs), strict=True))
        check_results(results, "the model")
        return results

    @torch.inference_mode()
    def _in_batches(self, compute: Callable[[Tensor], list[Tensor]], clips: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
        """Compute each clip, together with others of its shape."""
        if os.getpid() != self._process:  # after a fork: OpenMP's threads are gone, and waiting for them would never end
            torch.set_num_threads(1)
            self._process = os.getpid()
        computed: list[tuple[list[int], list[Tensor]]] = []
        with float32_convolutions():
            for shape in {clip.shape for clip in clips}:
                group = [i for i, clip in enumerate(clips) if clip.shape == shape]
                outputs = compute(upload(torch.from_numpy(np.stack([clips[i] for i in group])), self.device))
                computed.append((group, [values.float().to("cpu", non_blocking=True) for values in outputs]))
        synchronize(self.device)
        results: dict[int, tuple[np.ndarray, ...]] = {}
        for group, outputs in computed:
            results |= zip(group, zip(*(values.numpy() for values in outputs), strict=True), strict=True)
        return [results[i] for i in range(len(clips))]
