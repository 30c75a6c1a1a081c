"""Embeddings at timestamps: of frames where a model has them, of short windows where it tags clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from helpers.frame_windows import FRAME_HOP, FRAME_WINDOW, FrameResults, FrameWindows, SeamlessFrames
from models.embeddings import EmbeddingModel, check_waveforms
from models.errors import UserError

WINDOWS_AT_ONCE = 4


@torch.no_grad()
def timestamp_embeddings(model: EmbeddingModel, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """(B, samples) -> embeddings (B, T, D) float32 and their times (B, T) in milliseconds.

    Of a frame-wise model, embeddings are those of its frames, the middle of which are the times 0, step, 2 step, ...; longer sound
    is computed in windows of 10 s that overlap. Of others they are `EmbeddingModel.timestamps`.
    """
    step = model.step_seconds
    if step is None:
        return model.timestamps(waveform)
    check_waveforms(waveform)
    if list(model.columns) != ["embedding"]:
        raise UserError(f"frames of a frame-wise model have the layer embedding only, not {model.config}")
    cut = FrameWindows.of_seconds(model.sample_rate, step, FRAME_WINDOW, FRAME_HOP)

    def compute(windows: Sequence[np.ndarray]) -> FrameResults:
        outputs = [model.forward_frames(torch.from_numpy(window)[None].to(model.device)) for window in windows]
        return [tuple(part[0].float().cpu().numpy() for part in (output.logits, output.embedding)) for output in outputs]

    found = []
    for sound in waveform.detach().float().cpu().numpy():
        frames = SeamlessFrames(cut, compute).all(cut.cut(sound), WINDOWS_AT_ONCE)
        found.append(np.concatenate([embeddings for _, embeddings in frames]))
    embeddings = torch.from_numpy(np.stack(found)).to(waveform.device)
    times = 1000 * step * torch.arange(embeddings.shape[1], dtype=torch.float64, device=waveform.device)
    return embeddings, times.float().expand(len(waveform), -1)
