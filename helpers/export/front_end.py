"""The log-mel front end as ONNX operations."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor

from helpers.export.onnx_writer import WAVEFORM_SHAPE, Graph, make_model, spectrogram_shape
from models.config import MelConfig
from models.errors import UserError
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
    if mel.n_fft % 4 or mel.win_length % 2:
        raise UserError(f"n_fft {mel.n_fft} must be a multiple of 4 and win_length {mel.win_length} even to be exported")

    # Of the n_fft samples of a frame, the window keeps the win_length in the middle: the others are not gathered.
    length = graph.add("Shape", x, start=1)
    x = graph.add("Pad", x, graph.integers(0, mel.win_length // 2, 0, mel.win_length // 2), mode="reflect")
    count = graph.add("Add", graph.add("Div", length, graph.integers(mel.hop_size)), graph.integers(1))
    bank = mel_filterbank(mel.n_mels, mel.n_fft, mel.sample_rate, mel.fmin, mel.fmax).T  # (bins, n_mels)
    bins = bank.any(1).nonzero()[:, 0]  # those without weight in any band are not computed
    energies = [graph.add("MatMul", power, graph.constant(bank[part])) for power, part in _power(graph, mel, x, count, bins)]
    energy = graph.add("Add", *energies)  # (B, frames, n_mels)
    log_mel = graph.add("Log", graph.add("Add", energy, graph.constant(LOG_OFFSET)))
    log_mel = graph.add("Div", graph.add("Add", log_mel, graph.constant(4.5)), graph.constant(5.0))
    return graph.add("Unsqueeze", graph.add("Transpose", log_mel, perm=[0, 2, 1]), graph.integers(1))


def _add_frames(graph: Graph, mel: MelConfig, x: str, count: str, backwards: bool = False) -> str:
    """Cut (B, samples) into `count` frames, (B, frames, win_length), each reversed where `backwards`.

    Frames are concatenated from blocks whose length divides hop and window: 160 samples for 320 and 800.
    """
    size = math.gcd(mel.hop_size, mel.win_length)
    hops = graph.add("Sub", count, graph.integers(1))
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


def _power(graph: Graph, mel: MelConfig, x: str, count: str, bins: Tensor) -> Iterator[tuple[str, Tensor]]:
    """|DFT|^2, (B, frames, len(part)), of each of two parts of the bins: with a third of the multiplications of the plain product.

    Only the power counts, so phases may be relative to the middle of the frame, n = (n_fft - 1) / 2. About it, cosines are even
    and sines odd; and from n to n + n_fft / 2, those of even bins keep their sign while those of odd bins change it. So the
    samples n, n_fft / 2 - 1 - n, n_fft / 2 + n and n_fft - 1 - n have the same weights up to the sign, and are added or
    subtracted first. Four matrices over a quarter of the frame remain, for half of the bins each.
    """
    quarter, middle = mel.n_fft // 4, mel.win_length // 2
    frames, mirrored = _add_frames(graph, mel, x, count), _add_frames(graph, mel, x, count, backwards=True)
    window = torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)

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
        cosines = graph.constant(angle.cos())
        real = graph.add("MatMul", cosine_sum, cosines)
        if parity == 1 and len(inner) == quarter:  # the sines, up to the sign, are the cosines backwards: stored once
            backwards = graph.add("Slice", sine_sum, *(graph.integers(value) for value in (-1, -TO_THE_END, 2, -1)))
            imaginary = graph.add("MatMul", backwards, cosines)
        else:
            imaginary = graph.add("MatMul", sine_sum, graph.constant(angle.sin()))
        yield graph.add("Add", graph.add("Mul", real, real), graph.add("Mul", imaginary, imaginary)), part
