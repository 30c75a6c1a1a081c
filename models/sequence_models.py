"""Sequence models between the backbone of a frame-wise network and its heads: (B, T, features) -> (B, T, size), for any T.

`tf` is a transformer with rotary positions (Su et al., RoFormer, 2021), `hybrid` one whose heads have attention and a recurrent
branch side by side (after Hymba, Dong et al., ICLR 2025), the minGRU (Feng et al., "Were RNNs All We Needed?", 2024); `gru` is
that of torch. As in Morocutti et al., EUSIPCO 2025. The names of submodules fix those in the state dict.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import FrameWiseArch

LAYERS = 2
DROPOUT = 0.2  # of tf, in training
ROTARY_BASE = 10_000.0


def make_sequence_model(arch: FrameWiseArch, features: int) -> nn.Module:
    """Return the sequence model of an architecture, behind a backbone with so many features."""
    if arch.sequence_model == "none":
        return nn.Identity()
    if arch.sequence_model == "gru":
        return nn.Sequential(nn.Sequential(OrderedDict(gru=BidirectionalGRU(features, arch.sequence_size))))
    layer = {"tf": TransformerLayer, "hybrid": HybridLayer}[arch.sequence_model]
    size = arch.sequence_size
    entry = nn.Identity() if features == size else nn.Linear(features, size)
    model = nn.Sequential(entry, Layers([layer(size, arch.sequence_heads) for _ in range(LAYERS)], size))
    if arch.sequence_model == "tf":
        for module in model.modules():
            if isinstance(module, nn.Linear) and not module.weight.is_meta:
                nn.init.normal_(module.weight, 0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model


def output_size(arch: FrameWiseArch, features: int) -> int:
    """Return the values of a step behind the sequence model."""
    if arch.sequence_model == "none":
        return features
    return 2 * arch.sequence_size if arch.sequence_model == "gru" else arch.sequence_size


class RMSNorm(nn.Module):
    """x over the root of its mean square, times `gamma`, along the last axis (Zhang and Sennrich, NeurIPS 2019)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1) * (len(self.gamma) ** 0.5 * self.gamma)


class Layers(nn.Module):
    """Layers one after the other, and a norm."""

    def __init__(self, layers: list[nn.Module], size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class RotaryPositions(nn.Module):
    """Turns pairs of channels by angles that grow with the position; the angles' rates are part of the weights."""

    def __init__(self, head_size: int) -> None:
        super().__init__()
        rates = [ROTARY_BASE ** (-first / head_size) for first in range(0, head_size, 2)]  # a power on meta tensors is slow
        self.freqs = nn.Parameter(torch.tensor(rates), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, heads, T, head size) -> the same, turned; in float32 at least, as angles reach thousands."""
        kind = torch.promote_types(self.freqs.dtype, torch.float32)
        angles = torch.arange(x.shape[2], device=x.device, dtype=kind)[:, None] * self.freqs.to(kind)  # (T, pairs)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


class GatedAttention(nn.Module):
    """Self-attention with rotary positions, each head's result behind a gate, and the norm before all that."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.pos_encoding = RotaryPositions(size // heads)
        self.norm = RMSNorm(size)
        self.to_qkv = nn.Linear(size, 3 * size, bias=False)
        self.to_gates = nn.Linear(size, heads)
        self.to_out = nn.Sequential(nn.Linear(size, size, bias=False), nn.Dropout(DROPOUT))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = split_heads(self.to_qkv(x), self.heads)
        q, k = self.pos_encoding(q), self.pos_encoding(k)
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        y = y * self.to_gates(x).sigmoid().mT.unsqueeze(-1)  # (B, heads, T, 1)
        return self.to_out(join_heads(y))


class FeedForward(nn.Module):
    """Norm, and two linear layers with GELU between them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            RMSNorm(size), nn.Linear(size, 4 * size), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(4 * size, size), nn.Dropout(DROPOUT)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerLayer(nn.ModuleList):
    """Attention and two linear layers, each added to its input."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__([GatedAttention(size, heads), FeedForward(size)])

    def forward(self, x: Tensor) -> Tensor:
        for part in self:
            x = x + part(x)
        return x


class MinGRU(nn.Module):
    """A recurrent layer whose gate and candidate depend on the input alone: h_t = (1 - z_t) h_(t-1) + z_t g(a_t), h_0 = 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.to_hidden_and_gate = nn.Linear(size, 2 * size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.to_hidden_and_gate(x).chunk(2, -1)
        candidate = torch.where(hidden >= 0, hidden + 0.5, hidden.sigmoid())
        return linear_recurrence((-gate).sigmoid(), gate.sigmoid() * candidate)


class BidirectionalMinGRU(nn.Module):
    """A minGRU forwards and another one backwards, joined by a linear layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.forward_minGRU = MinGRU(size)
        self.backward_minGRU = MinGRU(size)
        self.to_out = nn.Linear(2 * size, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(torch.cat([self.forward_minGRU(x), self.backward_minGRU(x.flip(1)).flip(1)], -1))


class HybridMixer(nn.Module):
    """For each head the mean of two normed branches: attention without positions, and a recurrent layer."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(size, 3 * size, bias=False)
        self.rnn = BidirectionalMinGRU(size)
        self.rnn_out_norm = RMSNorm(size // heads)
        self.attn_out_norm = RMSNorm(size // heads)
        self.to_out = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.to_qkv(x), self.heads)
        attended = functional.scaled_dot_product_attention(q, k, v)
        recurrent = self.rnn(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.to_out(join_heads(0.5 * (self.rnn_out_norm(recurrent) + self.attn_out_norm(attended))))


class HybridLayer(nn.ModuleList):
    """Norm and mixer, norm and two linear layers, each pair added to its input."""

    def __init__(self, size: int, heads: int) -> None:
        linear = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        super().__init__([RMSNorm(size), HybridMixer(size, heads), RMSNorm(size), linear])

    def forward(self, x: Tensor) -> Tensor:
        mixer_norm, mixer, linear_norm, linear = self
        x = x + mixer(mixer_norm(x))
        return x + linear(linear_norm(x))


class BidirectionalGRU(nn.GRU):
    """torch's GRU of `LAYERS` layers in both directions: (B, T, features) -> (B, T, 2 size)."""

    def __init__(self, features: int, size: int) -> None:
        super().__init__(features, size, LAYERS, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:  # has shapes alone, for which torch would go through all steps
            return x.new_empty(*x.shape[:2], 2 * self.hidden_size)
        return super().forward(x)[0]


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 size) -> queries, keys and values, (B, heads, T, head size) each."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, T, head size) -> (B, T, size)."""
    return x.transpose(1, 2).flatten(2)


def linear_recurrence(decay: Tensor, value: Tensor) -> Tensor:
    """Return h with h_t = decay_t h_(t-1) + value_t along the second axis of (B, T, size), h being 0 before the first step.

    Each pass doubles the `span` of values that h_t counts, so log2(T) of them do (Hillis and Steele, 1986).
    """
    span = 1
    while span < value.shape[1]:
        earlier = [functional.pad(x[:, :-span], (0, 0, span, 0)) for x in (value, decay)]
        value = value + decay * earlier[0]
        decay = decay * earlier[1]
        span *= 2
    return value
