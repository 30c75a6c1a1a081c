"""Working in place changes no bit of any result, and nothing that anyone else holds."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from helpers.distillation.feature_matching import block_outputs
from models import in_place
from models.config import Arch
from models.embeddings import forward_layers, layer_sizes
from models.network import MobileNetV3

ARCHS = [Arch(width_mult=0.1, num_classes=5, se_dims=se_dims, input_dim_f=32, input_dim_t=40) for se_dims in ("c", "cft", "none")]


@pytest.fixture
def never_in_place(monkeypatch: pytest.MonkeyPatch):
    """Switches working in place off and on."""

    def switch(off: bool) -> None:
        monkeypatch.setattr(in_place, "may_overwrite", (lambda *tensors: False) if off else may_overwrite)

    may_overwrite = in_place.may_overwrite
    return switch


def make_network(arch: Arch = ARCHS[0]) -> MobileNetV3:
    """A network whose norms and gates do something."""
    torch.manual_seed(0)
    network = MobileNetV3(arch)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim < 2:
            tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_()
    return network.eval()


def spectrograms() -> torch.Tensor:
    return torch.randn(2, 1, 32, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.se_dims)
@pytest.mark.parametrize("mode", ["inference", "autocast", "channels_last", "gradients", "training"])
def test_same_bits(arch, mode, never_in_place, monkeypatch):
    monkeypatch.setattr(in_place, "COPIED_BYTES", 1000)  # less than a clip

    def run(off: bool) -> list[torch.Tensor]:
        never_in_place(off)
        network = make_network(arch).train(mode == "training")
        if mode == "channels_last":
            network.to(memory_format=torch.channels_last)
        context = torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()
        with torch.set_grad_enabled(mode in ("gradients", "training")), context:
            logits, embedding = network(spectrograms())
        if logits.requires_grad:
            (logits.square().mean() + embedding.square().mean()).backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        return [logits.detach(), embedding.detach(), *gradients, *network.buffers()]

    expected, found = run(True), run(False)
    assert len(expected) == len(found)
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.se_dims)
@pytest.mark.parametrize("gradients", [False, True])
def test_maps_that_are_kept_stay_as_they_were(arch, gradients, never_in_place):
    def run(off: bool) -> list[torch.Tensor]:
        never_in_place(off)
        network = make_network(arch)
        with torch.set_grad_enabled(gradients), block_outputs(network) as outputs:
            network(spectrograms())
        return outputs

    expected, found = run(True), run(False)
    assert len(found) == 17 and all(map(torch.equal, expected, found))
    if not gradients:
        assert len({output.data_ptr() for output in found}) == len(found)


@torch.no_grad()
def test_every_tap_of_the_embeddings(never_in_place):
    network = make_network(ARCHS[1])
    layers = layer_sizes(network)
    never_in_place(True)
    expected = forward_layers(network, spectrograms(), layers)
    never_in_place(False)
    found = forward_layers(network, spectrograms(), layers)
    assert all(torch.equal(expected[layer], found[layer]) for layer in layers)


@torch.no_grad()
def test_inputs_of_the_network_and_of_its_blocks_stay_as_they_were():
    network, x = make_network(), spectrograms()
    for stage in (network, *network.features):
        before = x.clone()
        y = stage(x)
        assert torch.equal(x, before)
        x = x if stage is network else y


def test_a_norm_works_in_place_in_evaluation_alone():
    norm, x = in_place.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 5)
    expected, before = nn.BatchNorm2d(3).eval()(x), x.clone()
    assert norm(x).data_ptr() != x.data_ptr() and torch.equal(x, before)  # gradients of its weights are recorded
    with torch.no_grad():
        assert norm.train()(x).data_ptr() != x.data_ptr() and torch.equal(x, before)
        norm.reset_running_stats()
        assert norm.eval()(x).data_ptr() == x.data_ptr() and torch.equal(x, expected)


def test_hardswish_copies_nothing_for_gradients():
    x = torch.randn(4, requires_grad=True)
    kept = 2 * x
    result = in_place.Hardswish()(kept)
    assert torch.equal(kept, 2 * x) and torch.equal(result, nn.Hardswish()(kept))
    with torch.no_grad():
        kept = 2 * x
        assert in_place.Hardswish()(kept) is kept


@torch.no_grad()
def test_types_that_differ_are_not_forced_together():
    half, single = torch.ones(2, dtype=torch.float16), torch.full((2,), 1 + 2**-20)
    assert in_place.scale(half, single).dtype == in_place.add(half, single).dtype == torch.float32
    assert half.tolist() == [1, 1]


@torch.no_grad()
def test_networks_that_are_transformed_or_compiled_are_not_in_place(monkeypatch: pytest.MonkeyPatch):
    network, x = make_network(), spectrograms()
    expected = network(x)[0]
    mapped = torch.func.vmap(lambda clips: network(clips)[0])(torch.stack([x, x]))  # has no rule for results in place
    torch.testing.assert_close(mapped, torch.stack([expected, expected]))
    for tracing in ("torch.compiler.is_compiling", "torch.jit.is_tracing"):
        with monkeypatch.context() as patch:
            patch.setattr(tracing, lambda: True)
            assert not in_place.may_overwrite(x)
    assert in_place.may_overwrite(x)


@torch.no_grad()
def test_depthwise_convolutions_take_a_few_clips_at_a_time(monkeypatch: pytest.MonkeyPatch):
    layer, x = in_place.DepthwiseConv2d(3, 3, 3, stride=2, padding=1, groups=3, bias=False), torch.randn(5, 3, 8, 6)
    expected, calls = layer(x), []
    compute = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda *args: calls.append(len(args[1])) or compute(*args))
    monkeypatch.setattr(in_place, "COPIED_BYTES", 2 * x[0].nbytes)
    assert torch.equal(layer(x), expected) and calls == [2, 2, 1]
    calls.clear()
    with torch.enable_grad():
        assert torch.equal(layer(x), expected) and calls == [5]
