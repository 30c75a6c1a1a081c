"""DyMN as a model: examples are independent, training and evaluation agree, arguments and temperature travel with the weights."""

from __future__ import annotations

import pytest
import torch

from models import checkpoints
from models.blocks import large_block_configs
from models.config import DyMNArch, from_plain, to_plain
from models.DyMN import DyMN, get_model
from models.dynamic_blocks import DynamicBlock, DynamicConv, DynamicReLU
from models.ensemble import get_ensemble_model
from models.errors import UserError
from models.MobileNetV3 import get_model as get_mobilenet
from models.registry import PRETRAINED

SMALL = DyMNArch(3, 0.1, T_max=1.0)


def random_network(arch: DyMNArch = SMALL, dtype: torch.dtype = torch.float64) -> DyMN:
    """Weights at which kernels, slopes and gates differ between examples, and norms that fit."""
    torch.manual_seed(0)
    network = DyMN(arch).to(dtype).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, 1.5 / module.in_features**0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(4, 1, 32, 60, dtype=dtype))
    return network.eval()


@pytest.mark.parametrize(
    "variant", [{}, {"no_dyconv": True}, {"no_dyrelu": True}, {"no_ca": True}, {"use_dy_blocks": "replace_se"}]
)
def test_clips_alone_and_together(variant):
    network = random_network(DyMNArch(3, 0.1, T_max=1.0, **variant))
    x = torch.randn(7, 1, 40, 51, dtype=torch.float64)
    with torch.no_grad():
        logits, embedding = network(x)
        alone = torch.cat([network(one)[0] for one in x.split(1)])
        pairs = torch.cat([network(pair)[0] for pair in x.split(2)])
    assert logits.shape == (7, 3) and embedding.shape == (7, network.embedding_size)
    assert logits.std(0).min() > 1e-4
    torch.testing.assert_close(alone, logits, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(pairs, logits, rtol=1e-8, atol=1e-8)


def test_kernels_differ_between_the_clips_of_a_batch():
    network = random_network()
    shares = []
    conv = network.layers[5].depth_conv
    conv.residuals.register_forward_hook(lambda module, inputs, output: shares.append(output.softmax(-1)))
    with torch.no_grad():
        network(torch.randn(2, 1, 40, 51, dtype=torch.float64))
    assert (shares[0][0] - shares[0][1]).abs().max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (37, 2)])
def test_any_size_of_spectrogram(size):
    with torch.no_grad():
        logits, _ = random_network(DyMNArch(1, 0.1))(torch.randn(2, 1, *size, dtype=torch.float64))
    assert logits.shape == (2, 1) and logits.isfinite().all()


def test_memory_layout_does_not_matter():
    network = random_network()
    x = torch.randn(3, 1, 40, 51, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)[0]
        network.to(memory_format=torch.channels_last)
        logits = network(x.to(memory_format=torch.channels_last))[0]
    torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-8)


def test_a_dynamic_convolution_is_the_mean_of_its_kernels_results():
    torch.manual_seed(0)
    conv = DynamicConv(6, 6, 4, kernels=4, kernel=3).double()
    conv.temperature = 2.0
    x, context = torch.randn(2, 6, 5, 7, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    share = (conv.residuals(context) / 2).softmax(-1)
    results = [torch.nn.functional.conv2d(x, row.view(6, 1, 3, 3), padding=1, groups=6) for row in conv.weight[0, 0]]
    expected = sum(share[:, k, None, None, None] * result for k, result in enumerate(results))
    torch.testing.assert_close(conv(x, context), expected)


def test_a_new_dynamic_relu_is_a_relu():
    relu = DynamicReLU(4, 8, pieces=2)
    torch.nn.init.zeros_(relu.coef_net[0].weight)
    torch.nn.init.zeros_(relu.coef_net[0].bias)
    x = torch.randn(2, 4, 3, 5)
    assert torch.equal(relu(x, torch.randn(2, 8)), x.relu())


def test_gradients_reach_every_parameter():
    network = random_network(dtype=torch.float32).train()
    network(torch.randn(3, 1, 40, 51))[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_without_attention_its_layers_are_frozen():
    network = DyMN(DyMNArch(3, 0.1, no_ca=True)).train()
    network(torch.randn(2, 1, 40, 51))[0].sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())


def test_initial_kernels_have_the_published_spread():
    block = DynamicBlock(large_block_configs(2.0, (2, 2, 2, 2))[14], DyMNArch(width_mult=2.0))
    assert block.exp_conv.weight.std().item() == pytest.approx((2 / 1920) ** 0.5, rel=0.02)
    assert block.depth_conv.weight.std().item() == pytest.approx((2 / (1920 * 25)) ** 0.5, rel=0.02)


def test_a_checkpoint_keeps_family_and_temperature(tmp_path):
    network = DyMN(DyMNArch(3, 0.1, T_max=10.0), labels=["a", "b", "c"])
    network.start_epoch(4)
    checkpoints.save(tmp_path / "a.pt", network, epoch=4)
    loaded = checkpoints.load_model(tmp_path / "a.pt")
    assert loaded.arch == network.arch and (loaded.arch.T_max, loaded.arch.temperature) == (10.0, 6.0)
    assert loaded.layers[0].depth_conv.temperature == 6.0 and loaded.labels == ("a", "b", "c")
    loaded.start_epoch(5)  # as in a resumed run
    assert loaded.arch.temperature == 5.0
    for get in (get_model, get_mobilenet):  # a new training starts where the weights are
        started = get(5, str(tmp_path / "a.pt"))
        assert (started.arch.num_classes, started.arch.T_max, started.arch.temperature) == (5, 6.0, 6.0)
        assert torch.equal(started.layers[2].proj_conv.weight, network.layers[2].proj_conv.weight)
    assert get_model(None, str(tmp_path / "a.pt"), pretrain_final_temp=2.0).layers[0].depth_conv.temperature == 2.0


def test_a_released_checkpoint_brings_its_temperature(tmp_path, monkeypatch):
    """At the temperature of a new network the same weights give other results: that is the fault to avoid."""
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path))
    weights = random_network(DyMNArch(width_mult=0.4, T_max=1.0), torch.float32)
    for name in ("dymn04_as", "dymn04_im"):
        torch.save(weights.state_dict(), tmp_path / PRETRAINED[name].asset)
    models = {name: get_mobilenet(pretrained_name=name).eval() for name in ("dymn04_as", "dymn04_im")}
    assert [model.layers[4].exp_conv.temperature for model in models.values()] == [1.0, 30.0]
    x = torch.randn(1, 1, 128, 50)
    with torch.no_grad():
        expected, (warm, cold) = weights(x)[0], (model(x)[0] for model in models.values())
    assert torch.equal(warm, expected) and not torch.allclose(cold, expected)
    assert get_ensemble_model(["dymn04_as", "dymn04_im"]).num_classes == 527


@pytest.mark.parametrize(
    "wrong",
    [
        {"T_max": 0}, {"T0_slope": 0}, {"T_min": float("nan")}, {"use_dy_blocks": "some"}, {"no_ca": 1}, {"dyconv_k": 0},
        {"min_context_size": 256}, {"strides": (1, 2, 3, 4)}, {"width_mult": 0}, {"T1_slope": -1},
    ],
)  # fmt: skip
def test_what_no_dynamic_network_has(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        DyMNArch(**wrong)


def test_arguments_that_contradict_a_checkpoint(tmp_path):
    checkpoints.save(tmp_path / "a.pt", DyMN(SMALL))
    path = str(tmp_path / "a.pt")
    with pytest.raises(UserError, match="no_ca"):
        get_model(pretrained_name=path, no_ca=True)
    with pytest.raises(UserError, match="dilated"):
        get_mobilenet(pretrained_name=path, dilated=True)
    with pytest.raises(UserError, match="pretrain_final_temp"):
        get_model(pretrain_final_temp=1.0)
    checkpoints.save(tmp_path / "mn.pt", get_mobilenet(3, width_mult=0.1))
    with pytest.raises(UserError, match="pretrain_final_temp"):
        get_model(pretrained_name=str(tmp_path / "mn.pt"), pretrain_final_temp=1.0)
    assert get_model(pretrained_name=path, width_mult=0.1, T_min=0.5).arch.T_min == 0.5


def test_architecture_as_plain_data():
    arch = DyMNArch(3, 0.4, (2, 2, 1, 1), 8, 64, 16, 3, True, 2, True, 10.0, 2.0, 0.0, 0.5, True, "replace_se")
    assert from_plain(DyMNArch, to_plain(arch)) == arch
    assert get_model(**{name: value for name, value in vars(arch).items() if name != "temperature"}).arch == arch


def test_head_surgery():
    network = DyMN(SMALL).eval()
    network.reset_classifier(0)
    x = torch.randn(2, 1, 32, 40)
    with torch.no_grad():
        logits, embedding = network(x)
    assert torch.equal(logits, embedding) and network.arch.num_classes == 0
    network.reset_classifier(4)
    assert network(x)[0].shape == (2, 4)


@pytest.mark.parametrize("family", ["resnet", "mn", ["dymn"]])
def test_a_checkpoint_of_another_family_is_refused(tmp_path, family):
    path = tmp_path / "a.pt"
    checkpoints.save(path, DyMN(SMALL))
    content = torch.load(path, weights_only=True)
    torch.save(content | {"family": family}, path)
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.load(path)
