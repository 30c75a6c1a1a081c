"""DyMN, the dynamic MobileNet (Schmid et al., TASLP 2024): the family's network and its `get_model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from models.base import TaggingNetwork, initialise
from models.blocks import ConvNormActivation, InvertedResidual, large_block_configs, make_divisible
from models.building import build_model
from models.config import DyMNArch
from models.dynamic_blocks import DynamicBlock, DynamicConv
from models.heads import mlp_head
from models.in_place import Hardswish
from models.registry import list_models
from models.waveform import WaveformModel

__all__ = ["DyMN", "get_model", "list_models"]


class DyMN(TaggingNetwork):
    """MobileNetV3-Large with dynamic blocks in the place of squeeze-and-excitation, over one-channel log-mel spectrograms."""

    def _add_layers(self) -> None:
        arch = self.arch
        blocks = large_block_configs(arch.width_mult, arch.strides)
        self.stage_channels = [blocks[0].in_channels, *(block.out_channels for block in blocks), 6 * blocks[-1].out_channels]
        self.layers = nn.ModuleList(  # before the stem, as in released state dicts
            DynamicBlock(config, arch)
            if config.use_se or arch.use_dy_blocks == "all"
            else InvertedResidual(config, {}, "none", "max", 4)
            for config in blocks
        )
        self.in_c = ConvNormActivation(1, self.stage_channels[0], kernel=3, stride=2, activation=Hardswish)
        self.out_c = ConvNormActivation(self.stage_channels[-2], self.embedding_size, activation=Hardswish)
        self.classifier = self._new_head()
        self.apply(initialise)
        self.set_temperature(arch.temperature)

    def _new_head(self) -> nn.Module:
        if self.arch.num_classes == 0:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))  # the embedding (B, C) in place of logits
        return mlp_head(self.embedding_size, make_divisible(1280 * self.arch.width_mult), self.arch.num_classes)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return self.in_c, *self.layers, self.out_c

    @property
    def features(self) -> nn.Sequential:
        """Stem, blocks and last convolution as one chain; the modules themselves, not copies."""
        return nn.Sequential(*self.stages)

    def _forward_stages(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of all dynamic convolutions; `arch` has it, and so have the checkpoints."""
        self.arch = replace(self.arch, temperature=temperature)
        for module in self.modules():
            if isinstance(module, DynamicConv):
                module.temperature = self.arch.temperature

    def start_epoch(self, epoch: int) -> None:
        """Lower the temperature to that of `epoch` (from 0) of a training."""
        self.set_temperature(self.arch.temperature_at(epoch))


def get_model(
    num_classes: int | None = None,
    pretrained_name: str | None = None,
    width_mult: float | None = None,
    strides: Sequence[int] | None = None,
    context_ratio: int | None = None,
    max_context_size: int | None = None,
    min_context_size: int | None = None,
    dyrelu_k: int | None = None,
    no_dyrelu: bool | None = None,
    dyconv_k: int | None = None,
    no_dyconv: bool | None = None,
    T_max: float | None = None,
    T0_slope: float | None = None,
    T1_slope: float | None = None,
    T_min: float | None = None,
    pretrain_final_temp: float | None = None,
    no_ca: bool | None = None,
    use_dy_blocks: str | None = None,
    *,
    waveform: bool = False,
) -> TaggingNetwork | WaveformModel:
    """Build a DyMN, or the network of `pretrained_name`, of whatever family, with its weights and whole configuration.

    `pretrained_name` is a released model ("dymn10_as", see `list_models`), a bundled one, or the path of one of our checkpoints.
    None stands for the checkpoint's value, else for the default of `models.config.DyMNArch`. `num_classes` may differ from the
    checkpoint's: the last layer is then re-initialised; 0 removes the head. The temperature is part of a checkpoint;
    `pretrain_final_temp` replaces it, and is where further training starts to lower it. Any other argument that contradicts the
    checkpoint is a `UserError`; a file that cannot be downloaded or used raises `AssetError`.

    The network maps spectrograms (B, 1, n_mels, frames) to logits (B, K) and embedding (B, C). With `waveform` its front end is in
    front of it: the result is a `WaveformModel`, which takes waveforms (B, samples) in [-1, 1] at `sample_rate`.
    """
    arguments = {
        "width_mult": width_mult,
        "strides": strides,
        "context_ratio": context_ratio,
        "max_context_size": max_context_size,
        "min_context_size": min_context_size,
        "dyrelu_k": dyrelu_k,
        "no_dyrelu": no_dyrelu,
        "dyconv_k": dyconv_k,
        "no_dyconv": no_dyconv,
        "T_max": T_max,
        "T0_slope": T0_slope,
        "T1_slope": T1_slope,
        "T_min": T_min,
        "no_ca": no_ca,
        "use_dy_blocks": use_dy_blocks,
    }
    return build_model(DyMNArch, num_classes, pretrained_name, arguments, waveform, pretrain_final_temp)
