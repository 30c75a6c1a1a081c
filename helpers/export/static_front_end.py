"""The log-mel front end for clips of one length, as convolutions alone: what the runtimes of phones compute fast.

The Fourier transform is split in two (Cooley and Tukey, 1965): with n_fft = length * factor, n = factor * n1 + n2 and
k = k1 + length * k2, it is a transform over n1 for each n2, a turn by 2 pi n2 k1 / n_fft, and a transform over n2. A grouped
convolution computes window, first transform and turn, a 1x1 convolution the second transform, another one the mel bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import MelConfig
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS, mel_filterbank


class StaticFrontEnd(nn.Module):
    """`AugmentMelSTFT` in evaluation mode: (1, samples) -> (1, 1, n_mels, frames), for one number of samples."""

    def __init__(self, mel: MelConfig, samples: int) -> None:
        super().__init__()
        self.mel, self.samples = mel, samples
        self.factor = math.gcd(mel.hop_size, mel.n_fft, 16)
        half = mel.n_fft // self.factor // 2 + 1  # values of k1: bin n_fft - k mirrors bin k
        frame = -(-mel.win_length // self.factor) * self.factor
        self.left = frame // 2
        frames = 1 + (samples - 1) // mel.hop_size
        self.padded = (frames - 1) * mel.hop_size + frame

        window = torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)
        offset = self.left - mel.n_fft // 2 + (mel.n_fft - mel.win_length) // 2  # torch.stft has it in the middle of n_fft
        window = functional.pad(window, (offset, frame - mel.win_length - offset))
        n, k1 = torch.arange(frame), torch.arange(half)
        angle = 2 * torch.pi / mel.n_fft * torch.outer(k1, n)
        kernels = torch.stack([angle.cos(), -angle.sin()]) * window  # (part, k1, n)
        kernels = kernels.unflatten(2, (-1, self.factor)).permute(3, 0, 1, 2)  # (n2, part, k1, n1)
        self.register_buffer("first", kernels.flatten(0, 2)[:, None, None].float())  # (n2 part k1, 1, 1, n1)

        k2 = torch.arange(self.factor)
        angle = 2 * torch.pi / self.factor * torch.outer(k2, k2)
        cosines, sines = angle.cos(), angle.sin()
        rows = torch.stack([torch.stack([cosines, sines], 2), torch.stack([-sines, cosines], 2)])  # (part, k2, n2, part)
        self.register_buffer("second", rows.flatten(2).flatten(0, 1)[:, :, None, None].float())  # (part k2, n2 part, 1, 1)

        bins = k1 + mel.n_fft // self.factor * k2[:, None]  # (k2, k1)
        bins = torch.minimum(bins, mel.n_fft - bins)
        bank = mel_filterbank(mel.n_mels, mel.n_fft, mel.sample_rate, mel.fmin, mel.fmax).double()
        bank = bank / torch.bincount(bins.flatten())  # those of the first and last k1 appear twice
        self.register_buffer("bank", bank[:, bins].flatten(1)[:, :, None, None].float())  # (n_mels, k2 k1, 1, 1)

    def forward(self, waveform: Tensor) -> Tensor:
        x = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]
        before = x[:, 1 : self.left + 1].flip(1)
        after = self.padded - self.left - x.shape[1]
        x = torch.cat([before, x, x[:, -1 - after : -1].flip(1)], 1) if after > 0 else torch.cat([before, x[:, :after or None]], 1)
        x = x.view(1, 1, -1, self.factor).transpose(2, 3).transpose(1, 2)  # (1, n2, 1, time)
        x = functional.conv2d(x, self.first, stride=(1, self.mel.hop_size // self.factor), groups=self.factor)
        x = functional.conv2d(x.view(1, 2 * self.factor, -1, x.shape[3]), self.second).square()  # (1, part k2, k1, frames)
        power = x[:, : self.factor] + x[:, self.factor :]
        power = power.reshape(1, -1, 1, power.shape[3])
        energy = functional.conv2d(power, self.bank)  # (1, n_mels, 1, frames)
        return ((energy + LOG_OFFSET).log() + 4.5).div(5.0).transpose(1, 2)
