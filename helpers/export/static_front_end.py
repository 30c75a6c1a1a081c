"""The log-mel front end for clips of one length, as convolutions: what the runtimes of phones compute fast.

The Fourier transform is split as in `helpers.export.front_end`: a grouped convolution computes window, first transform and turn, a
1x1 convolution the second transform, another one the mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.export.front_end import GAIN, analysis_window, frame_length, second_transform, split_factor, split_filterbank
from models.config import MelConfig
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS


class StaticFrontEnd(nn.Module):
    """`AugmentMelSTFT` in evaluation mode: waveform (1, samples) -> (1, 1, n_mels, frames), for one number of samples.

    `samples` is at least `mel.min_samples`.
    """

    def __init__(self, mel: MelConfig, samples: int) -> None:
        super().__init__()
        self.factor, self.floor = split_factor(mel), mel.log_floor
        self.stride = mel.hop_size // self.factor
        frame, frames = frame_length(mel, self.factor), 1 + (samples - 1) // mel.hop_size
        self.before = frame - frame // 2
        self.after = (frames - 1) * mel.hop_size + frame - self.before - (samples - 1)  # negative: samples that no frame has
        k2, bank = split_filterbank(mel, self.factor)
        self.register_buffer("first", first_transform(mel, self.factor).float()[:, None, None])  # (n2 part k1, 1, 1, n1)
        self.register_buffer("second", torch.cat(second_transform(self.factor, k2)).float()[:, :, None, None])  # (part k2, n2 part)
        self.register_buffer("bank", (GAIN * bank).flatten(1).float()[:, :, None, None])  # (n_mels, k2 k1, 1, 1)

    def forward(self, waveform: Tensor) -> Tensor:
        x = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
        start, end = x[:, 1 : self.before + 1].flip(1), x[:, -1 - max(self.after, 0) : -1].flip(1)  # reflected
        x = torch.cat([start, x[:, : x.shape[1] + min(self.after, 0)], end], 1)
        x = x.view(1, 1, -1, self.factor).permute(0, 3, 1, 2)  # (1, n2, 1, time)
        x = functional.conv2d(x, self.first, stride=(1, self.stride), groups=self.factor)
        x = functional.conv2d(x.view(1, 2 * self.factor, -1, x.shape[3]), self.second).square()  # (1, part k2, k1, frames)
        power = x[:, : x.shape[1] // 2] + x[:, x.shape[1] // 2 :]
        energy = functional.conv2d(power.reshape(1, -1, 1, power.shape[3]), self.bank)  # (1, n_mels, 1, frames)
        energy = energy + GAIN * LOG_OFFSET if self.floor is None else energy.clamp(min=GAIN * self.floor)
        return energy.log().mul(1 / 5).transpose(1, 2)


def first_transform(mel: MelConfig, factor: int) -> Tensor:
    """Return window times transform over n1 times turn, (n2 part k1, n1); parts are the real and the imaginary one."""
    k1, n = torch.arange(mel.n_fft // factor // 2 + 1), torch.arange(frame_length(mel, factor))
    angle = 2 * torch.pi / mel.n_fft * torch.outer(k1, n).double()
    kernels = torch.stack([angle.cos(), -angle.sin()]) * analysis_window(mel, factor)  # (part, k1, n)
    return kernels.unflatten(2, (-1, factor)).permute(3, 0, 1, 2).flatten(0, 2)
