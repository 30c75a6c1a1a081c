"""What the networks of all families have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from torch import Tensor, nn

from models.config import Architecture, MelConfig
from models.errors import UserError


class FrameOutput(NamedTuple):
    """Outputs of a frame-wise network for T steps in time, and those of its `forward`."""

    logits: Tensor  # (B, T, K)
    clip_logits: Tensor  # (B, K)
    embedding: Tensor  # (B, T, D)


class TaggingNetwork(nn.Module):
    """A network over one-channel log-mel spectrograms; each family is a subclass.

    A family has `_add_layers`, which registers its layers, sets `stage_channels` and calls `initialise`, and `features`, the chain
    of its stages: stem, blocks and last convolution. These attributes are stored with the weights: `arch`; `mel`, the front end
    that the network expects (`AugmentMelSTFT.from_config(model.mel)`); `labels`, the name of each class, or None; `single_label`,
    whether each clip has exactly one class, so that scores are the softmax of the logits and not their sigmoid; `clip_seconds`, the
    length of the clips in training, to which shorter ones were padded with zeros, or None where it is unknown.
    """

    features: nn.Sequential
    classifier: nn.Module
    stage_channels: list[int]  # of the output of each stage of `features`

    def __init__(
        self,
        arch: Architecture,
        mel: MelConfig | None = None,
        labels: Sequence[str] | None = None,
        single_label: bool = False,
        clip_seconds: float | None = None,
    ) -> None:
        super().__init__()
        if labels is not None and len(labels) != arch.num_classes:
            raise UserError(f"{len(labels)} labels do not name {arch.num_classes} classes")
        self.arch = arch
        self.mel = mel or replace(arch.default_mel, n_mels=arch.input_dim_f)
        self.labels = tuple(labels) if labels is not None else None
        self.single_label = single_label
        self.clip_seconds = clip_seconds
        self._add_layers()

    def _add_layers(self) -> None:
        """Register the layers that `arch` describes, in the order of the state dict."""
        raise NotImplementedError

    def _new_head(self) -> nn.Module:
        """Build the head: from the last feature map (B, C, F, T) to logits (B, K) or, without classes, to the embedding (B, C)."""
        raise NotImplementedError

    @property
    def stages(self) -> Iterable[nn.Module]:
        """The layers of `features`, one after the other."""
        return self.features

    @property
    def embedding_size(self) -> int:
        """Values of the embedding of a clip or of a frame."""
        return self.stage_channels[-1]

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one frame of `forward_frames` to the next; None: the network scores whole clips only."""
        return None

    @property
    def last_layer(self) -> str | tuple[str, ...]:
        """Prefix, or several, of the names of parameters that belong to single classes: the last layer (mlp), or the whole head."""
        return "classifier.5." if self.arch.head_type == "mlp" else "classifier."

    def start_epoch(self, epoch: int) -> None:
        """Set what changes in the course of a training from random or ImageNet weights, at the start of `epoch` (from 0)."""

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
        new.apply(initialise).train(self.training)
        weight = self.features[0][0].weight
        new.to(weight.device, weight.dtype)

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> scores (..., K) in [0, 1]: softmax where a clip has exactly one class, else sigmoid."""
        return logits.softmax(-1) if self.single_label else logits.sigmoid()

    def __repr__(self) -> str:
        """One line; `print(network.features)` shows the layers."""
        default = type(self.arch)()
        settings = {field.name: getattr(self.arch, field.name) for field in fields(self.arch)}
        shown = [
            f"{name}={value!r}" for name, value in settings.items() if value != getattr(default, name) or name == "num_classes"
        ]
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({', '.join(shown)}; {parameters / 1e6:.2f} million parameters)"

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 1, n_mels, frames) -> the last feature map (B, C, F, T), C being `stage_channels[-1]`."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise UserError(f"expected floating-point spectrograms of shape (B, 1, n_mels, frames), got {given}")
        if x.ndim != 4 or x.shape[1] != 1:
            raise UserError(f"expected spectrograms of shape (B, 1, n_mels, frames), got {tuple(x.shape)}")
        return self._forward_stages(x)

    def _forward_stages(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, F, T) -> logits (B, K) or, with `pre_logits`, the embedding (B, C): the average over frequency and time."""
        return features.mean((2, 3)) if pre_logits else self.classifier(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, n_mels, frames) -> logits (B, K) and the embedding (B, C); without classes the logits are the embedding."""
        return self.forward_outputs(self.forward_features(x))

    def forward_outputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, F, T) from `forward_features` -> what `forward` returns."""
        return self.forward_head(features), self.forward_head(features, pre_logits=True)

    def forward_frames(self, x: Tensor) -> FrameOutput:
        """(B, 1, n_mels, frames) -> outputs for each `step_seconds`; `UserError` where the network has none."""
        raise UserError(f"a {type(self).__name__} scores whole clips; for frames use a frame-wise network, such as fmn10_strong")


def initialise(module: nn.Module) -> None:
    """Convolutions Kaiming normal (fan out), norms 1 and 0, linear layers normal(0, 0.01); biases 0.

    Weights on the meta device have no values, and `nn.init` on that device imports torch's compiler, which takes a second.
    """
    if getattr(module, "weight", None) is None or module.weight.is_meta:
        return
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)
