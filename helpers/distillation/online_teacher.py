"""Online teachers: what they say about the very view of a clip that the student hears, computed in the training step.

After "Knowledge distillation: a good teacher is patient and consistent" (Beyer et al., CVPR 2022): cropping, rolling, gain,
mixing and mixup are the same for both. Masks and moving band edges disturb the student alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datasets.labels import default_labels
from helpers.distillation.feature_matching import block_outputs, relative_errors
from helpers.training.mixing import Mix
from helpers.training.objectives import bce_per_clip
from models.ensemble import get_ensemble_model
from models.errors import UserError
from models.network import MobileNetV3
from models.waveform import WaveformModel


class Taught(NamedTuple):
    """What teachers say about B clips."""

    logits: Tensor  # (B, classes that both have), the mean over the teachers
    features: list[Tensor]  # outputs of the first teacher's blocks, (B, C, F, T) each


class OnlineTeacher:
    """One or several models whose mean logits are the soft targets, each with its own front end, in evaluation mode."""

    def __init__(
        self, names: Sequence[str], student: WaveformModel, temperature: float = 1.0, *, with_features: bool = False
    ) -> None:
        """Load the models (released or bundled names, or paths) to the student's device; UserError if they do not fit it.

        They teach the classes that have the same names as the student's; nobody teaches the others.
        `temperature` divides their logits; `with_features`, the features of the first one are learnt too.
        """
        self.temperature = temperature
        self.with_features = with_features
        self.models = get_ensemble_model(names).to(student.device).requires_grad_(False)
        given = f"--teacher {' '.join(map(str, names))}"
        if self.models.sample_rate != student.sample_rate:
            raise UserError(f"{given} hears {self.models.sample_rate} Hz, the student {student.sample_rate}; they must be the same")
        if self.models.members[0].single_label:
            raise UserError(f"{given} knows clips of exactly one class; needed: one whose classes do not exclude each other")
        theirs = {label: k for k, label in enumerate(self.models.labels or default_labels(self.models.num_classes))}
        own = student.labels or default_labels(student.num_classes)
        shared = [(k, theirs[label]) for k, label in enumerate(own) if label in theirs]
        if not shared:
            raise UserError(f"{given} has none of the student's classes, such as {own[0]!r}; classes are matched by their names")
        self._own_columns, self._their_columns = torch.tensor(shared, device=student.device).T  # of the classes that both have
        for member in self.models.members:
            member.network.to(memory_format=torch.channels_last)

    @property
    def network(self) -> MobileNetV3:
        """The first teacher's, whose features are learnt."""
        return self.models.members[0].network

    @torch.no_grad()
    def __call__(self, waveform: Tensor, mix: Mix | None) -> Taught:
        """Hear waveforms (B, samples), mixed as the student's spectrograms were."""
        logits, features = [], []
        for member in self.models.members:
            spectrogram = member.front_end(waveform)
            x = (spectrogram if mix is None else mix.apply(spectrogram)).unsqueeze(1)
            for block in member.network.features:
                x = block(x)
                if not logits:
                    features.append(x)
            logits.append(member.network.forward_head(x).float())
        return Taught(torch.stack(logits).mean(0)[:, self._their_columns], features)

    def losses(
        self, network: nn.Module, spectrogram: Tensor, waveform: Tensor, mix: Mix | None, *, blockwise: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the student, `network`, hear its spectrograms (B, F, T) of the waveforms; return its logits (B, K) and named losses.

        distillation_loss: binary cross entropy with the teachers' probabilities; divergence: the part of it that the student can
        learn. With features, feature_loss: mean of the relative errors of blocks and logits, which follow as block_0 and so on.
        `blockwise`, each block hears the teacher's features in place of those of the block before it. Features are learnt without
        dropout, which would be an error that nobody can learn.
        """
        taught = self(waveform, mix)
        losses = {}
        if self.with_features:
            student = network.module if isinstance(network, DistributedDataParallel) else network
            for module in student.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()
            with block_outputs(student, taught.features if blockwise else None) as outputs:
                logits = network(spectrogram.unsqueeze(1))[0]
            errors = relative_errors([*outputs, logits[:, self._own_columns]], [*taught.features, taught.logits])
            losses["feature_loss"] = torch.stack(errors).mean()
            losses |= {f"block_{number}": error for number, error in enumerate(errors)}
        else:
            logits = network(spectrogram.unsqueeze(1))[0]
        soft_target = torch.sigmoid(taught.logits / self.temperature)
        losses["distillation_loss"] = bce_per_clip(logits[:, self._own_columns], soft_target).mean()
        losses["divergence"] = losses["distillation_loss"] - bce_per_clip(torch.logit(soft_target, 1e-7), soft_target).mean()
        return logits, losses

    def fingerprint(self) -> str:
        """A hash of all weights: the same for the same models under other names."""
        digest = hashlib.sha256()
        for tensor in self.models.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
