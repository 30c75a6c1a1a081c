"""Write the logits of frames of a teacher, in the layout that `frame_teachers.FrameLogits` reads."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.audio import AudioError
from datasets.clip import ClipDataset
from helpers.distillation.frame_teachers import LABELS, LOGITS, NAMES
from helpers.distillation.writer import FLOAT16_MAX, clip_or_error
from models.ensemble import EnsembleModel
from models.errors import UserError
from models.files import publish

_SETTINGS, _WRITING = "settings", "writing"  # attributes: JSON; of a .part, whether a batch is being written

logger = logging.getLogger(__name__)


class _Waveforms(Dataset):
    """Name and waveform of clips, or the error of decoding one."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[str, Tensor] | AudioError:
        clip = clip_or_error(self.clips, index)
        return clip if isinstance(clip, AudioError) else (clip.name, clip.waveform)


def write_frame_logits(
    model: EnsembleModel, clips: ClipDataset, output: Path, settings: dict[str, Any], args: argparse.Namespace
) -> tuple[int, int]:
    """Write the mean of the frame-wise models' logits for each clip, (K, T); return the numbers of rows and of clips left out.

    Rows go to a .part next to `output`, which gets its name when all is there; an interrupted run resumes with it. Clips that
    cannot be decoded are logged and left out.
    """
    if any(member.network.step_seconds is None for member in model.members):
        raise UserError("the models score whole clips; --frames needs frame-wise ones, such as fmn10_strong")
    part = output.with_name(output.name + ".part")
    output.parent.mkdir(parents=True, exist_ok=True)
    with _open_part(part, settings) as file:
        done = {name.decode() for name in file[NAMES][:]} if NAMES in file else set()
        names = clips.names
        first = {name: index for index, name in reversed(list(enumerate(names)))}
        left = [index for name, index in first.items() if name not in done]
        loader = DataLoader(
            _Waveforms(clips), args.batch_size, sampler=sorted(left), num_workers=args.num_workers, collate_fn=list
        )  # fmt: skip
        bar = tqdm(total=len(first), initial=len(done), desc="teacher", unit="clip", leave=False, disable=None)
        with bar, torch.inference_mode():
            for items in loader:
                for error in (item for item in items if isinstance(item, AudioError)):
                    logger.warning("left out: %s", error)
                bar.update(len(items))
                batch = [item for item in items if not isinstance(item, AudioError)]
                if batch:
                    _append(file, [name for name, _ in batch], frame_logits(model, torch.stack([clip for _, clip in batch])), part)
        count = len(file[NAMES]) if NAMES in file else 0
        if count:
            file.attrs[LABELS] = model.labels
            del file.attrs[_WRITING]
    if not count:
        part.unlink()
        raise UserError(f"none of the clips could be decoded, so {output} was not written")
    publish(part, output)
    return count, len(names) - count


def refuse_existing_frames(output: Path) -> None:
    if output.suffix not in (".hdf5", ".h5", ".hdf"):
        raise UserError(f"--output {output} must end in .hdf5: logits of frames go to an HDF5 file")
    if output.exists():
        raise FileExistsError(f"{output} exists; remove it or write to another --output")


def frame_logits(model: EnsembleModel, waveforms: Tensor) -> np.ndarray:
    """Mean of the members' logits of frames for waveforms (B, samples): (B, K, T) float16."""
    waveforms = waveforms.to(model.device)
    outputs = [member.network.forward_frames(member.front_end(waveforms).unsqueeze(1)).logits for member in model.members]
    mean = torch.stack([output.float() for output in outputs]).mean(0).transpose(1, 2)
    if not mean.isfinite().all():
        raise UserError("the logits are not finite; check the models")
    return mean.clamp(-FLOAT16_MAX, FLOAT16_MAX).half().cpu().numpy()


def _open_part(part: Path, settings: dict[str, Any]) -> h5py.File:
    """Open what an interrupted run with the same settings left, or start again where it was killed while writing."""
    text = json.dumps(settings)
    if part.exists():
        try:
            file = h5py.File(part, "r+")
            if not file.attrs[_WRITING]:
                if file.attrs[_SETTINGS] != text:
                    file.close()
                    raise UserError(
                        f"{part} was written with other settings; repeat that command to resume, or remove it to restart"
                    )
                return file
            file.close()
            reason = "it was being written to when its process died"
        except (OSError, KeyError, RuntimeError) as error:
            reason = str(error)
        logger.warning("%s is damaged (%s); restarting", part, reason)
        part.unlink()
    file = h5py.File(part, "w")
    file.attrs[_SETTINGS], file.attrs[_WRITING] = text, False
    return file


def _append(file: h5py.File, names: list[str], logits: np.ndarray, part: Path) -> None:
    if shutil.disk_usage(part.parent).free < logits.nbytes + 2**20:  # asked before, so that a full disk damages nothing
        raise OSError(errno.ENOSPC, f"no space left for the next {logits.nbytes} bytes", str(part))
    file.attrs[_WRITING] = True
    file.flush()
    if NAMES not in file:
        shape = logits.shape[1:]
        file.create_dataset(NAMES, (0,), h5py.string_dtype(), maxshape=(None,), chunks=(1024,))
        file.create_dataset(LOGITS, (0, *shape), np.float16, maxshape=(None, *shape), chunks=(1, *shape))
    start = len(file[NAMES])
    for key, rows in ((NAMES, names), (LOGITS, logits)):
        file[key].resize(start + len(names), axis=0)
        file[key][start:] = rows
    file.flush()
    file.attrs[_WRITING] = False
    file.flush()
