"""Classification heads: from the last feature map (B, C, F, T) to logits (B, K)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp_head(in_channels: int, hidden: int, num_classes: int) -> nn.Sequential:
    """Global average pooling, one hidden layer with Hardswish and dropout 0.2, linear output."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(in_channels, hidden),
        nn.Hardswish(inplace=True),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(hidden, num_classes),
    )


def fully_convolutional_head(in_channels: int, num_classes: int) -> nn.Sequential:
    """A 1x1 convolution to the classes, batch norm, global average pooling of the class maps."""
    return nn.Sequential(
        nn.Conv2d(in_channels, num_classes, 1, bias=False),
        nn.BatchNorm2d(num_classes),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
    )


class MultiHeadAttentionPooling(nn.Module):
    """Attention over time with several heads (Gong et al., PSLA, 2021, Section III-C).

    Frequency is averaged out; each head weighs each class's frames by a sigmoid attention normalised over time.
    """

    def __init__(self, in_channels: int, num_classes: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_heads = num_heads
        self.subspace_proj = nn.Linear(in_channels, 2 * num_heads * num_classes)
        self.head_weight = nn.Parameter(torch.full((num_heads,), 1.0 / num_heads).view(1, num_heads, 1))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.mean(2).transpose(1, 2)  # (B, T, C)
        paths = self.subspace_proj(frames).unflatten(-1, (2, self.num_heads, self.num_classes))  # (B, T, 2, H, K)
        attention, value = paths.unbind(2)
        attention = torch.sigmoid(attention).clamp(1e-7, 1 - 1e-7)
        attention = attention / attention.sum(1, keepdim=True)
        pooled = (attention * value).sum(1)  # (B, H, K)
        return (pooled * self.head_weight).sum(1)
