"""The log-mel front end: waveforms in, normalised log-mel spectrograms out, SpecAugment while training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import MelConfig
from models.errors import UserError

PRE_EMPHASIS = 0.97
LOG_OFFSET = 1e-5
BANDS_AT_ONCE = 32  # of one matrix product over the bins that any of them uses: with 32 of 128, a quarter of the dense product
FRAMES_AT_ONCE = 256  # of one Fourier transform: what it writes, 1 MB, stays in the cache and is written over by the next


class AugmentMelSTFT(nn.Module):
    """Pre-emphasis, power spectrogram, Kaldi-style mel bands, logarithm; in training mode with masking and moving band edges.

    In: (B, samples) floating point, mono, [-1, 1], at `sr` Hz. Out: (B, n_mels, frames) float32 with
    frames = 1 + (samples - 1) // hopsize, so 10 s at the defaults give 1000; digital silence maps to -1.40259. The logarithm is
    that of the energy + 1e-5 or, with a `log_floor`, of the larger of the two (1e-7: silence maps to -2.32362). Always computes in
    float32, also under autocast: a full-scale sine reaches 77,000 in the power spectrum, beyond float16.

    Evaluation on a CPU without gradients has an implementation of its own: 2.6 times as fast as `torch.stft` and a dense matrix
    product, which saves a fifth of the time of mn04 (`python -m benchmarks.speed`); results differ by float32's rounding, by less
    than 1e-4.

    Clips shorter than n_fft // 2 + 2 samples (514, 16 ms) are padded with zeros at their end to that length.

    Training mode draws, for each call, fmin from fmin + [0, fmin_aug_range - 1] Hz and fmax from
    fmax + fmax_aug_range // 2 - [0, fmax_aug_range - 1] Hz, and for each example one mask of up to `freqm` bands and one of up to
    `timem` frames; 0 turns a mask off. `fmax` None means sr // 2 - fmax_aug_range // 2.
    """

    def __init__(
        self,
        n_mels: int = 128,
        sr: int = 32000,
        win_length: int = 800,
        hopsize: int = 320,
        n_fft: int = 1024,
        freqm: int = 48,
        timem: int = 192,
        fmin: float = 0.0,
        fmax: float | None = None,
        fmin_aug_range: int = 10,
        fmax_aug_range: int = 2000,
        log_floor: float | None = None,
    ) -> None:
        super().__init__()
        if fmin_aug_range < 1 or fmax_aug_range < 1:
            raise UserError(f"fmin_aug_range and fmax_aug_range must be at least 1 Hz, not {fmin_aug_range} and {fmax_aug_range}")
        if freqm < 0 or timem < 0:
            raise UserError(f"freqm and timem must not be negative, got {freqm} and {timem}")
        if fmax is None:
            fmax = float(sr // 2 - fmax_aug_range // 2)
        self.config = MelConfig(n_mels, sr, win_length, hopsize, n_fft, fmin, fmax, log_floor)
        self.freqm = freqm
        self.timem = timem
        self.fmin_aug_range = fmin_aug_range
        self.fmax_aug_range = fmax_aug_range
        # Plain attributes, not buffers: `.half()` must not touch them and checkpoints do not hold them.
        self._window: Tensor | None = None
        self._eval_bank: Tensor | None = None
        self._eval_bands: list[tuple[slice, slice, Tensor]] | None = None

    @classmethod
    def from_config(
        cls, config: MelConfig, freqm: int = 0, timem: int = 0, fmin_aug_range: int = 10, fmax_aug_range: int = 2000
    ) -> AugmentMelSTFT:
        """Build the front end that a checkpoint was trained with."""
        return cls(
            config.n_mels, config.sample_rate, config.win_length, config.hop_size, config.n_fft,
            freqm, timem, config.fmin, config.fmax, fmin_aug_range, fmax_aug_range, config.log_floor,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise UserError(f"expected floating-point waveforms of shape (B, samples), got {type(x).__name__}")
        if x.ndim != 2 or x.shape[1] < 1 or not x.is_floating_point():
            raise UserError(f"expected floating-point waveforms of shape (B, samples), got {x.dtype} {tuple(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if x.shape[1] < self.config.min_samples:
                x = functional.pad(x, (0, self.config.min_samples - x.shape[1]))
            if self._uses_cpu_evaluation(x):
                return self._log_mel_on_cpu(x)
            mel = self._filterbank(x.device) @ self._power_spectrogram(x)
            log_mel = self._raised(mel).log()
            if self._draws:
                log_mel = mask_axis(log_mel, self.freqm, axis=1)
                log_mel = mask_axis(log_mel, self.timem, axis=2)
            return (log_mel + 4.5) / 5.0

    @property
    def _draws(self) -> bool:
        """Whether anything is drawn at random: in training mode, unless masks are off and the edges stand still."""
        return self.training and (self.freqm, self.timem, self.fmin_aug_range, self.fmax_aug_range) != (0, 0, 1, 1)

    def _uses_cpu_evaluation(self, x: Tensor) -> bool:
        differentiated = torch.is_grad_enabled() and x.requires_grad
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # a loop over blocks would fix the number of frames
        return x.device.type == "cpu" and not (self._draws or differentiated or traced)

    def _log_mel_on_cpu(self, x: Tensor) -> Tensor:
        """(B, samples) -> (B, n_mels, frames) without passes over memory that are not needed: blocks of frames stay in the cache,
        squares are added up by the matrix product, which leaves out bins that no band of a group uses, the rest is in place.
        """
        config, half = self.config, self.config.n_fft // 2
        padded = x.new_empty(len(x), x.shape[1] - 1 + config.n_fft)
        torch.sub(x[:, 1:], x[:, :-1], alpha=PRE_EMPHASIS, out=padded[:, half:-half])
        padded[:, :half] = padded[:, half + 1 : 2 * half + 1].flip(1)  # reflected, as torch.stft does
        padded[:, -half:] = padded[:, -2 * half - 1 : -half - 1].flip(1)
        frames = padded.unfold(1, config.n_fft, config.hop_size)  # (B, frames, n_fft), a view
        energies = x.new_empty(len(x), frames.shape[1], config.n_mels)
        window, bands = self._analysis_window(x.device), self._bands()
        clips = max(1, FRAMES_AT_ONCE // frames.shape[1])  # of short ones, as many together
        for group, results in zip(frames.split(clips), energies.split(clips), strict=True):
            for block, rows in zip(group.split(FRAMES_AT_ONCE, 1), results.split(FRAMES_AT_ONCE, 1), strict=True):
                spectrum = torch.fft.rfft(block * window)  # (clips, frames in the block, bins)
                squares = torch.view_as_real(spectrum).square_().flatten(2).flatten(0, 1)  # (frames, 2 * bins): re, im, re, im, ...
                rows = rows.flatten(0, 1)  # a view: there are several clips, or several blocks
                for columns, used, weights in bands:
                    torch.mm(squares[:, used], weights, out=rows[:, columns])
        return self._raised(energies, out=energies).log_().add_(4.5).div_(5.0).mT.contiguous()

    def _raised(self, energies: Tensor, out: Tensor | None = None) -> Tensor:
        """Return energies that are all above 0, so that they have a logarithm."""
        floor = self.config.log_floor
        return torch.add(energies, LOG_OFFSET, out=out) if floor is None else torch.clamp(energies, min=floor, out=out)

    def _bands(self) -> list[tuple[slice, slice, Tensor]]:
        """Return groups of bands: which, which of the squares (re, im, re, ...) they use, and the weights (squares, bands)."""
        if self._eval_bands is None:
            with torch.inference_mode(False):
                groups = []
                for start in range(0, self.config.n_mels, BANDS_AT_ONCE):
                    bands = slice(start, start + BANDS_AT_ONCE)
                    bank = self._filterbank(torch.device("cpu"))[bands]
                    used = bank.any(0).nonzero().flatten().tolist() or [0]
                    low, high = used[0], used[-1] + 1
                    groups.append((bands, slice(2 * low, 2 * high), bank[:, low:high].repeat_interleave(2, dim=1).T.contiguous()))
                self._eval_bands = groups
        return self._eval_bands

    def _analysis_window(self, device: torch.device) -> Tensor:
        """Return the window, centred in n_fft."""
        config = self.config
        if self._window is None or self._window.device != device:
            with torch.inference_mode(False):  # so that training can use what inference made
                window = torch.hann_window(config.win_length, periodic=False, device=device)
                left = (config.n_fft - config.win_length) // 2
                self._window = functional.pad(window, (left, config.n_fft - config.win_length - left))
        return self._window

    def _power_spectrogram(self, x: Tensor) -> Tensor:
        """(B, samples) -> |STFT|^2 (B, n_fft // 2 + 1, frames) of the pre-emphasised, reflect-padded signal."""
        config = self.config
        x = x[:, 1:] - PRE_EMPHASIS * x[:, :-1]
        window = self._analysis_window(x.device)
        spectrum = torch.stft(x, config.n_fft, config.hop_size, window=window, center=True, pad_mode="reflect", return_complex=True)
        return spectrum.real.square() + spectrum.imag.square()  # a quarter of the time of view_as_real and a sum

    def _filterbank(self, device: torch.device) -> Tensor:
        """Return the mel filterbank (n_mels, n_fft // 2 + 1): drawn for each call in training, kept in evaluation."""
        config = self.config
        if self._draws:
            fmin = config.fmin + int(torch.randint(self.fmin_aug_range, ()))
            fmax = config.fmax + self.fmax_aug_range // 2 - int(torch.randint(self.fmax_aug_range, ()))
            if fmin >= fmax:
                raise UserError(f"the moving band edges crossed: fmin {fmin:g} Hz, fmax {fmax:g} Hz; lower fmax_aug_range")
            return mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, fmin, fmax, device)
        if self._eval_bank is None or self._eval_bank.device != device:
            with torch.inference_mode(False):
                bank = mel_filterbank(config.n_mels, config.n_fft, config.sample_rate, config.fmin, config.fmax)
                self._eval_bank = bank.to(device)
        return self._eval_bank

    def extra_repr(self) -> str:
        return f"{self.config}, freqm={self.freqm}, timem={self.timem}"


def mel_filterbank(
    n_mels: int, n_fft: int, sample_rate: int, fmin: float, fmax: float, device: torch.device | None = None
) -> Tensor:
    """Return Kaldi's triangular mel filters, (n_mels, n_fft // 2 + 1) float32; the Nyquist bin has no weight.

    Triangles are linear in mel = 1127 ln(1 + f / 700), with centres equally spaced between fmin and fmax (Hz). Band edges beyond
    the Nyquist frequency, which the training draw can reach, are allowed: the bins above it do not exist. All
    arrays are made on `device` (None: the CPU), so that nothing has to be copied to a GPU.
    """
    frequencies = torch.arange(n_fft // 2, dtype=torch.float64, device=device) * (sample_rate / n_fft)
    mels = _hz_to_mel(frequencies)  # (bins,)
    low, high = _hz_to_mel(torch.tensor([fmin, fmax], dtype=torch.float64))
    spacing = (high - low) / (n_mels + 1)
    left = (low + spacing * torch.arange(n_mels, dtype=torch.float64, device=device))[:, None]  # (n_mels, 1)
    rising = (mels - left) / spacing
    falling = (left + 2 * spacing - mels) / spacing
    return functional.pad(torch.minimum(rising, falling).clamp(min=0), (0, 1)).float()


def _hz_to_mel(frequency: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(frequency / 700.0)


def mask_axis(x: Tensor, max_width: int, axis: int) -> Tensor:
    """Set one random run along `axis` of (B, n_mels, frames) to 0 for each example (SpecAugment, Park et al., 2019).

    The width is uniform in [0, max_width), the start uniform in [0, size - width].
    """
    if max_width == 0:
        return x
    size = x.shape[axis]
    shape = [len(x), 1, 1]
    width = torch.rand(shape, device=x.device) * min(max_width, size)
    start = torch.rand(shape, device=x.device) * (size - width)
    position = torch.arange(size, device=x.device).view([-1 if other == axis else 1 for other in range(3)])
    return x.masked_fill((position >= start.floor()) & (position < start.floor() + width.floor()), 0.0)
