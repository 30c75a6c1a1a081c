"""What the `get_model` of every family does: a network with random weights, or with those of a checkpoint of any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from models import checkpoints
from models.base import TaggingNetwork
from models.config import Architecture, is_whole
from models.errors import UserError
from models.waveform import WaveformModel

Shown = Callable[[str, object], str]  # how the value of a field was given, for messages


def as_argument(name: str, value: object) -> str:
    return f"{'pretrain_final_temp' if name == 'temperature' else name}={value!r}"


def build_model(
    family: type[Architecture],
    num_classes: int | None,
    pretrained_name: str | None,
    arguments: Mapping[str, Any],
    waveform: bool = False,
    pretrain_final_temp: float | None = None,
    shown: Shown = as_argument,
) -> TaggingNetwork | WaveformModel:
    """Build a network of `family`, or of the checkpoint's family with its weights and its whole configuration.

    `arguments` are fields of the architecture; None stands for the checkpoint's value, else for the default. One that contradicts
    the checkpoint is a `UserError`. `pretrain_final_temp` replaces a checkpoint's temperature.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items() if value is not None}
    if num_classes is not None and not is_whole(num_classes):
        raise UserError(f"num_classes must be a whole number, not {num_classes!r:.100}")
    if pretrained_name is None:
        if pretrain_final_temp is not None:
            raise UserError("pretrain_final_temp replaces the temperature of a checkpoint; without one, give T_max")
        network = new_architecture(family, given if num_classes is None else {"num_classes": num_classes, **given}).build()
    else:
        if pretrain_final_temp is not None:
            given["temperature"] = pretrain_final_temp
        checkpoint = checkpoints.load(pretrained_name)
        started = family.on_backbone(checkpoint.arch, given if num_classes is None else {"num_classes": num_classes, **given})
        if started is not None:
            network = checkpoints.build_on_backbone(checkpoint, started)
            return WaveformModel(network) if waveform else network
        free = {name: given.pop(name) for name in checkpoint.arch.free_fields if name in given}
        for name, value in given.items():
            check_argument(checkpoint.arch, name, value, pretrained_name, shown)
        checkpoint = replace(checkpoint, arch=checkpoint.arch.as_start(**free))
        network = checkpoints.build(checkpoint, num_classes, copy=False)
    return WaveformModel(network) if waveform else network


def new_architecture(family: type[Architecture], given: Mapping[str, Any], shown: Shown = as_argument) -> Architecture:
    """Return the architecture with the fields that are given; what its family does not leave open must be as the family has it."""
    open_fields = {field.name for field in fields(family)}
    arch = family(**{name: value for name, value in given.items() if name in open_fields})
    for name in given.keys() - open_fields:
        check_argument(arch, name, given[name], f"{family.family} networks", shown)
    return arch


def check_argument(arch: Architecture, name: str, value: object, source: str, shown: Shown = as_argument) -> None:
    """Raise `UserError` if a field's `value` contradicts `arch`, which comes from `source`."""
    if not hasattr(arch, name):
        raise UserError(f"{shown(name, value)} means nothing to {source} (family {arch.family}); leave it out")
    stored = getattr(arch, name)
    sizes_no_weight = name == "input_dim_t" and "t" not in arch.se_dims
    if value != stored and not sizes_no_weight:
        raise UserError(f"{shown(name, value)} contradicts {source}, which has {stored!r}; leave it out")
