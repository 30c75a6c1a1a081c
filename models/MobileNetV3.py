"""The public door: `get_model` builds a MobileNetV3, fresh or with the weights of a released, bundled or own checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from models import checkpoints
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3

__all__ = ["MobileNetV3", "get_model"]


def get_model(
    num_classes: int = 527,
    pretrained_name: str | None = None,
    width_mult: float | None = None,
    reduced_tail: bool = False,
    dilated: bool = False,
    strides: Sequence[int] | None = None,
    head_type: str | None = None,
    multihead_attention_heads: int = 4,
    input_dim_f: int | None = None,
    input_dim_t: int = 1000,
    se_dims: str = "c",
    se_agg: str = "max",
    se_r: int = 4,
) -> MobileNetV3:
    """Build a MobileNetV3, with the weights and the whole configuration of `pretrained_name` if that is given.

    `pretrained_name` is a released model ("mn10_as", see `models.registry`), a bundled one, or the path of a checkpoint of this
    project. None stands for the checkpoint's value, else width 1.0, strides (2, 2, 2, 2), head "mlp" and 128 mel bands.
    `num_classes` may differ from the checkpoint's: then the last layer (mlp) or the head (other heads) starts anew. Any other
    argument that contradicts the checkpoint is a `ValueError`; a file that cannot be had or used raises `AssetError`.
    """
    given = {
        "width_mult": width_mult,
        "reduced_tail": reduced_tail,
        "dilated": dilated,
        "strides": None if strides is None else tuple(strides),
        "head_type": head_type,
        "multihead_attention_heads": multihead_attention_heads,
        "input_dim_f": input_dim_f,
        "input_dim_t": input_dim_t,
        "se_dims": se_dims,
        "se_agg": se_agg,
        "se_r": se_r,
    }
    if pretrained_name is None:
        return MobileNetV3(Arch(num_classes, **{name: value for name, value in given.items() if value is not None}))

    checkpoint = checkpoints.load(pretrained_name)
    defaults = inspect.signature(get_model).parameters
    for name, value in given.items():
        stored = getattr(checkpoint.arch, name)
        without_weights = name == "input_dim_t" and "t" not in checkpoint.arch.se_dims
        if value not in (defaults[name].default, stored) and not without_weights:
            raise UserError(f"{name}={value!r} contradicts {pretrained_name}, which has {stored!r}; leave it out")
    return checkpoints.build(checkpoint, num_classes)
