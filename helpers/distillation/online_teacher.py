"""Online teachers: what they say about the very view of a clip that the student hears, computed in the training step.

After "Knowledge distillation: a good teacher is patient and consistent" (Beyer et al., CVPR 2022): cropping, rolling, gain,
mixing, mixup and Freq-MixStyle are the same for both. Masks and moving band edges disturb the student alone.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datasets.labels import default_labels
from helpers.distillation.feature_matching import block_outputs, check_blocks, relative_errors
from helpers.training import distributed
from helpers.training.folds import folder_name
from helpers.training.mixing import Mix, Style
from helpers.training.objectives import bce_per_clip, cross_entropy_per_clip
from helpers.training.run import Run
from models.base import TaggingNetwork
from models.config import MelConfig
from models.ensemble import get_ensemble_model
from models.errors import UserError
from models.waveform import WaveformModel

logger = logging.getLogger(__name__)


class Taught(NamedTuple):
    """What teachers say about B clips."""

    logits: Tensor  # (B, classes that both have), the mean over the teachers
    features: list[Tensor]  # outputs of the first teacher's blocks, (B, C, F, T) each; none where nobody learns them


class OnlineTeacher:
    """One or several models whose mean logits are the soft targets, each with its own front end, in evaluation mode."""

    def __init__(
        self,
        names: Sequence[str],
        student: WaveformModel,
        temperature: float = 1.0,
        *,
        label_share: float = 0.0,
        feature_weight: float = 0.0,
    ) -> None:
        """Load the models (released or bundled names, or paths) to the student's device; UserError if they do not fit it.

        They teach the classes that have the same names as the student's; nobody teaches the others.
        `temperature` divides their logits; the rest are shares in the loss, see `total_loss`. With a `feature_weight`, the features
        of the first one are learnt too.
        """
        self.temperature = temperature
        self.label_share = label_share
        self.feature_weight = feature_weight
        self.exclusive = student.single_label
        self.models = get_ensemble_model(names).to(student.device).requires_grad_(False)
        given = f"--teacher {' '.join(map(str, names))}"
        if self.models.sample_rate != student.sample_rate:
            raise UserError(f"{given} hears {self.models.sample_rate} Hz, the student {student.sample_rate}; they must be the same")
        if self.models.members[0].single_label and not self.exclusive:
            raise UserError(f"{given} knows clips of exactly one class; needed: one whose classes do not exclude each other")
        theirs = self.models.labels or default_labels(self.models.num_classes)
        own = student.labels or default_labels(student.num_classes)
        shared = matched_classes(own, theirs)
        if len(shared) < 1 + self.exclusive:  # of a single class that excludes the others there is nothing to say
            raise UserError(
                f"{given} shares {len(shared)} classes with the student: it has classes such as {_examples(theirs)}, the student "
                f"such as {_examples(own)}; classes are matched by their names, so give a teacher that knows the student's"
            )
        if len(shared) < len(own):
            others = _examples([label for k, label in enumerate(own) if k not in shared])
            logger.info(
                "%s teaches %d of %d classes; labels alone teach the others, such as %s", given, len(shared), len(own), others
            )
        columns = torch.tensor(list(shared.items()), device=student.device)
        self._own_columns, self._their_columns = columns.T  # of the classes that both have
        for member in self.models.members:
            member.network.to(memory_format=torch.channels_last)

    @property
    def network(self) -> TaggingNetwork:
        """The first teacher's, whose features are learnt."""
        return self.models.members[0].network

    @torch.no_grad()
    def __call__(self, waveform: Tensor, mix: Mix | None, style: Style | None = None) -> Taught:
        """Hear waveforms (B, samples), mixed as the student's spectrograms were: first by style, then by mixup."""
        logits, features = [], []
        spectrograms: dict[MelConfig, Tensor] = {}  # teachers with one front end share what it computes
        for member in self.models.members:
            if member.front_end.config not in spectrograms:
                x = member.front_end(waveform)
                for mixing in (style, mix):
                    x = x if mixing is None else mixing.apply(x)
                spectrograms[member.front_end.config] = x.unsqueeze(1)
            x = spectrograms[member.front_end.config]
            for block in member.network.features:
                x = block(x)
                if self.feature_weight > 0 and not logits:
                    features.append(x)
            logits.append(member.network.forward_head(x).float())
        return Taught(torch.stack(logits).mean(0)[:, self._their_columns], features)

    def training_losses(
        self,
        network: nn.Module,
        spectrogram: Tensor,
        waveform: Tensor,
        mix: Mix | None,
        label_loss: Callable[[Tensor], Tensor],
        *,
        style: Style | None = None,
        blockwise: bool = False,
    ) -> dict[str, Tensor]:
        """What a training step minimises, "loss", and its parts: `losses`, and the loss of labels if these have a share.

        `label_loss` takes the student's logits (B, K).
        """
        logits, losses = self.losses(network, spectrogram, waveform, mix, style=style, blockwise=blockwise)
        if self.label_share > 0:
            losses = {"label_loss": label_loss(logits)} | losses
        return total_loss(losses, self.label_share, self.feature_weight)

    def losses(
        self,
        network: nn.Module,
        spectrogram: Tensor,
        waveform: Tensor,
        mix: Mix | None,
        *,
        style: Style | None = None,
        blockwise: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the student, `network`, hear its spectrograms (B, F, T) of the waveforms; return its logits (B, K) and named losses.

        distillation_loss: binary cross entropy with the teachers' probabilities; for classes that exclude each other, cross entropy
        with them at `temperature` on both sides, times its square (Hinton et al., 2015), over the classes that both have.
        divergence: the part of it that the student can learn. With features, feature_loss: mean of the relative errors of blocks
        and logits, which follow as block_0 and so on. `blockwise`, each block hears the teacher's features in place of those of
        the block before it. Features are learnt without dropout, which would be an error that nobody can learn.
        """
        taught = self(waveform, mix, style)
        losses = {}
        if self.feature_weight > 0:
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
        own, theirs = logits[:, self._own_columns].float(), taught.logits / self.temperature
        if self.exclusive:
            soft_target, scale = theirs.softmax(1), self.temperature**2
            losses["distillation_loss"] = scale * cross_entropy_per_clip(own / self.temperature, soft_target).mean()
            uncertainty = scale * cross_entropy_per_clip(theirs, soft_target).mean()
        else:
            soft_target = torch.sigmoid(theirs)
            losses["distillation_loss"] = bce_per_clip(own, soft_target).mean()
            uncertainty = bce_per_clip(torch.logit(soft_target, 1e-7), soft_target).mean()
        losses["divergence"] = losses["distillation_loss"] - uncertainty
        return logits, losses

    def fingerprint(self) -> str:
        """A hash of all weights: the same for the same models under other names."""
        digest = hashlib.sha256()
        for tensor in self.models.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def load_online_teacher(args: argparse.Namespace, student: WaveformModel, run: Run, *, blockwise: bool = False) -> OnlineTeacher:
    """The teacher that a run's options name; {fold} in a name is the folder of the run's fold, such as fold_1.

    UserError where it does not fit the student, or is not the one that a resumed run had.
    """
    fold = getattr(args, "fold", None)
    names = [name.replace("{fold}", folder_name(fold)) if fold else name for name in args.teacher]
    with distributed.local_main_first():
        teacher = OnlineTeacher(names, student, args.temperature, label_share=args.kd_lambda, feature_weight=args.feature_kd)
    if args.feature_kd:
        check_blocks(student.network, teacher.network, blockwise=blockwise)
    run.require_same("teacher", teacher.fingerprint(), "--teacher")
    return teacher


def total_loss(losses: Mapping[str, Tensor], label_share: float, feature_weight: float = 0.0) -> dict[str, Tensor]:
    """Put "loss" before its parts: the labels' by a share in [0, 1], the teacher's by the rest, the features' by a weight."""
    shares = {"label_loss": label_share, "distillation_loss": 1.0 - label_share, "feature_loss": feature_weight}
    return {"loss": sum(shares[name] * value for name, value in losses.items() if name in shares)} | losses


def matched_classes(own: Sequence[str], theirs: Sequence[str]) -> dict[int, int]:
    """From the index of an own class to that of their class with the same name; the others are left out.

    Where no name is equal, one counts that differs only in capitals, or in how FSD50K spells AudioSet's names: "_" for a space,
    "_and_" for a comma.
    """
    equal = {label: k for k, label in enumerate(theirs)}
    alike = {_spelling(label): k for k, label in enumerate(theirs) if label not in own}
    found = {k: equal.get(label, alike.get(_spelling(label))) for k, label in enumerate(own)}
    return {k: match for k, match in found.items() if match is not None}


def _spelling(label: str) -> str:
    return label.casefold().replace("_", " ").replace(", ", " and ")


def _examples(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:3]))
