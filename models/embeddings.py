"""Embeddings from any layers of a network: named taps, pooling, combinations; of whole scenes and at time stamps.

| name | what it is | values at width 1 |
|---|---|---|
| mel | bands of the log-mel spectrogram, pooled over time | 128 |
| block0 | the stem, the first convolution | 16 |
| block1 ... block15 | output of an inverted residual block, pooled over frequency and time | 16 ... 160 |
| block16 | the last convolution | 960 |
| se4, se5, se6, se11 ... se15 | bottleneck of the squeeze-and-excitation in that block, all axes of it side by side | 24 ... 240 |
| embedding | that of `TaggingNetwork.forward`: the mean of block16, which enters the classifier, or of frames | 960 |
| hidden | first layer of the mlp head, after its activation | 1280 |
| logits | second layer of the mlp head, or all of another head | 527 |

Schmid et al., Low-Complexity Audio Embedding Extractors, EUSIPCO 2023, compare layers on the HEAR benchmark; the best choice there
is `PUBLISHED_BEST`, the means of four blocks and of mel.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional

from models.base import TaggingNetwork
from models.blocks import InvertedResidual
from models.config import POOLINGS, is_number
from models.errors import UserError
from models.preprocess import AugmentMelSTFT
from models.waveform import WaveformModel

PUBLISHED_BEST = ("block5", "block11", "block13", "block15", "mel")

SCENE_WINDOW, SCENE_HOP = 10.0, 2.5  # seconds
TIMESTAMP_WINDOW, TIMESTAMP_HOP = 0.16, 0.05
SECONDS_AT_ONCE = {"cpu": 20.0, "cuda": 600.0}  # of sound in one batch of windows, which bounds the memory


@dataclass(frozen=True)
class EmbeddingConfig:
    """Which layers an embedding consists of, side by side in this order, and how maps become vectors.

    `pooling` mean, max, or both side by side holds for mel and blocks; the other layers are vectors already. Names may be patterns,
    such as "block*" or "se1?". As text, layers are joined by "+".
    """

    layers: str | Sequence[str] = PUBLISHED_BEST
    pooling: str = "mean"

    def __post_init__(self) -> None:
        layers = self.layers.split("+") if isinstance(self.layers, str) else self.layers
        if not isinstance(layers, (list, tuple)) or not layers or not all(isinstance(layer, str) for layer in layers):
            raise UserError(f"layers are {self.layers!r:.100}; pass names of layers, as a list or joined by +")
        object.__setattr__(self, "layers", tuple(layer.strip() for layer in layers))
        if self.pooling not in POOLINGS:
            raise UserError(f"unknown pooling {self.pooling!r}; allowed: {', '.join(POOLINGS)}")

    def __str__(self) -> str:
        return "+".join(self.layers)

    def columns(self, network: TaggingNetwork) -> dict[str, slice]:
        """Return which columns of the embedding belong to which layer; nothing is computed.

        Raises `UserError` for a name that the network does not have, and for one given twice.
        """
        sizes = layer_sizes(network, self.pooling)
        layers = []
        for name in self.layers:
            found = fnmatch.filter(sizes, name)
            if not found:
                raise UserError(f"unknown layer {name!r}; this network has {', '.join(sizes)}, and patterns such as block*")
            layers += found
        if len(set(layers)) < len(layers):
            raise UserError(f"layers are named twice in {self}")
        edges = accumulate((sizes[layer] for layer in layers), initial=0)
        return {layer: slice(*ends) for layer, ends in zip(layers, pairwise(edges), strict=True)}


def layer_sizes(network: TaggingNetwork, pooling: str = "mean") -> dict[str, int]:
    """Return the layers of a network by name, in the order in which they are computed, and how many values each one gives.

    The weights do not matter: a network on the meta device will do.
    """
    times = 2 if pooling == "both" else 1
    sizes = {"mel": times * network.mel.n_mels}
    for number, layer in enumerate(network.features):
        if isinstance(layer, InvertedResidual) and (attention := layer.squeeze_excitation):
            sizes[f"se{number}"] = sum(one.fc1.out_features for one in attention.conc_se_layers)
        sizes[f"block{number}"] = times * network.stage_channels[number]
    sizes["embedding"] = network.embedding_size
    if network.arch.num_classes == 0:
        return sizes
    if network.arch.head_type == "mlp":
        sizes["hidden"] = network.classifier[2].out_features
    return sizes | {"logits": network.arch.num_classes}


def forward_layers(
    network: TaggingNetwork, spectrogram: Tensor, layers: Collection[str], pooling: str = "mean"
) -> dict[str, Tensor]:
    """(B, 1, n_mels, frames) -> the named layers, vectors (B, size) each, from one pass that ends after the last of them."""
    found = {}
    if "mel" in layers:
        found["mel"] = _pool(spectrogram[:, 0], pooling, -1)
    x = spectrogram.to(next(network.parameters()).dtype)
    for number, stage in enumerate(network.features):
        if len(found) == len(layers):
            break
        if f"se{number}" in layers:
            x, bottlenecks = stage.forward_with_bottlenecks(x)
            found[f"se{number}"] = torch.cat(bottlenecks, dim=1)
        else:
            x = stage(x)
        if f"block{number}" in layers:
            found[f"block{number}"] = _pool(x, pooling, (2, 3))
    if "hidden" not in layers and {"embedding", "logits"} <= set(layers):
        found["logits"], found["embedding"] = network.forward_outputs(x)
    elif "embedding" in layers:
        found["embedding"] = network.forward_head(x, pre_logits=True)
    if "hidden" in layers:
        x = found["hidden"] = network.classifier[:4](x)
        if "logits" in layers:
            found["logits"] = network.classifier[4:](x)
    elif "logits" in layers and "logits" not in found:
        found["logits"] = network.forward_head(x)
    return {layer: found[layer] for layer in layers}


def _pool(x: Tensor, pooling: str, axes: int | tuple[int, int]) -> Tensor:
    pooled = [x.mean(axes)] if pooling != "max" else []
    if pooling != "mean":
        pooled.append(x.amax(axes))
    return torch.cat(pooled, dim=-1)


class EmbeddingModel(WaveformModel):
    """A network behind its front end whose embedding is made of chosen layers.

    `columns` maps each layer to its share of the `embedding_size` values. In evaluation mode the same waveforms give the same bits
    each time, and a clip's result depends on the others in its batch by no more than float32's rounding. The network's memory
    layout becomes channels last, which can change the last bits of what it computes.
    """

    def __init__(
        self, network: TaggingNetwork, config: EmbeddingConfig | None = None, front_end: AugmentMelSTFT | None = None
    ) -> None:
        super().__init__(network, front_end)
        network.to(memory_format=torch.channels_last)  # batches of short windows are 3 times as fast on a CPU
        self.config = config or EmbeddingConfig()
        self.columns = self.config.columns(network)

    @property
    def embedding_size(self) -> int:
        return max(columns.stop for columns in self.columns.values())

    def forward_spectrogram(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, n_mels, frames) from the front end -> logits (B, K) and the embedding (B, embedding_size)."""
        found = forward_layers(self.network, spectrogram, dict.fromkeys([*self.columns, "logits"]), self.config.pooling)
        return found["logits"], self._side_by_side(found)

    def embed(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> (B, embedding_size) float32; layers after the last one that is needed are not computed."""
        spectrogram = self.front_end(waveform).unsqueeze(1)
        return self._side_by_side(forward_layers(self.network, spectrogram, self.columns, self.config.pooling))

    @torch.no_grad()
    def scenes(self, waveform: Tensor, window: float = SCENE_WINDOW, hop: float = SCENE_HOP) -> Tensor:
        """(B, samples) -> (B, embedding_size): the mean over windows of `window` seconds, every `hop` seconds one.

        The last window is moved back so that it ends with the clip; a clip shorter than a window is one window of its own length.
        """
        check_waveforms(waveform, window=window, hop=hop)
        samples, step = waveform.shape[1], round(hop * self.sample_rate)
        length = min(max(1, round(window * self.sample_rate)), samples)
        starts = list(range(0, samples - length + 1, max(1, step)))
        if starts[-1] + length < samples:
            starts.append(samples - length)
        return self._windows(waveform, starts, length).mean(1)

    @torch.no_grad()
    def timestamps(self, waveform: Tensor, window: float = TIMESTAMP_WINDOW, hop: float = TIMESTAMP_HOP) -> tuple[Tensor, Tensor]:
        """(B, samples) -> embeddings (B, T, embedding_size) and their times (B, T) in milliseconds.

        Times are 0, hop, 2 hop, ... up to the end of the clip. An embedding is that of the `window` seconds around its time, with
        zeros before the beginning and after the end of the clip.
        """
        check_waveforms(waveform, window=window, hop=hop)
        length = max(1, round(window * self.sample_rate))
        count = int(waveform.shape[1] / (hop * self.sample_rate) + 1e-6) + 1
        starts = [round(number * hop * self.sample_rate) for number in range(count)]  # each for itself: errors do not add up
        padded = functional.pad(waveform, (length // 2, length - length // 2))
        times = 1000 * hop * torch.arange(count, dtype=torch.float64, device=waveform.device)
        return self._windows(padded, starts, length), times.float().expand(len(waveform), -1)

    def _windows(self, waveform: Tensor, starts: Sequence[int], length: int) -> Tensor:
        """(B, samples) -> (B, len(starts), embedding_size): the windows of all clips together, in batches."""
        seconds = SECONDS_AT_ONCE.get(self.device.type, SECONDS_AT_ONCE["cpu"])
        size = max(1, round(seconds * self.sample_rate / length))
        windows = [clip[start : start + length] for clip in waveform for start in starts]
        rows = [self.embed(torch.stack(windows[first : first + size])) for first in range(0, len(windows), size)]
        return torch.cat(rows).view(len(waveform), len(starts), -1)

    def _side_by_side(self, found: dict[str, Tensor]) -> Tensor:
        return torch.cat([found[layer].float() for layer in self.columns], dim=1)


def check_waveforms(waveform: Tensor, **seconds: float) -> None:
    """Raise `UserError` for what are no waveforms (B, samples), and for seconds by name that are not above 0."""
    if not isinstance(waveform, Tensor) or not waveform.is_floating_point():
        given = waveform.dtype if isinstance(waveform, Tensor) else type(waveform).__name__
        raise UserError(f"expected a floating-point tensor of waveforms (B, samples), got {given}")
    if waveform.ndim != 2 or 0 in waveform.shape:
        raise UserError(f"expected waveforms of shape (B, samples), got {tuple(waveform.shape)}")
    if not waveform.isfinite().all():
        raise UserError("the waveforms have samples that are not finite (NaN or infinite); clean them first")
    for name, value in seconds.items():
        if not is_number(value) or value <= 0:
            raise UserError(f"{name} is {value!r:.50}; it must be a number of seconds above 0")
