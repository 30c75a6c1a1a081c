"""Teachers of frame-wise networks: models that hear what the student hears, and stored logits of frames."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.clip import FrameClip
from datasets.labels import audioset_strong_labels, default_labels
from datasets.strong_clips import StrongClips
from datasets.strong_labels import ClipRows
from helpers.distillation.online_teacher import matched_classes
from helpers.training import distributed
from helpers.training.frame_wise import FrameTeacher, Taught, mix_weighted
from helpers.training.mixing import Mix
from helpers.training.run import Run
from models.ensemble import get_ensemble_model
from models.errors import UserError
from models.waveform import WaveformModel

NAMES, LOGITS = "filenames", "strong_logits"  # data sets of a file, (N,) texts and (N, K, T) float16, as published
LABELS = "labels"  # attribute of files of other classes than AudioSet Strong's

logger = logging.getLogger(__name__)


class OnlineFrameTeacher(FrameTeacher):
    """One or several frame-wise models whose mean logits are the soft targets, each with its own front end."""

    def __init__(self, names: Sequence[str], student: WaveformModel, temperature: float = 1.0) -> None:
        """Load the models (names or paths) to the student's device; UserError if they do not fit it.

        `temperature` divides their logits.
        """
        self.temperature = temperature
        self.models = get_ensemble_model(names).to(student.device).requires_grad_(False).eval()
        given = f"--teacher {' '.join(map(str, names))}"
        if self.models.sample_rate != student.sample_rate:
            raise UserError(f"{given} hears {self.models.sample_rate} Hz, the student {student.sample_rate}; they must be the same")
        for member in self.models.members:
            if member.network.step_seconds is None:
                raise UserError(f"{given} scores whole clips; a frame-wise network learns from a frame-wise one")
            if member.network.step_seconds != student.network.step_seconds:
                steps = member.network.step_seconds, student.network.step_seconds
                raise UserError(f"{given} has frames of {steps[0]} s, the student of {steps[1]} s; they must be the same")
        shared = _shared_classes(given, student, self.models.labels or default_labels(self.models.num_classes))
        self._own, self._theirs = torch.tensor(list(shared.items()), device=student.device).T

    @torch.no_grad()
    def __call__(self, waveform: Tensor, clips: FrameClip, mix: Mix | None) -> Taught:
        logits = []
        for member in self.models.members:
            spectrogram = member.front_end(waveform)
            if mix is not None:
                spectrogram = mix.apply(spectrogram)
            logits.append(member.network.forward_frames(spectrogram.unsqueeze(1)).logits.float())
        mean = torch.stack(logits).mean(0)[:, :, self._theirs]
        return Taught(
            (mean / self.temperature).sigmoid().transpose(1, 2), self._own, torch.ones(len(waveform), device=waveform.device)
        )

    def fingerprint(self) -> str:
        """A hash of all weights: the same for the same models under other names."""
        digest = hashlib.sha256()
        for tensor in self.models.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class StoredFrameTeacher(FrameTeacher):
    """Soft targets that the data set has read from a file, for the classes that teacher and student share."""

    def __init__(self, columns: Sequence[int], device: torch.device) -> None:
        self._columns = torch.tensor(columns, device=device)

    def __call__(self, waveform: Tensor, clips: FrameClip, mix: Mix | None) -> Taught:
        probabilities, weight = mix_weighted(mix, clips.soft_target.float(), clips.soft_target_weight)
        return Taught(probabilities, self._columns, weight)


class FrameLogits:
    """Logits (K, T) of clips in an HDF5 file, read row by row; clips are found as by `ClipRows`."""

    def __init__(self, path: str | Path) -> None:
        """Raises FileNotFoundError, and UserError for a file of another layout."""
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path} not found; write teacher logits by python -m helpers.distillation --frames")
        try:
            with h5py.File(self.path, "r") as file:
                self.shape, kind = file[LOGITS].shape, file[LOGITS].dtype.kind
                self.names = [_text(name) for name in file[NAMES][:]]
                self.labels = tuple(map(_text, file.attrs[LABELS])) if LABELS in file.attrs else audioset_strong_labels()
        except (OSError, KeyError, AttributeError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{path} is no HDF5 file of {NAMES} and {LOGITS} ({error}); fetch or write it again") from error
        if kind != "f" or len(self.shape) != 3 or not self.names or self.shape[:2] != (len(self.names), len(self.labels)):
            raise UserError(
                f"{path} has {LOGITS} of {self.shape}, but {len(self.names)} names and {len(self.labels)} classes; it must hold "
                "(clips, classes, frames) of floating point"
            )
        self._rows = ClipRows(self.names)
        self._file: h5py.File | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}  # each process opens it

    def has(self, name: str) -> bool:
        return self._rows.find(name) is not None

    def row(self, name: str) -> np.ndarray | None:
        """A clip's logits, (K, T) float32, or None; UserError if they cannot be read or are not finite."""
        row = self._rows.find(name)
        if row is None:
            return None
        if self._file is None:
            self._file = h5py.File(self.path, "r")
        try:
            logits = self._file[LOGITS][row].astype(np.float32)
        except (OSError, RuntimeError) as error:
            raise UserError(f"row {row} of {self.path} cannot be read ({error}); fetch or write the file again") from error
        if not np.isfinite(logits).all():
            raise UserError(f"row {row} of {self.path}, of {name}, is not finite; write the file again")
        return logits

    def fingerprint(self, names: Sequence[str], sampled: int = 64) -> str:
        """A hash of the logits for a sample of clips."""
        digest = hashlib.sha256()
        for name in names[:: -(-len(names) // sampled)]:
            row = self.row(name)
            digest.update(b"" if row is None else row.tobytes())
        if self._file is not None:
            self._file.close()
        self._file = None  # which a fork must not share
        return digest.hexdigest()[:16]


def _text(stored: str | bytes) -> str:
    return stored.decode() if isinstance(stored, bytes) else str(stored)


class TaughtClips(Dataset[FrameClip]):
    """Clips with a teacher's stored probabilities, sigmoid(logits / temperature), for some of its classes."""

    def __init__(self, clips: StrongClips, logits: FrameLogits, classes: Sequence[int], temperature: float) -> None:
        self.clips, self.logits, self.classes, self.temperature = clips, logits, list(classes), temperature

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> FrameClip:
        clip = self.clips[index]
        logits = self.logits.row(clip.name)
        if logits is None:
            return clip._replace(soft_target=torch.zeros(len(self.classes), self.clips.frames))
        soft_target = (torch.from_numpy(logits[self.classes]) / self.temperature).sigmoid()
        return clip._replace(soft_target=soft_target, soft_target_weight=torch.tensor(1.0))


def load_frame_teacher(
    args: argparse.Namespace, student: WaveformModel, run: Run, clips: StrongClips
) -> tuple[FrameTeacher | None, Dataset[FrameClip]]:
    """The teacher that a run's options name, or None, and the clips with what it has stored about them.

    UserError where it does not fit the student, or is not the one that a resumed run had.
    """
    if args.teacher:
        with distributed.local_main_first():
            teacher = OnlineFrameTeacher(args.teacher, student, args.temperature)
        run.require_same("teacher", teacher.fingerprint(), "--teacher")
        return teacher, clips
    if not args.teacher_preds:
        return None, clips
    logits = FrameLogits(args.teacher_preds)
    if logits.shape[2] != clips.frames:
        raise UserError(
            f"{logits.path} has {logits.shape[2]} frames a clip, the student {clips.frames}; give logits of clips as long"
        )
    shared = _shared_classes(f"--teacher_preds {args.teacher_preds}", student, logits.labels)
    names = clips.names
    covered = sum(map(logits.has, names))
    logger.info("teacher: %d of %d clips have a row in %s", covered, len(names), logits.path.name)
    if not covered:
        raise UserError(f"{logits.path} has none of the clips: it has names such as {logits.names[0]!r}, the data {names[0]!r}")
    run.require_same("teacher logits", logits.fingerprint(names), "--teacher_preds")
    return StoredFrameTeacher(list(shared), student.device), TaughtClips(clips, logits, list(shared.values()), args.temperature)


def _shared_classes(given: str, student: WaveformModel, theirs: Sequence[str]) -> dict[int, int]:
    """From the index of a student's class to that of the teacher's of the same name; logs how many these are."""
    own = student.labels or default_labels(student.num_classes)
    shared = matched_classes(own, theirs)
    if not shared:
        raise UserError(f"{given} shares no class with the student: it has {theirs[0]!r} and so on, the student {own[0]!r}")
    if len(shared) < len(own):
        logger.info("%s teaches %d of %d classes; labels alone teach the others", given, len(shared), len(own))
    return shared
