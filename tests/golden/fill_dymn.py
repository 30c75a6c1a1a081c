"""Weights for the golden outputs of DyMN: the values of `fill.py`, brought to a scale at which every part of the network counts.

`fill_state_dict` alone makes dynamic kernels far too small (it takes a whole kernel set for the fan-in) and norms that fit no data,
so that the logits hardly depend on the input. `fill_dymn_state_dict` rescales its result.
"""

import torch

from tests.golden.fill import fill_state_dict


def fill_dymn_state_dict(state: dict[str, torch.Tensor], norm_variance: list[float]) -> dict[str, torch.Tensor]:
    """Fill `state` in place with `fill_state_dict`, then, in the dict's order:

    - dynamic kernels (1, 1, K, N) for C output channels: times K sqrt(C), which makes the standard deviation sqrt(2 K C / N);
    - the weights of the Linear that chooses kernels: times 4;
    - `lambdas` and `init_v`: the values of every trained checkpoint;
    - the k-th norm: variance times norm_variance[k], mean times its square root.
    """
    fill_state_dict(state)
    scales = iter(norm_variance)
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if f"{stem}.residuals.0.weight" in state:
            channels = state[stem.replace("_conv", "_norm") + ".weight"].numel()
            tensor.mul_(tensor.shape[2] * channels**0.5)
        elif name.endswith("residuals.0.weight"):
            tensor.mul_(4.0)
        elif kind == "lambdas":
            tensor.copy_(torch.tensor([1.0, 0.5]).repeat_interleave(tensor.numel() // 2))
        elif kind == "init_v":
            tensor.zero_()[0] = 1.0
        elif kind == "running_mean":
            scale = next(scales)
            tensor.mul_(scale**0.5)
            state[f"{stem}.running_var"].mul_(scale)
    return state
