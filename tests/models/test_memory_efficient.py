"""Execution in channel chunks against the plain forward pass, with norms whose statistics are not those of a fresh network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.config import HEAD_TYPES, Arch
from models.memory_efficient import memory_efficient
from models.network import MobileNetV3

SMALL = Arch(width_mult=0.2, num_classes=10, input_dim_f=64, input_dim_t=75)


def random_network(arch: Arch) -> MobileNetV3:
    torch.manual_seed(0)
    network = MobileNetV3(arch)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return network.eval()


def worst(network: MobileNetV3, other: MobileNetV3, x: Tensor) -> float:
    """The largest difference of logits and embeddings, in standard deviations of each."""
    with torch.no_grad():
        pairs = list(zip(network(x), other(x.to(next(other.parameters()).dtype)), strict=True))
    assert all(one.shape == two.shape for one, two in pairs)
    return max(((one - two.float()).abs().max() / one.std()).item() for one, two in pairs)


@pytest.mark.parametrize("width", [0.1, 0.2, 0.4, 0.5, 1.0, 2.0])
def test_every_width_computes_the_same(width: float) -> None:
    network = random_network(replace(SMALL, width_mult=width))
    assert worst(network, memory_efficient(network), torch.randn(1, 1, 64, 75)) < 1e-5


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        *({"head_type": head, "strides": (2, 2, 1, 1)} for head in HEAD_TYPES),
        {"head_type": "fully_convolutional", "num_classes": 0},
        {"se_dims": "none", "reduced_tail": True},
        {"dilated": True, "strides": (1, 2, 2, 1)},
        {"se_dims": "f"},
        *({"se_dims": "cft", "se_agg": aggregation} for aggregation in ("max", "avg", "add", "min")),
    ],
    ids=str,
)
def test_every_architecture_computes_the_same(changes: dict, two_passes: bool) -> None:
    network = random_network(replace(SMALL, **changes))
    assert worst(network, memory_efficient(network, two_passes=two_passes), torch.randn(2, 1, 64, 75)) < 1e-5


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 33])
def test_short_inputs(frames: int) -> None:
    network = random_network(SMALL)
    assert worst(network, memory_efficient(network), torch.randn(1, 1, 64, frames)) < 1e-5


def test_a_length_that_squeeze_and_excitation_was_not_built_for() -> None:
    network = memory_efficient(random_network(replace(SMALL, se_dims="t")))
    with pytest.raises(ValueError, match="axis 't' was built for size"):
        network(torch.zeros(1, 1, 64, 300))


def test_float16_differs_by_its_own_precision() -> None:
    network = random_network(SMALL)
    assert worst(network, memory_efficient(network).half(), torch.randn(2, 1, 64, 75)) < 0.02


def test_the_network_itself_stays_as_it_was() -> None:
    network = random_network(SMALL).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy = memory_efficient(network)
    assert not copy.training and copy.mel == network.mel and copy.arch == network.arch
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert list(before) == list(after) and all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    x = torch.randn(1, 1, 64, 75)
    kept = x.clone()
    copy(x)
    assert torch.equal(x, kept)
