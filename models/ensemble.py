"""Ensembles: the mean of the members' logits, each member behind its own front end and on its own device."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models import checkpoints
from models.base import FrameOutput
from models.errors import UserError
from models.waveform import WaveformModel


class EnsembleModel(nn.Module):
    """Waveforms (B, samples) -> mean of the members' logits (B, K), and their embeddings side by side (B, sum of C).

    Members may differ in width, head and front end but must agree on rate, class count, labels and whether classes exclude each
    other. If all have the same front end, its spectrograms (B, 1, n_mels, frames) are accepted too. `.to(device)` moves all; a
    single member moved elsewhere gets its input there, and the result comes back to the device of the input.
    """

    def __init__(self, members: Sequence[WaveformModel]) -> None:
        super().__init__()
        if not members or not all(member.num_classes for member in members):
            raise UserError("an ensemble needs at least one member, and classes in each: it is the mean of their logits")
        for property_name in ("sample_rate", "num_classes", "labels", "single_label"):
            values = {getattr(member, property_name) for member in members} - {None}  # released models have no labels
            if len(values) > 1:
                raise UserError(f"the members of an ensemble must have the same {property_name}")
        self.members = nn.ModuleList(members)

    @property
    def labels(self) -> tuple[str, ...] | None:
        return next((member.labels for member in self.members if member.labels), None)

    @property
    def clip_seconds(self) -> float | None:
        """The shortest of the members': unknown silence harms a member more than missing silence."""
        return min((member.clip_seconds for member in self.members if member.clip_seconds is not None), default=None)

    @property
    def num_classes(self) -> int:
        return self.members[0].num_classes

    @property
    def embedding_size(self) -> int:
        return sum(member.embedding_size for member in self.members)

    @property
    def sample_rate(self) -> int:
        """Rate in Hz at which waveforms are expected."""
        return self.members[0].sample_rate

    @property
    def device(self) -> torch.device:
        """Where waveforms should be put: the device of the first member."""
        return self.members[0].device

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (..., K) -> scores (..., K) in [0, 1], see `TaggingNetwork.scores`."""
        return self.members[0].scores(logits)

    @property
    def step_seconds(self) -> float | None:
        """That of the members, where all score frames, of the same length."""
        steps = {member.step_seconds for member in self.members}
        return steps.pop() if len(steps) == 1 else None

    def forward_frames(self, x: Tensor) -> FrameOutput:
        """Waveforms (B, samples) -> mean logits of frames and of the clip, and the embeddings of frames side by side."""
        if self.step_seconds is None:
            raise UserError("the members of this ensemble do not all score frames of the same length")
        outputs = (member.forward_frames(x.to(member.device)) for member in self.members)
        logits, clip_logits, embeddings = zip(*([part.to(x.device) for part in output] for output in outputs), strict=True)
        return FrameOutput(torch.stack(logits).mean(0), torch.stack(clip_logits).mean(0), torch.cat(embeddings, dim=2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim == 4 and len({member.front_end.config for member in self.members}) > 1:
            raise UserError("the members of this ensemble have different front ends: pass waveforms (B, samples), not spectrograms")
        spectrograms: dict[object, Tensor] = {}  # members with one front end share what it computes
        outputs = []
        for member in self.members:
            front_end, device = member.front_end, member.device
            key = front_end if front_end.training else (front_end.config, device)  # in training each draws its own augmentation
            if key not in spectrograms:
                spectrograms[key] = x.to(device) if x.ndim == 4 else front_end(x.to(device)).unsqueeze(1)
            outputs.append(member.forward_spectrogram(spectrograms[key]))
        logits, embeddings = zip(*outputs, strict=True)
        logits = torch.stack([member_logits.to(x.device) for member_logits in logits]).mean(0)
        return logits, torch.cat([embedding.to(x.device) for embedding in embeddings], dim=1)


def get_ensemble_model(names: Sequence[str]) -> EnsembleModel:
    """Load the named models (released, bundled, or paths of checkpoints) as an ensemble in evaluation mode."""
    if isinstance(names, (str, os.PathLike)):
        raise UserError(f"an ensemble needs a list of models, not {os.fspath(names)!r}; get_model loads a single one")
    if not isinstance(names, Sequence):
        raise UserError(f"an ensemble needs a list of models, not {names!r:.100}")
    return EnsembleModel([WaveformModel(checkpoints.load_model(name)) for name in names]).eval()
