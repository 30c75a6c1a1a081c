"""Front end and network as one module, so that weights are used with the front end they were trained with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import FrameOutput, TaggingNetwork
from models.config import Architecture, MelConfig
from models.preprocess import AugmentMelSTFT


class WaveformModel(nn.Module):
    """A network behind its front end: waveforms (B, samples) in [-1, 1] -> logits (B, K), embedding (B, C)."""

    def __init__(self, network: TaggingNetwork, front_end: AugmentMelSTFT | None = None) -> None:
        super().__init__()
        self.front_end = front_end or AugmentMelSTFT.from_config(network.mel)
        self.network = network

    def __repr__(self) -> str:
        """One line; `print(model.front_end, model.network.features)` shows the layers."""
        return f"{type(self).__name__}({self.sample_rate} Hz, {self.network!r})"

    @property
    def arch(self) -> Architecture:
        return self.network.arch

    @property
    def mel(self) -> MelConfig:
        """The front end that the network expects, see `TaggingNetwork`."""
        return self.network.mel

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.network.labels

    @property
    def single_label(self) -> bool:
        return self.network.single_label

    @property
    def clip_seconds(self) -> float | None:
        return self.network.clip_seconds

    @property
    def num_classes(self) -> int:
        return self.network.arch.num_classes

    @property
    def embedding_size(self) -> int:
        return self.network.embedding_size

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> scores (..., K) in [0, 1], see `TaggingNetwork.scores`."""
        return self.network.scores(logits)

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which waveforms are expected."""
        return self.front_end.config.sample_rate

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one frame of `forward_frames` to the next, see `TaggingNetwork.step_seconds`."""
        return self.network.step_seconds

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def forward_features(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> the last feature map (B, C, F, T)."""
        spectrogram = self.front_end(waveform).unsqueeze(1)
        return self.network.forward_features(spectrogram.to(self.network.features[0][0].weight.dtype))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """As `TaggingNetwork.forward_head`."""
        return self.network.forward_head(features, pre_logits)

    def reset_classifier(self, num_classes: int) -> None:
        """As `TaggingNetwork.reset_classifier`."""
        self.network.reset_classifier(num_classes)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_spectrogram(self.front_end(waveform).unsqueeze(1))  # float32, whatever the weights are

    def forward_frames(self, waveform: Tensor) -> FrameOutput:
        """(B, samples) -> what `TaggingNetwork.forward_frames` returns for the spectrograms."""
        spectrogram = self.front_end(waveform).unsqueeze(1)
        return self.network.forward_frames(spectrogram.to(self.network.features[0][0].weight.dtype))

    def forward_spectrogram(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, n_mels, frames) from the front end -> what `forward` returns for its waveforms."""
        return self.network(spectrogram.to(self.network.features[0][0].weight.dtype))
