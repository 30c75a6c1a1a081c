"""Checkpoints: released state dicts and the project's own files, loaded strictly, with surgery on the head alone.

A project checkpoint is a dict of plain data: {"model": state dict, "arch", "mel", "labels", "epoch", "metrics", "args"}, and
"family" (of the architecture; "mn" where it is missing), "single_label" (True: classes exclude each other), "clip_seconds" (s) and,
where a run can resume from it, "training".
"""

from __future__ import annotations

import functools
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import assets, files
from models.assets import AssetError
from models.base import TaggingNetwork
from models.config import FAMILIES, Architecture, MelConfig, from_plain, is_number, is_whole, to_plain
from models.errors import UserError
from models.registry import PRETRAINED, full_name

FLOAT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE_TYPES = (torch.int64, torch.int32)

logger = logging.getLogger(__name__)


class CheckpointError(AssetError):
    """A checkpoint file that is damaged, or that does not fit the network it is meant for."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights with everything needed to use them; `metrics` and `args` record where they come from."""

    name: str
    state: dict[str, Tensor]
    arch: Architecture
    mel: MelConfig
    labels: tuple[str, ...] | None = None
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    single_label: bool = False
    clip_seconds: float | None = None


def load(name: str | os.PathLike[str]) -> Checkpoint:
    """Load a released model, a bundled model, or a checkpoint of this project by its path.

    A released file is mapped into memory, privately, and read where its weights are used: the download folder holds files that
    are complete when they get their name and never written again. Project checkpoints, which may be, are read at once.

    Raises `UserError` for a name that is none of these, `FileNotFoundError` for a missing path, `AssetError` where a download
    fails and `CheckpointError` where a file is not a fitting checkpoint, or holds weights that are not finite.
    """
    name = _name(name)
    if name not in PRETRAINED:
        checkpoint = _parse(read_checkpoint_file(assets.checkpoint_path(name)), name)
        _check_finite(checkpoint.state, name)
        return checkpoint
    entry = PRETRAINED[name]

    def read(path: Path, checksums: bool = False) -> Checkpoint:
        state = read_checkpoint_file(path, mmap=True, checksums=checksums)
        _check_tensors(state, name)
        arch, state = entry.arch.read_released(state)
        _check_state(state, arch, name)
        _check_finite(state, name)
        return Checkpoint(name, state, arch, entry.mel)

    path = assets.fetch(entry.asset, lambda path: read(path, checksums=True), entry.size, entry.sha256, release=entry.release)
    return read(path)


def architecture(name: str | os.PathLike[str]) -> tuple[Architecture, MelConfig]:
    """Return the network's architecture and front end; nothing is downloaded and no weights are read. Errors as `load`."""
    name = _name(name)
    if name in PRETRAINED:
        return PRETRAINED[name].arch, PRETRAINED[name].mel
    checkpoint = _parse(read_checkpoint_file(assets.checkpoint_path(name), mmap=True), name)
    return checkpoint.arch, checkpoint.mel


def _name(name: object) -> str:
    """Return a name, in full, or a path as text."""
    if not isinstance(name, (str, os.PathLike)) or "\0" in os.fspath(name):
        raise UserError(f"a model is given by its name or by the path of its file, not by {name!r:.100}")
    return full_name(os.fspath(name))


def build(checkpoint: Checkpoint, num_classes: int | None = None, *, copy: bool = True) -> TaggingNetwork:
    """Build the network of a checkpoint with its weights; without `copy` it takes over the tensors of `checkpoint.state`.

    With another `num_classes` the last layer (mlp) or the head (other heads) is re-initialised, which is logged, and the labels are
    dropped; 0 removes the head.
    """
    if num_classes and num_classes != checkpoint.arch.num_classes:
        # Drawn as a fresh network is, so that a seed stands for the same new layer whatever the checkpoint is.
        arch = checkpoint.arch.with_classes(num_classes)
        model = arch.build(checkpoint.mel, clip_seconds=checkpoint.clip_seconds)
        kept = {key: tensor for key, tensor in checkpoint.state.items() if not key.startswith(model.last_layer)}
        state = model.state_dict()
        model.load_state_dict(state | kept)
        logger.warning(
            "%s: %d instead of %d classes, so %s are re-initialised",
            checkpoint.name, num_classes, checkpoint.arch.num_classes, ", ".join(sorted(state.keys() - kept.keys())),
        )  # fmt: skip
        return model
    model = _spare.pop(checkpoint.arch, None) or _without_values(checkpoint.arch)
    model.mel, model.labels = checkpoint.mel, checkpoint.labels
    model.single_label, model.clip_seconds = checkpoint.single_label, checkpoint.clip_seconds
    state = {key: _stored_as(expected, checkpoint.state[key].detach(), copy) for key, expected in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    if num_classes == 0:
        model.reset_classifier(0)
    return model


def build_on_backbone(checkpoint: Checkpoint, arch: Architecture) -> TaggingNetwork:
    """Build a new network on the features of a checkpoint, with its front end; what lies behind them is random, which is logged."""
    model = arch.build(checkpoint.mel, clip_seconds=checkpoint.clip_seconds)
    named = ((key.rpartition("features.")[2], tensor) for key, tensor in checkpoint.state.items() if "features." in key)
    model.features.load_state_dict(dict(named))
    logger.warning("%s: a new network of family %s takes its features alone", checkpoint.name, arch.family)
    return model


def _stored_as(expected: Tensor, tensor: Tensor, copy: bool) -> Tensor:
    """Return `tensor` in the type and memory layout of `expected`: itself where it has them, unless a copy is asked for."""
    if copy or tensor.dtype != expected.dtype or tensor.stride() != expected.stride():
        return torch.empty_like(expected, device="cpu").copy_(tensor)
    return tensor


def load_model(name: str | os.PathLike[str]) -> TaggingNetwork:
    """Load a model with its own classes, in evaluation mode; errors as `load`."""
    return build(load(name), copy=False).eval()


def save(
    path: Path,
    model: TaggingNetwork,
    *,
    epoch: int | None = None,
    metrics: Mapping[str, float] | None = None,
    args: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a project checkpoint: complete under its name or, after any failure, not at all.

    `training` is what a run needs to resume: tensors and plain data, such as the state of an optimizer.
    """
    content = {
        "model": {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()},
        "family": model.arch.family,
        "arch": to_plain(model.arch),
        "mel": to_plain(model.mel),
        "labels": None if model.labels is None else list(model.labels),
        "single_label": model.single_label,
        "clip_seconds": model.clip_seconds,
        "epoch": epoch,
        "metrics": to_plain_data(metrics or {}),
        "args": to_plain_data(args or {}),
    }
    if training is not None:
        content["training"] = training
    files.write_atomically(path, lambda file: torch.save(content, file))


def load_training(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Load a project checkpoint and its "training"; errors as `load`, and `CheckpointError` for one that has none."""
    content = read_checkpoint_file(path)
    checkpoint = _parse(content, os.fspath(path))
    _check_finite(checkpoint.state, checkpoint.name)
    if not isinstance(content.get("training"), dict):
        raise CheckpointError(f"{path} holds a model alone; a run resumes from its last.pt")
    return checkpoint, content["training"]


def to_plain_data(value: Any) -> Any:
    """Turn numpy scalars and paths into numbers and text, so that checkpoints and JSON files hold nothing but plain data."""
    if isinstance(value, Mapping):
        return {str(key): to_plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain_data(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds plain data, not {type(value).__name__}: {value!r}")


def read_checkpoint_file(path: Path, *, mmap: bool = False, checksums: bool = False) -> Any:
    """Unpickle tensors and plain data only; anything else, or a damaged file, is a `CheckpointError`.

    `mmap` maps the file privately (changing a tensor does not change the file) in place of reading it, `checksums` verifies those
    of the archive, which reads the whole file once more.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the path of one checkpoint (.pt)")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} not found; give the path of a file or the name of a model")
    try:
        is_archive = zipfile.is_zipfile(path)  # not so in torch's format before 1.6
        if is_archive:
            _check_archive(path, checksums)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
    except Exception as error:  # the unpickler fails on damaged files in many ways, IndexError and struct.error among them
        with open(path, "rb") as file:
            start = file.read(64).lstrip().lower()
        kind = "a web page" if start.startswith((b"<!doctype", b"<html")) else "damaged, or holds more than weights and plain data"
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: it is {kind}; remove it and fetch it again"
        ) from error


def _check_archive(path: Path, checksums: bool) -> None:
    """Raise `CheckpointError` for an archive that is larger unpacked than packed: torch does not compress."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise CheckpointError("larger unpacked than packed")
        if checksums and (damaged := archive.testzip()):  # torch.load does not look at the checksums
            raise CheckpointError(f"wrong checksum of {damaged}")


def _check_state(state: Any, arch: Architecture, name: str) -> None:
    """Raise `CheckpointError` unless `state` has exactly the names and shapes of the network, and numbers of the same kind."""
    _check_tensors(state, name)
    expected = _expected_state(arch)
    problems = [f"{key} is missing" for key in expected if key not in state]
    problems += [f"{key!r:.100} is not of this network" for key in state if key not in expected]
    shared = [(key, tensor, state[key]) for key, tensor in expected.items() if key in state]
    problems += [
        f"{key} has shape {tuple(stored.shape)} instead of {tuple(tensor.shape)}"
        for key, tensor, stored in shared
        if stored.shape != tensor.shape
    ]
    problems += [
        f"{key} has type {stored.dtype} instead of {tensor.dtype}"
        for key, tensor, stored in shared
        if stored.layout != torch.strided
        or stored.is_meta
        or stored.dtype not in (FLOAT_TYPES if tensor.is_floating_point() else WHOLE_TYPES)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{name}: the weights do not fit: {'; '.join(problems[:3])}{more}")


def _check_tensors(state: Any, name: str) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{name}: the file holds no state dict")


@functools.lru_cache(maxsize=4)
def _expected_state(arch: Architecture) -> dict[str, Tensor]:
    """Return the state dict of a network without values; the network is left for `build`, as making one is a third of a load."""
    network = _without_values(arch)
    _spare.clear()
    _spare[arch] = network
    return network.state_dict()


_spare: dict[Architecture, TaggingNetwork] = {}


def _without_values(arch: Architecture) -> TaggingNetwork:
    with torch.device("meta"):
        return arch.build()


def _check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Raise `CheckpointError` for NaN and infinite weights.

    The sum of such a tensor is not finite; that of a sound one hardly ever, so few are looked at twice.
    """
    with torch.no_grad():
        sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in state.values() if tensor.is_floating_point()])
    if not sums.isfinite().all() and (broken := [key for key, tensor in state.items() if not tensor.float().isfinite().all()]):
        raise CheckpointError(
            f"{name}: the weights are not finite (first in {broken[0]}); fetch the file again, or use another one"
        )


def _parse(content: Any, name: str) -> Checkpoint:
    keys: Sequence[str] = ("model", "arch", "mel", "labels", "epoch", "metrics", "args")
    if not isinstance(content, Mapping) or not set(keys) <= set(content):
        raise CheckpointError(
            f"{name} is not a checkpoint of this project (it should hold {', '.join(keys)}); a bare state dict goes into "
            "get_model(...).load_state_dict"
        )
    try:
        family = content.get("family", "mn")
        if family not in FAMILIES:
            raise UserError(f"unknown family of networks {family!r:.100}; known: {', '.join(FAMILIES)}")
        arch, mel = from_plain(FAMILIES[family], content["arch"]), from_plain(MelConfig, content["mel"])
        _check_state(content["model"], arch, name)
        labels = content["labels"]
        if labels is not None:
            if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
                raise UserError("the labels are not a list of texts")
            if len(labels) != arch.num_classes:
                raise UserError(f"{len(labels)} labels for {arch.num_classes} classes")
            labels = tuple(labels)
        if content["epoch"] is not None and not is_whole(content["epoch"]):
            raise UserError(f"epoch is {content['epoch']!r:.100}; it must be a whole number")
        metrics = dict(content["metrics"])
        if not all(isinstance(value, (int, float)) for value in metrics.values()):
            raise UserError(f"metrics is {metrics!r:.100}; they must be numbers")
        args = dict(content["args"])
        clip_seconds = content.get("clip_seconds", args.get("clip_seconds"))  # older files have it among their options
        if clip_seconds is not None and not (is_number(clip_seconds) and clip_seconds > 0):
            raise UserError(f"clip_seconds is {clip_seconds!r:.100}; it must be a number above 0")
        return Checkpoint(
            name, dict(content["model"]), arch, mel, labels, content["epoch"], metrics, args,
            content.get("single_label") is True, clip_seconds,
        )  # fmt: skip
    except CheckpointError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: {' '.join(str(error).split())}") from error
