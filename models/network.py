"""The MobileNetV3 network for audio tagging."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.blocks import ConvNormActivation, InvertedResidual, conv_out_size, large_block_configs, make_divisible
from models.config import Arch, MelConfig
from models.errors import UserError
from models.heads import MultiHeadAttentionPooling, fully_convolutional_head, mlp_head


class MobileNetV3(nn.Module):
    """MobileNetV3-Large over one-channel log-mel spectrograms (Schmid et al., ICASSP 2023).

    `arch`, `mel`, `labels`, `single_label` and `clip_seconds` travel with the weights: the front end the network expects
    (`AugmentMelSTFT.from_config(model.mel)`), the name of each class, or None where the classes have no names, whether a clip
    has exactly one class, so that scores are the softmax of the logits and not their sigmoid, and the length of the clips it was
    trained with, to which shorter ones were padded with zeros, or None where that is not known.
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
        layers: list[nn.Module] = [ConvNormActivation(1, blocks[0].in_channels, kernel=3, stride=2, activation=nn.Hardswish)]
        for config in blocks:
            sizes = {axis: config.out_size(size) for axis, size in sizes.items()}
            layers.append(InvertedResidual(config, sizes, arch.se_dims, arch.se_agg, arch.se_r))
        self.embedding_size = 6 * blocks[-1].out_channels
        layers.append(ConvNormActivation(blocks[-1].out_channels, self.embedding_size, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)

        if arch.head_type == "mlp":
            hidden = make_divisible((640 if arch.reduced_tail else 1280) * arch.width_mult)
            self.classifier = mlp_head(self.embedding_size, hidden, arch.num_classes)
        elif arch.head_type == "fully_convolutional":
            self.classifier = fully_convolutional_head(self.embedding_size, arch.num_classes)
        else:
            self.classifier = MultiHeadAttentionPooling(self.embedding_size, arch.num_classes, arch.multihead_attention_heads)
        self.apply(_initialise)

    @property
    def last_layer(self) -> str:
        """What the names of the parameters begin with that belong to single classes: the last layer (mlp), or the whole head."""
        return "classifier.5." if self.arch.head_type == "mlp" else "classifier."

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> scores (..., K) in [0, 1]: softmax where a clip has exactly one class, else sigmoid."""
        return logits.softmax(-1) if self.single_label else logits.sigmoid()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, n_mels, frames) -> logits (B, K) and the embedding (B, C), the global average of the last feature map."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise UserError(f"expected spectrograms of shape (B, 1, n_mels, frames), got {tuple(x.shape)}")
        features = self.features(x)
        return self.classifier(features), features.mean((2, 3))


def _initialise(module: nn.Module) -> None:
    """Convolutions Kaiming normal (fan out), norms 1 and 0, linear layers normal(0, 0.01) without bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
