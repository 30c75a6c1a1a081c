"""The log-mel front end as ONNX operations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
import torch
from torch import Tensor

from helpers.export.onnx_writer import WAVEFORM_SHAPE, Graph, make_model, spectrogram_shape
from models.config import MelConfig
from models.preprocess import LOG_OFFSET, PRE_EMPHASIS, mel_filterbank

TO_THE_END = 2**62  # as the end of a slice


def front_end_to_onnx(mel: MelConfig) -> onnx.ModelProto:
    """Return waveform (B, samples) -> spectrogram (B, 1, n_mels, frames), without metadata."""
    graph = Graph()
    graph.add("Identity", add_front_end(graph, mel, "waveform"), output="spectrogram")
    return make_model(graph, WAVEFORM_SHAPE, spectrogram_shape(mel))


def add_front_end(graph: Graph, mel: MelConfig, waveform: str) -> str:
    """`AugmentMelSTFT` in evaluation mode: waveform (B, samples) -> log-mel spectrogram (B, 1, n_mels, frames)."""
    samples = graph.add("Shape", waveform, start=1)
    missing = graph.add("Max", graph.add("Sub", graph.integers(mel.min_samples), samples), graph.integers(0))
    x = graph.add("Pad", waveform, graph.add("Concat", graph.integers(0, 0, 0), missing, axis=0))
    late = graph.add("Slice", x, graph.integers(1), graph.integers(TO_THE_END), graph.integers(1))
    early = graph.add("Slice", x, graph.integers(0), graph.integers(-1), graph.integers(1))
    x = graph.add("Sub", late, graph.add("Mul", early, graph.constant(PRE_EMPHASIS)))

    # Of the n_fft samples of a frame, the window keeps the win_length in the middle: the others are not gathered.
    before = (mel.n_fft - mel.win_length) // 2
    after = mel.n_fft - mel.win_length - before
    length = graph.add("Shape", x, start=1)
    padding = graph.integers(0, mel.n_fft // 2 - before, 0, mel.n_fft // 2 - after)
    x = graph.add("Pad", x, padding, mode="reflect")
    count = graph.add("Add", graph.add("Div", length, graph.integers(mel.hop_size)), graph.integers(1))
    bank = mel_filterbank(mel.n_mels, mel.n_fft, mel.sample_rate, mel.fmin, mel.fmax).T  # (bins, n_mels)
    bins = bank.any(1).nonzero()[:, 0]  # those without weight in any band are not computed
    power = _folded_power if before == after and mel.n_fft % 4 == 0 else _plain_power
    spectra = power(graph, mel, x, count, bins)
    energies = [graph.add("MatMul", spectrum, graph.constant(bank[part])) for spectrum, part in spectra]
    energy = energies[0] if len(energies) == 1 else graph.add("Add", *energies)  # (B, frames, n_mels)
    log_mel = graph.add("Log", graph.add("Add", energy, graph.constant(LOG_OFFSET)))
    log_mel = graph.add("Div", graph.add("Add", log_mel, graph.constant(4.5)), graph.constant(5.0))
    return graph.add("Unsqueeze", graph.add("Transpose", log_mel, perm=[0, 2, 1]), graph.integers(1))


Spectra = Iterable[tuple[str, Tensor]]  # |DFT|^2 (B, frames, len(bins)) and the bins it holds


def _add_frames(graph: Graph, mel: MelConfig, x: str, count: str, backwards: bool = False) -> str:
    """Cut (B, samples) into `count` frames, (B, frames, win_length), each reversed where `backwards`.

    Frames are concatenated from blocks whose length divides hop and window: 160 samples for 320 and 800. Where blocks would be
    tiny, single samples are gathered, which is slower.
    """
    size = math.gcd(mel.hop_size, mel.win_length)
    hops = graph.add("Sub", count, graph.integers(1))
    if size < 16:
        starts = graph.add("Range", graph.integer(0), graph.add("Squeeze", count), graph.integer(1))
        starts = graph.add("Unsqueeze", graph.add("Mul", starts, graph.integers(mel.hop_size)), graph.integers(1))
        offsets = list(range(mel.win_length))
        index = graph.add("Add", starts, graph.integers(*(reversed(offsets) if backwards else offsets)))
        return graph.add("Gather", x, index, axis=1)
    end = graph.add("Add", graph.add("Mul", hops, graph.integers(mel.hop_size)), graph.integers(mel.win_length))
    x = graph.add("Slice", x, graph.integers(0), end, graph.integers(1))
    blocks = graph.add("Reshape", x, graph.integers(0, -1, size))
    positions = list(range(mel.win_length // size))
    if backwards:
        blocks = graph.add("Slice", blocks, *(graph.integers(value) for value in (-1, -TO_THE_END, 2, -1)))
        positions.reverse()
    step = graph.integers(mel.hop_size // size)
    reach = graph.add("Mul", hops, step)
    parts = [
        graph.add("Slice", blocks, graph.integers(j), graph.add("Add", reach, graph.integers(j + 1)), graph.integers(1), step)
        for j in positions
    ]
    return graph.add("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]


def _plain_power(graph: Graph, mel: MelConfig, x: str, count: str, bins: Tensor) -> Spectra:
    """The discrete Fourier transform as a product of frames and a matrix, for any window."""
    frames = _add_frames(graph, mel, x, count)
    angle = 2 * torch.pi / mel.n_fft * (torch.outer(torch.arange(mel.win_length), bins) % mel.n_fft).double()
    window = _window(mel)[:, None]
    yield _squared(graph, frames, window * angle.cos(), frames, window * angle.sin()), bins


def _folded_power(graph: Graph, mel: MelConfig, x: str, count: str, bins: Tensor) -> Spectra:
    """The same with a third of the multiplications, where 4 divides n_fft and the window is in the middle of the frame.

    Only the power counts, so phases may be relative to the middle of the frame, n = (n_fft - 1) / 2. About it, cosines are even
    and sines odd; and from n to n + n_fft / 2, those of even bins keep their sign while those of odd bins change it. So the
    samples n, n_fft / 2 - 1 - n, n_fft / 2 + n and n_fft - 1 - n have the same weights up to the sign, and are added or
    subtracted first. Four matrices over a quarter of the frame remain, for half of the bins each.
    """
    quarter, middle = mel.n_fft // 4, mel.win_length // 2
    frames, mirrored = _add_frames(graph, mel, x, count), _add_frames(graph, mel, x, count, backwards=True)
    window = _window(mel)

    def sums(begin: int, end: int) -> tuple[str, str]:
        """Return the inputs of cosines and of sines: sums and differences of samples `begin` to `end` and their mirror images."""
        part = [graph.integers(begin), graph.integers(end), graph.integers(2)]
        one, other = graph.add("Slice", frames, *part), graph.add("Slice", mirrored, *part)
        weight = graph.constant(window[begin:end])
        return graph.add("Mul", graph.add("Add", one, other), weight), graph.add("Mul", graph.add("Sub", one, other), weight)

    inner = torch.arange(min(quarter, middle))  # from the middle of the frame on
    cosine, sine = sums(middle, middle + len(inner))
    by_parity = {0: (cosine, sine), 1: (cosine, sine)}
    if middle > quarter:  # the window's outer samples, half a frame away from inner ones
        missing = graph.integers(0, 0, 2 * quarter - middle, 0, 0, 0)
        outer_cosine, outer_sine = (graph.add("Pad", one, missing) for one in sums(0, middle - quarter))
        by_parity[0] = graph.add("Add", cosine, outer_cosine), graph.add("Add", sine, outer_sine)
        by_parity[1] = graph.add("Sub", cosine, outer_cosine), graph.add("Sub", sine, outer_sine)
    for parity, (cosine_sum, sine_sum) in by_parity.items():
        part = bins[bins % 2 == parity]
        angle = 2 * torch.pi / mel.n_fft * torch.outer(inner + 0.5, part.double())
        yield _squared(graph, cosine_sum, angle.cos(), sine_sum, angle.sin()), part


def _window(mel: MelConfig) -> Tensor:
    return torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)


def _squared(graph: Graph, x: str, cosines: Tensor, y: str, sines: Tensor) -> str:
    """|x C + i y S|^2, (B, frames, bins)."""
    real = graph.add("MatMul", x, graph.constant(cosines))
    imaginary = graph.add("MatMul", y, graph.constant(sines))
    return graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary))
