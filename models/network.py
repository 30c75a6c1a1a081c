"""The MobileNetV3 network for audio tagging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from torch import Tensor, nn

from models.blocks import ConvNormActivation, InvertedResidual, conv_out_size, large_block_configs, make_divisible
from models.config import Arch, MelConfig
from models.errors import UserError
from models.heads import MultiHeadAttentionPooling, fully_convolutional_head, mlp_head
from models.in_place import Hardswish


class MobileNetV3(nn.Module):
    """MobileNetV3-Large over one-channel log-mel spectrograms (Schmid et al., ICASSP 2023).

    These attributes are stored with the weights: `arch`; `mel`, the front end that the network expects
    (`AugmentMelSTFT.from_config(model.mel)`); `labels`, the name of each class, or None; `single_label`, whether each clip has
    exactly one class, so that scores are the softmax of the logits and not their sigmoid; `clip_seconds`, the length of the clips
    in training, to which shorter ones were padded with zeros, or None where it is unknown.
    """

    def __init__(
        self,
        arch: Arch,
        mel: MelConfig | None = None,
        labels: Sequence[str] | None = None,
        single_label: bool = False,
        clip_seconds: float | None = None,
    ) -> None:
        super().__init__()
        if labels is not None and len(labels) != arch.num_classes:
            raise UserError(f"{len(labels)} labels do not name {arch.num_classes} classes")
        self.arch = arch
        self.mel = mel or MelConfig(n_mels=arch.input_dim_f)
        self.labels = tuple(labels) if labels is not None else None
        self.single_label = single_label
        self.clip_seconds = clip_seconds

        blocks = large_block_configs(arch.width_mult, arch.strides, arch.reduced_tail, arch.dilated)
        sizes = {axis: conv_out_size(size, 3, 2) for axis, size in (("f", arch.input_dim_f), ("t", arch.input_dim_t))}
        layers: list[nn.Module] = [ConvNormActivation(1, blocks[0].in_channels, kernel=3, stride=2, activation=Hardswish)]
        for config in blocks:
            sizes = {axis: config.out_size(size) for axis, size in sizes.items()}
            layers.append(InvertedResidual(config, sizes, arch.se_dims, arch.se_agg, arch.se_r))
        self.embedding_size = 6 * blocks[-1].out_channels
        layers.append(ConvNormActivation(blocks[-1].out_channels, self.embedding_size, activation=Hardswish))
        self.features = nn.Sequential(*layers)

        self.classifier = self._new_head()
        self.apply(_initialise)

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

    @property
    def last_layer(self) -> str:
        """Prefix of the names of the parameters that belong to single classes: the last layer (mlp), or the whole head."""
        return "classifier.5." if self.arch.head_type == "mlp" else "classifier."

    def reset_classifier(self, num_classes: int) -> None:
        """Re-initialise the last layer (mlp) or the head (other heads) for `num_classes` classes without names; 0 removes the head.

        Everything in front of it keeps its weights; new layers are on the device, and of the type, of the others.
        """
        had_head = self.arch.num_classes > 0
        self.arch = replace(self.arch, num_classes=num_classes)
        self.labels, self.single_label = None, False
        if had_head and num_classes and self.arch.head_type == "mlp":
            new = self.classifier[5] = nn.Linear(self.classifier[5].in_features, num_classes)
        else:
            new = self.classifier = self._new_head()
        new.apply(_initialise).train(self.training)
        weight = self.features[0][0].weight
        new.to(weight.device, weight.dtype)

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> scores (..., K) in [0, 1]: softmax where a clip has exactly one class, else sigmoid."""
        return logits.softmax(-1) if self.single_label else logits.sigmoid()

    def __repr__(self) -> str:
        """One line; `print(network.features)` shows the layers."""
        settings = {field.name: getattr(self.arch, field.name) for field in fields(Arch)}
        shown = [f"{name}={value!r}" for name, value in settings.items() if value != getattr(Arch, name) or name == "num_classes"]
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return f"MobileNetV3({', '.join(shown)}; {parameters / 1e6:.2f} million parameters)"

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 1, n_mels, frames) -> the last feature map (B, C, F, T), C being `embedding_size`."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise UserError(f"expected floating-point spectrograms of shape (B, 1, n_mels, frames), got {given}")
        if x.ndim != 4 or x.shape[1] != 1:
            raise UserError(f"expected spectrograms of shape (B, 1, n_mels, frames), got {tuple(x.shape)}")
        return self.features(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, F, T) -> logits (B, K) or, with `pre_logits`, the embedding (B, C): the average over frequency and time."""
        return features.mean((2, 3)) if pre_logits else self.classifier(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, n_mels, frames) -> logits (B, K) and the embedding (B, C); without classes the logits are the embedding."""
        features = self.forward_features(x)
        return self.forward_head(features), self.forward_head(features, pre_logits=True)


def _initialise(module: nn.Module) -> None:
    """Convolutions Kaiming normal (fan out), norms 1 and 0, linear layers normal(0, 0.01) without bias.

    Weights on the meta device have no values, and `nn.init` on that device imports torch's compiler, which takes a second.
    """
    if getattr(module, "weight", None) is None or module.weight.is_meta:
        return
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
