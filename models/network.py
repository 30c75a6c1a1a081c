"""The MobileNetV3 network for audio tagging."""

from __future__ import annotations

from torch import nn

from models.base import TaggingNetwork, initialise
from models.blocks import ConvNormActivation, InvertedResidual, conv_out_size, large_block_configs, make_divisible
from models.heads import MultiHeadAttentionPooling, fully_convolutional_head, mlp_head
from models.in_place import Hardswish


class MobileNetV3(TaggingNetwork):
    """MobileNetV3-Large over one-channel log-mel spectrograms (Schmid et al., ICASSP 2023)."""

    def _add_layers(self) -> None:
        arch = self.arch
        blocks = large_block_configs(arch.width_mult, arch.strides, arch.reduced_tail, arch.dilated)
        self.stage_channels = [blocks[0].in_channels, *(block.out_channels for block in blocks), 6 * blocks[-1].out_channels]
        sizes = {axis: conv_out_size(size, 3, 2) for axis, size in (("f", arch.input_dim_f), ("t", arch.input_dim_t))}
        layers: list[nn.Module] = [ConvNormActivation(1, blocks[0].in_channels, kernel=3, stride=2, activation=Hardswish)]
        for config in blocks:
            sizes = {axis: config.out_size(size) for axis, size in sizes.items()}
            layers.append(InvertedResidual(config, sizes, arch.se_dims, arch.se_agg, arch.se_r))
        layers.append(ConvNormActivation(blocks[-1].out_channels, self.embedding_size, activation=Hardswish))
        self.features = nn.Sequential(*layers)

        self.classifier = self._new_head()
        self.apply(initialise)

    def _new_head(self) -> nn.Module:
        arch = self.arch
        if arch.num_classes == 0:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))  # the embedding (B, C) in place of logits
        if arch.head_type == "mlp":
            hidden = make_divisible((640 if arch.reduced_tail else 1280) * arch.width_mult)
            return mlp_head(self.embedding_size, hidden, arch.num_classes)
        if arch.head_type == "fully_convolutional":
            return fully_convolutional_head(self.embedding_size, arch.num_classes)
        return MultiHeadAttentionPooling(self.embedding_size, arch.num_classes, arch.multihead_attention_heads)
