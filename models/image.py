"""Images as the input of a network that is made for spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.base import TaggingNetwork

GREY_MEAN = 0.459  # of ImageNet, from the channels' means 0.485, 0.456, 0.406 in common use, weighted by luminance
GREY_STD = 0.226  # the mean of the channels' 0.229, 0.224, 0.225


def standardise(pixels: Tensor) -> Tensor:
    """Give grey images (B, 1, H, W) uint8 zero mean and unit variance over ImageNet, float32, from -2.0 (black) to 2.4 (white).

    The log-mel front end has about that range: -1.4 where there is silence, up to 2 for the loudest bands.
    """
    return (pixels.float() / 255.0 - GREY_MEAN) / GREY_STD


class ImageModel(nn.Module):
    """A network that is fed images: (B, 1, H, W) uint8, any size -> logits (B, K), embedding (B, C).

    Rows take the place of mel bands and columns that of frames.
    """

    def __init__(self, network: TaggingNetwork) -> None:
        super().__init__()
        self.network = network

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(standardise(pixels))
