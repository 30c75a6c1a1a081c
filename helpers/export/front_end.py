"""The log-mel front end as ONNX operations.

The Fourier transform is split in two (Cooley and Tukey, 1965): with n_fft = length * factor, n = factor * n1 + n2 and
k = k1 + length * k2, it is a transform over n1 for each n2, a turn by 2 pi n2 k1 / n_fft (the twiddle factor), and a transform over
n2. A grouped convolution computes window, first transform and turn; matrix products compute the second transform and the mel bands.
k1 ends at length / 2, as bin n_fft - k mirrors bin k. At the defaults, 64 times 16, each frame takes a third of the multiplications
of a discrete Fourier transform that uses the symmetries of cosine and sine.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from helpers.export.onnx_writer import WAVEFORM_SHAPE, Graph, make_model, spectrogram_shape
from models.config import MelConfig
from models.preprocess import BANDS_AT_ONCE, LOG_OFFSET, PRE_EMPHASIS, mel_filterbank

GAIN = math.exp(4.5)  # (log(energy) + 4.5) / 5 is log(GAIN * energy) / 5


def front_end_to_onnx(mel: MelConfig) -> onnx.ModelProto:
    """Return waveform (B, samples) -> spectrogram (B, 1, n_mels, frames), without metadata."""
    graph = Graph()
    add_front_end(graph, mel, "waveform")
    return make_model(graph, WAVEFORM_SHAPE, spectrogram_shape(mel))


def add_front_end(graph: Graph, mel: MelConfig, waveform: str) -> str:
    """`AugmentMelSTFT` in evaluation mode: waveform (B, samples) -> value "spectrogram" (B, 1, n_mels, frames), log-mel."""
    factor = split_factor(mel)
    k2, bank = split_filterbank(mel, factor)
    x = _add_first_transform(graph, mel, factor, _add_emphasis(graph, mel, waveform))
    x = graph.add("Reshape", x, graph.integers(0, 2 * factor, -1))  # (B, n2 and part, k1 and frame)
    real, imaginary = (graph.add("MatMul", graph.constant(matrix), x) for matrix in second_transform(factor, k2))
    power = graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary))  # (B, k2, k1 and frame)
    power = graph.add("Reshape", power, graph.integers(0, 1, bank[0].numel(), -1))

    energies = []
    for bands in bank.split(BANDS_AT_ONCE):
        begin, end = _used(bands)
        size = bands.shape[2]
        part = graph.add("Slice", power, graph.integers(begin * size), graph.integers(end * size), graph.integers(2))
        energies.append(graph.add("MatMul", _add_sparse(graph, GAIN * bands[:, begin:end].flatten(1)), part))
    energy = graph.add("Concat", *energies, axis=2)
    if mel.log_floor is None:
        energy = graph.add("Add", energy, graph.constant(GAIN * LOG_OFFSET))
    else:
        energy = graph.add("Max", energy, graph.constant(GAIN * mel.log_floor))
    log = graph.add("Log", energy)
    return graph.add("Mul", log, graph.constant(1 / 5), output="spectrogram")


def split_factor(mel: MelConfig) -> int:
    """Return how many values n2 has: a divisor of hop and transform, the one with the fewest multiplications.

    It is 1 where they have no other, and the convolution is then the whole transform.
    """

    def multiplications(factor: int) -> int:
        return 2 * (mel.n_fft // factor // 2 + 1) * (frame_length(mel, factor) + 2 * factor * factor)

    common = math.gcd(mel.hop_size, mel.n_fft)
    return min((factor for factor in range(1, mel.n_fft // 2 + 1) if common % factor == 0), key=multiplications)


def frame_length(mel: MelConfig, factor: int) -> int:
    """Return the samples of a frame that are computed with: the window's, and zeros up to a multiple of `factor`."""
    return factor * max(2, -(-mel.win_length // factor))


def analysis_window(mel: MelConfig, factor: int) -> Tensor:
    """Return the window (frame,) float64 with the zeros of its frame: torch.stft has it in the middle of n_fft."""
    frame = frame_length(mel, factor)
    left = (mel.n_fft - mel.win_length) // 2 - (mel.n_fft - frame) // 2
    window = torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)
    return functional.pad(window, (left, frame - mel.win_length - left))


def _add_emphasis(graph: Graph, mel: MelConfig, waveform: str) -> str:
    """Zeros at the end of short clips, and the pre-emphasis: (B, samples) -> (B, max(samples, min_samples) - 1)."""
    missing = graph.add("Sub", graph.integers(mel.min_samples), graph.add("Shape", waveform, start=1))
    missing = graph.add("Max", missing, graph.integers(0))
    x = graph.add("Pad", waveform, graph.add("Concat", graph.integers(0, 0, 0), missing, axis=0))
    kernel = graph.constant(np.array([[[-PRE_EMPHASIS, 1.0]]]))
    x = graph.add("Conv", graph.add("Reshape", x, graph.integers(0, 1, -1)), kernel, kernel_shape=[2])
    return graph.add("Reshape", x, graph.integers(0, -1))


def _add_first_transform(graph: Graph, mel: MelConfig, factor: int, x: str) -> str:
    """Reflection at both ends, window, transform over n1, twiddle factors: (B, samples) -> (B, n2 and part and k1, frames).

    Parts are the real and the imaginary one. A sample's n1 is its place among those of the same n2, counted from the frame's start.
    """
    frame = frame_length(mel, factor)
    rest = graph.add("Mod", graph.add("Shape", x, start=1), graph.integers(factor))  # at the end, and in no frame
    after = graph.add("Sub", graph.integers(frame // 2), rest)
    x = graph.add("Pad", x, graph.add("Concat", graph.integers(0, frame - frame // 2, 0), after, axis=0), mode="reflect")
    x = graph.add("Transpose", graph.add("Reshape", x, graph.integers(0, -1, factor)), perm=[0, 2, 1])  # (B, n2, time)

    kernels = _add_kernels(graph, mel, factor)
    return graph.add("Conv", x, kernels, kernel_shape=[frame // factor], strides=[mel.hop_size // factor], group=factor)


def _add_kernels(graph: Graph, mel: MelConfig, factor: int) -> str:
    """Window times transform over n1 times twiddle factors, (n2 and part and k1, 1, n1): a fifth of a megabyte from short tables.

    ONNX Runtime computes it once, when it loads the file.
    """
    frame = frame_length(mel, factor)
    window = analysis_window(mel, factor).view(-1, factor).T[:, None, None]  # (n2, 1, 1, n1)
    n = torch.arange(frame).view(-1, factor).T[:, None, None]
    k1 = torch.arange(mel.n_fft // factor // 2 + 1)[:, None]
    angle = 2 * torch.pi / mel.n_fft * torch.arange(mel.n_fft).double()
    table = graph.constant(torch.cat([angle.cos(), -angle.sin()]), np.float64)
    turns = graph.add("Mul", graph.constant(n, np.int32), graph.constant(k1, np.int32))
    turns = graph.add("Mod", turns, graph.constant(mel.n_fft, np.int32))
    turns = graph.add("Add", turns, graph.constant(np.array([0, mel.n_fft]).reshape(2, 1, 1), np.int32))  # (n2, part, k1, n1)
    kernels = graph.add("Mul", graph.add("Gather", table, turns), graph.constant(window, np.float64))
    kernels = graph.add("Cast", kernels, to=onnx.TensorProto.FLOAT)
    return graph.add("Reshape", kernels, graph.integers(-1, 1, frame // factor))


def second_transform(factor: int, k2: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrices (k2, n2 and part) that give real and imaginary parts of bins."""
    angle = 2 * torch.pi / factor * torch.outer(k2, torch.arange(factor)).double()
    real, imaginary = torch.stack([angle.cos(), angle.sin()], 2), torch.stack([-angle.sin(), angle.cos()], 2)
    return real.flatten(1), imaginary.flatten(1)


def split_filterbank(mel: MelConfig, factor: int) -> tuple[Tensor, Tensor]:
    """Return the k2 that the mel bands need, by rising frequency (0, factor - 1, 1, ...), and weights (n_mels, k2, k1)."""
    length = mel.n_fft // factor
    k2 = torch.tensor(sorted(range(factor), key=lambda one: min(one, factor - 1 - one)))
    bins = torch.arange(length // 2 + 1) + length * k2[:, None]
    bins = torch.minimum(bins, mel.n_fft - bins)
    times = torch.bincount(bins.flatten())  # those of the first and last k1 appear twice
    bank = mel_filterbank(mel.n_mels, mel.n_fft, mel.sample_rate, mel.fmin, mel.fmax).double()
    bank = functional.threshold(bank, 1e-9, 0.0)  # at fmax, rounding leaves a weight of 1e-14
    weights = (bank / times)[:, bins]
    begin, end = _used(weights)
    return k2[begin:end], weights[:, begin:end]


def _used(weights: Tensor) -> tuple[int, int]:
    """Return the first k2 with a weight (bands, k2, k1) that is not zero, and the one after the last."""
    used = weights.any(2).any(0).nonzero().flatten().tolist() or [0]
    return used[0], used[-1] + 1


def _add_sparse(graph: Graph, matrix: Tensor) -> str:
    """A constant, mostly zeros, of which the file has the other values."""
    places = matrix.flatten().nonzero().flatten()
    zeros = graph.add("ConstantOfShape", graph.integers(matrix.numel()))
    filled = graph.add("ScatterElements", zeros, graph.constant(places, np.int32), graph.constant(matrix.flatten()[places]))
    return graph.add("Reshape", filled, graph.integers(*matrix.shape))
