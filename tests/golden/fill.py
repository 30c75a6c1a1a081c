"""Deterministic weights and inputs for the golden outputs in this folder.

`fill_state_dict(state)` replaces every floating-point tensor of a state dict in place, in the dict's order, by values
that depend only on the tensor's position in that order, its name and its shape (numpy's RandomState streams are
frozen). `waveform(n)` and `spectrogram(shape)` make the inputs.
"""

import numpy as np
import torch


def fill_state_dict(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill `state` in place; convolutions and linear layers get standard deviation sqrt(2 / fan_in)."""
    for index, (name, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            continue
        values = np.random.RandomState(index).standard_normal(tensor.numel())
        if name.endswith("running_mean"):
            values = 0.1 * values
        elif name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif name.endswith("bias"):
            values = 0.1 * values
        elif tensor.ndim == 1:  # a norm's weight
            values = 1.0 + 0.1 * values
        else:
            fan_in = tensor[0].numel()
            values = values * np.sqrt(2.0 / fan_in)
        tensor.copy_(torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape))
    return state


def waveform(n: int, sample_rate: int = 32000) -> torch.Tensor:
    """(1, n) float32: a chirp from 50 Hz upwards at 2 kHz per second, with a click every half second."""
    t = np.arange(n, dtype=np.float64) / sample_rate
    x = 0.5 * np.sin(2 * np.pi * (50 * t + 1000 * t * t)) + 0.01 * np.random.RandomState(7).standard_normal(n)
    x[:: sample_rate // 2] += 0.4
    return torch.from_numpy(x.astype(np.float32))[None]


def spectrogram(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """float32 standard normal tensor of the given shape."""
    return torch.from_numpy(np.random.RandomState(11).standard_normal(shape).astype(np.float32))
