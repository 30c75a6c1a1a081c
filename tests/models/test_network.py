"""The network: every variant runs forward and backward, the batch axis stays, wrong sizes are errors."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from models.config import HEAD_TYPES, SE_AGGREGATIONS, Arch
from models.errors import UserError
from models.MobileNetV3 import get_model
from models.network import MobileNetV3

SE_DIMS = ["none"] + ["".join(letters) for count in (1, 2, 3) for letters in permutations("cft", count)]
BANDS, FRAMES = 32, 40


def variants() -> list[dict]:
    agg = {dims: SE_AGGREGATIONS[index % 4] for index, dims in enumerate(SE_DIMS)}
    found = [{"se_dims": dims, "se_agg": agg[dims]} for dims in SE_DIMS]
    found += [{"se_dims": "cft", "se_agg": name} for name in SE_AGGREGATIONS]
    found += [{"head_type": head} for head in HEAD_TYPES]
    found += [{"head_type": "multihead_attention_pooling", "multihead_attention_heads": heads} for heads in (1, 3)]
    found += [{"strides": strides} for strides in ((2, 2, 2, 1), (2, 2, 1, 1), (1, 2, 2, 2), (1, 1, 1, 1))]
    found += [{"dilated": True}, {"reduced_tail": True}, {"se_r": 2}, {"width_mult": 0.3}]
    found += [{"dilated": True, "reduced_tail": True, "se_dims": "cft", "strides": (2, 1, 2, 2)}]
    return found


@pytest.mark.parametrize("variant", variants(), ids=str)
def test_variant_runs_and_every_parameter_learns(variant):
    arch = Arch(**{"num_classes": 5, "width_mult": 0.1, "input_dim_f": BANDS, "input_dim_t": FRAMES, **variant})
    model = MobileNetV3(arch)
    logits, embedding = model(torch.randn(2, 1, BANDS, FRAMES))
    assert logits.shape == (2, 5)
    assert embedding.shape == (2, model.embedding_size)
    (logits * torch.randn(2, 5)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_features_and_head_compose_to_forward(head_type):
    model = MobileNetV3(Arch(4, 0.1, head_type=head_type)).eval()
    x = torch.randn(2, 1, 64, 50)
    features = model.forward_features(x)
    for result, expected in zip(
        model(x), (model.forward_head(features), model.forward_head(features, pre_logits=True)), strict=True
    ):
        assert torch.equal(result, expected)


def test_a_hook_on_the_features_sees_the_last_map():
    model = get_model(3, width_mult=0.1).eval()
    seen = []
    model.features.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        _, embedding = model(torch.randn(1, 1, 32, 40))
    assert len(seen) == 1 and torch.equal(seen[0].mean((2, 3)), embedding)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_without_classes_the_embedding_takes_the_place_of_the_logits(head_type):
    model = get_model(0, width_mult=0.1, head_type=head_type).eval()
    assert not any(name.startswith("classifier") for name in model.state_dict())
    logits, embedding = model(torch.randn(2, 1, 64, 50))
    assert embedding.shape == (2, 96)
    torch.testing.assert_close(logits, embedding)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_reset_classifier_changes_what_belongs_to_classes_alone(head_type):
    model = MobileNetV3(Arch(4, 0.1, head_type=head_type), labels="abcd", single_label=True, clip_seconds=3.0).double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.reset_classifier(7)
    after = model.state_dict()
    assert list(after) == list(before)
    kept = [name for name in before if not name.startswith(model.last_layer)]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert (model.arch.num_classes, model.labels, model.single_label, model.clip_seconds) == (7, None, False, 3.0)
    assert not any(module.training for module in model.modules())
    assert model(torch.randn(1, 1, 64, 50, dtype=torch.float64))[0].shape == (1, 7)
    model.reset_classifier(0)
    assert model(torch.randn(1, 1, 64, 50, dtype=torch.float64))[0].shape == (1, 96)
    model.reset_classifier(4)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {name: t.shape for name, t in before.items()}
    with pytest.raises(ValueError, match="num_classes"):
        model.reset_classifier(-1)
    assert model.arch.num_classes == 4


def test_fresh_weights_follow_from_the_seed_alone():
    """The sum over all weights under one seed, as it was when the initialisation was first written."""
    torch.manual_seed(3)
    state = MobileNetV3(Arch(5, 0.1, head_type="fully_convolutional", se_dims="cf")).state_dict()
    assert sum(tensor.double().sum().item() for tensor in state.values()) == pytest.approx(2610.4979, abs=0.01)


def test_repr_is_one_line_that_names_what_is_not_the_default():
    shown = repr(MobileNetV3(Arch(5, 0.1, head_type="fully_convolutional")))
    assert shown.startswith("MobileNetV3(num_classes=5, width_mult=0.1, head_type='fully_convolutional'; ") and "\n" not in shown


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_examples_of_a_batch_do_not_touch_each_other_in_evaluation(head_type):
    model = MobileNetV3(Arch(4, 0.1, head_type=head_type)).eval()
    x = torch.randn(3, 1, 64, 50)
    together = model(x)
    for index in range(3):
        for whole, alone in zip(together, model(x[index : index + 1]), strict=True):
            torch.testing.assert_close(whole[index : index + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bands, frames", [(128, 1000), (40, 1), (1, 1), (7, 33)])
def test_any_input_size_without_se_on_frequency_or_time(bands, frames):
    model = MobileNetV3(Arch(3, 0.1)).eval()
    with torch.no_grad():
        logits, _ = model(torch.randn(1, 1, bands, frames))
    assert logits.shape == (1, 3) and torch.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(1, 128, 100), (128, 100), (2, 2, 128, 100), (1, 1, 1, 128, 100)], ids=str)
def test_wrong_input_shape_is_a_value_error_that_shows_it(shape):
    with pytest.raises(ValueError) as caught:
        MobileNetV3(Arch(3, 0.1)).eval()(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(("se_dims", "size", "option"), [("f", (64, 40), "input_dim_f"), ("ct", (32, 100), "input_dim_t")])
def test_wrong_size_under_se_is_a_value_error_that_names_the_option(se_dims, size, option):
    model = MobileNetV3(Arch(3, 0.1, se_dims=se_dims, input_dim_f=32, input_dim_t=40)).eval()
    model(torch.zeros(1, 1, 32, 40))
    with pytest.raises(ValueError, match=option):
        model(torch.zeros(1, 1, *size))


def test_se_sizes_follow_the_convolutions():
    with torch.device("meta"):
        model = MobileNetV3(Arch(se_dims="ft", input_dim_f=40, input_dim_t=101, strides=(2, 2, 1, 2), dilated=True))
    # 40 x 101 -> stem 20 x 51 -> block 2: 10 x 26 -> block 4: 5 x 13; block 7 does not stride, nor does 13 if dilated
    for block in (4, 5, 6, 11, 12, 13, 14, 15):
        frequency, time = model.features[block].block[2].conc_se_layers
        assert (frequency.fc1.in_features, time.fc1.in_features) == (5, 13)
    with torch.device("meta"):
        model = MobileNetV3(Arch(se_dims="ft"))
    sizes = [model.features[block].block[2].conc_se_layers[1].fc1.in_features for block in (4, 11, 13)]
    assert sizes == [125, 63, 32]


def test_embedding_is_the_global_mean_of_the_last_feature_map():
    model = MobileNetV3(Arch(3, 0.1)).eval()
    x = torch.randn(2, 1, 64, 100)
    with torch.no_grad():
        features = model.features(x)
        _, embedding = model(x)
    expected = features.double().sum((2, 3)) / (features.shape[2] * features.shape[3])
    torch.testing.assert_close(embedding.double(), expected, atol=1e-5, rtol=1e-5)


def test_reduced_tail_halves_embedding_and_hidden_layer():
    with torch.device("meta"):
        state = MobileNetV3(Arch(width_mult=1.0, reduced_tail=True)).state_dict()
    assert state["classifier.2.weight"].shape == (640, 480)
    assert state["classifier.5.weight"].shape == (527, 640)


def test_dropout_acts_in_training_only():
    model = MobileNetV3(Arch(6, 0.1))
    for module in model.modules():  # norms keep their evaluation behaviour: dropout is the only chance left
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    nn.init.normal_(model.classifier[5].weight)
    nn.init.normal_(model.classifier[2].weight)
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(x)[0], model(x)[0])
        model.eval()
        assert torch.equal(model(x)[0], model(x)[0])


def test_state_names_of_the_attention_head():
    state = MobileNetV3(Arch(5, 0.1, head_type="multihead_attention_pooling")).state_dict()
    names = {name for name in state if name.startswith("classifier.")}
    assert names == {"classifier.head_weight", "classifier.subspace_proj.weight", "classifier.subspace_proj.bias"}


@pytest.mark.parametrize("se_dims", SE_DIMS)
def test_se_state_names(se_dims):
    with torch.device("meta"):
        model = MobileNetV3(Arch(width_mult=1.0, se_dims=se_dims))
    found = {name for name in model.state_dict() if "conc_se_layers" in name}
    axes = "" if se_dims == "none" else se_dims
    assert found == {
        f"features.{block}.block.2.conc_se_layers.{k}.{layer}.{part}"
        for block in (4, 5, 6, 11, 12, 13, 14, 15)
        for k in range(len(axes))
        for layer in ("fc1", "fc2")
        for part in ("weight", "bias")
    }


def test_initialisation():
    model = MobileNetV3(Arch(50, 1.0))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1), name
            assert not module.bias.any(), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any(), name
    convolution = model.features[15].block[0][0]  # 1x1: fan out is the number of output channels
    assert convolution.weight.std().item() == pytest.approx((2 / convolution.out_channels) ** 0.5, rel=0.05)


def test_model_carries_its_configuration():
    model = MobileNetV3(Arch(2, 0.1, input_dim_f=40), labels=["bark", "meow"])
    assert model.mel.n_mels == 40
    assert model.labels == ("bark", "meow")
    with pytest.raises(ValueError):
        MobileNetV3(Arch(3, 0.1), labels=["bark", "meow"])


def test_get_model_without_weights_takes_every_option():
    arch = Arch(3, 0.1, True, True, (2, 2, 2, 1), "multihead_attention_pooling", 2, 64, 50, "tf", "add", 2)
    assert get_model(**vars(arch)).arch == arch
    with torch.device("meta"):
        assert get_model().arch == Arch()
    with pytest.raises(ValueError):
        get_model(width_mult=0.1, head_type="linear")


@pytest.mark.parametrize("x", [None, [[[[0.0]]]], np.zeros((1, 1, 128, 50), np.float32), torch.zeros(1, 1, 128, 50, dtype=int)])
def test_what_is_no_spectrogram_is_one_error(x):
    with pytest.raises(UserError):
        get_model(3, width_mult=0.1).eval()(x)
    with pytest.raises(UserError):
        get_model(3, width_mult=0.1, waveform=True).eval()(x)


@pytest.mark.parametrize(
    "wrong",
    [{"num_classes": "3"}, {"num_classes": True}, {"pretrained_name": 5}, {"strides": 2}, {"strides": "2222"}, {"head_type": 5}]
    + [{"width_mult": "wide"}, {"dilated": "no"}, {"se_r": 2.5}],
    ids=str,
)
def test_arguments_of_wrong_types_are_one_error(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)) if "pretrained_name" not in wrong else "5"):
        get_model(**wrong)
