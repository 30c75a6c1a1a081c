from __future__ import annotations

import math
from functools import cache
from itertools import cycle, islice

import pytest
import torch
from ptflops import get_model_complexity_info
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.costs.macs import ComplexityReport, count_macs, describe, meta_network, spectrogram_shape, trace
from models.config import HEAD_TYPES, Arch, MelConfig
from models.ensemble import EnsembleModel
from models.MobileNetV3 import get_model
from models.registry import PRETRAINED
from models.waveform import WaveformModel

# exact parameters; MACs in 1e9 for 128 mels and 1000 frames, from the published table
WIDTHS = [
    (0.1, 123783, 0.0181),
    (0.2, 324695, 0.0403),
    (0.4, 983599, 0.1106),
    (0.5, 1431239, 0.1600),
    (1.0, 4876831, 0.5411),
    (2.0, 17909287, 2.0594),
    (3.0, 39086367, 4.5549),
    (4.0, 68427303, 8.0276),
]
# not in that table: derived here, so that a change of the count is noticed
DERIVED = [
    ("mn10_as_hop_5", 4876831, 1071426087),
    ("mn10_as_fc", 3478638, 603937688),
    ("mn10_as_fc_s2221", 3478638, 1147723928),
    ("mn10_as_fc_s2211", 3478638, 3978024280),
]
SMALL = Arch(width_mult=0.1, num_classes=10, input_dim_f=64, input_dim_t=100)


@cache
def report_of(arch: Arch, mel: MelConfig | None = None) -> ComplexityReport:
    return count_macs(meta_network(arch, mel))


def released(name: str) -> ComplexityReport:
    return report_of(PRETRAINED[name].arch, PRETRAINED[name].mel)


@pytest.mark.parametrize(("width", "params", "giga_macs"), WIDTHS)
def test_every_width_has_the_published_size(width: float, params: int, giga_macs: float) -> None:
    report = report_of(Arch(width_mult=width), MelConfig())
    assert report.params == params
    assert f"{report.macs / 1e9:.4f}" == f"{giga_macs:.4f}"


@pytest.mark.parametrize(("name", "params", "macs"), DERIVED)
def test_other_released_models(name: str, params: int, macs: int) -> None:
    report = released(name)
    assert (report.params, report.macs) == (params, macs)


def outside_cases() -> list[tuple[Arch, MelConfig]]:
    """Every head, width and resolution of a released model, and what none of them has."""
    resolutions = sorted({(entry.mel.n_mels, entry.mel.hop_size) for entry in PRETRAINED.values()})
    widths = [width for width, *_ in WIDTHS]
    count = max(len(widths), len(resolutions), len(HEAD_TYPES))
    combined = islice(zip(cycle(widths), cycle(resolutions), cycle(HEAD_TYPES), strict=False), count)
    cases = [
        (Arch(width_mult=width, head_type=head, input_dim_f=bands), MelConfig(n_mels=bands, hop_size=hop))
        for width, (bands, hop), head in combined
    ]
    others = ({"se_dims": "cft", "reduced_tail": True}, {"se_dims": "none", "dilated": True}, {"strides": (2, 2, 1, 1)})
    return cases + [(Arch(width_mult=0.1, num_classes=10, **changes), MelConfig()) for changes in others]


def test_agrees_with_outside_counters_to_the_unit() -> None:
    """torch's counter leaves out all biases, ptflops those of a linear layer applied at several positions (the attention head)."""
    for arch, mel in outside_cases():
        network = meta_network(arch, mel).eval()
        report = count_macs(network)
        biases = [math.prod(layer.output_shape) for layer in report.layers if layer.type == "Linear"]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            macs, params = get_model_complexity_info(
                network, spectrogram_shape(network)[1:], as_strings=False, print_per_layer_stat=False, backend="aten"
            )
        case = f"{arch}, {mel}"
        assert report.macs == counter.get_total_flops() // 2 + sum(biases), case
        assert report.macs - macs == (biases[-1] if arch.head_type == "multihead_attention_pooling" else 0), case
        assert report.params == params == sum(parameter.numel() for parameter in network.parameters()), case


def test_rows_of_a_report() -> None:
    report = count_macs(meta_network(Arch(head_type="multihead_attention_pooling")))
    stem, head = report.layers[0], report.layers[-1]
    assert (stem.name, stem.type) == ("features.0.0", "Conv2d")
    assert (stem.input_shape, stem.output_shape) == ((1, 1, 128, 1000), (1, 16, 64, 500))
    assert (stem.params, stem.macs) == (16 * 9, 16 * 9 * 64 * 500)
    assert (head.name, head.output_shape) == ("classifier.subspace_proj", (1, 32, 2 * 4 * 527))
    assert head.macs == 32 * head.params == 32 * (960 + 1) * 2 * 4 * 527  # at each of 32 positions in time


def test_reports_what_is_not_counted() -> None:
    report = report_of(Arch(), MelConfig())
    assert report.uncounted == {
        "BatchNorm2d": 46,
        "Hardswish": 21,
        "InvertedResidual": 15,
        "ReLU": 11,
        "ConcurrentSE": 8,
        "SqueezeExcitation": 8,
        "AdaptiveAvgPool2d": 1,
        "Flatten": 1,
        "Dropout": 1,
    }
    transposed = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 2, 3))
    report = count_macs(transposed, (1, 2, 10))
    assert report.macs == 4 * 8 * (2 * 3 + 1)
    assert report.uncounted == {"ConvTranspose1d": 1}


def test_bias_and_groups_of_a_convolution() -> None:
    convolution = nn.Conv2d(8, 12, (3, 5), groups=4, bias=True)
    assert count_macs(convolution, (2, 8, 10, 10)).macs == 2 * 12 * 8 * 6 * (2 * 15 + 1)


def test_an_ensemble_is_the_sum_of_its_members_each_behind_its_own_front_end() -> None:
    names = ["mn10_as_hop_15", "mn10_as_mels_40", "mn10_as"]
    members = [WaveformModel(meta_network(PRETRAINED[name].arch, PRETRAINED[name].mel)) for name in names]
    report = count_macs(EnsembleModel(members))
    assert report.params == 3 * 4876831
    assert report.macs == 361181543 + 208044935 + 541085095
    assert report.uncounted["AugmentMelSTFT"] == 3
    assert report.layers[-1].name == "members.2.network.classifier.5"


def test_an_explicit_shape_is_a_waveform_behind_a_front_end() -> None:
    network = meta_network(SMALL)
    assert count_macs(WaveformModel(network), (1, 32000)).macs == count_macs(network, (1, 1, 64, 100)).macs
    assert count_macs(network, (3, 1, 64, 100)).macs == 3 * count_macs(network, (1, 1, 64, 100)).macs


def test_a_foreign_model_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="pass input_shape"):
        count_macs(nn.Linear(3, 4))
    assert count_macs(nn.Linear(3, 4), (2, 5, 3)).macs == 2 * 5 * (3 * 4 + 4)


def test_the_model_is_left_as_it_was() -> None:
    network = get_model(num_classes=10, width_mult=0.1).half().train()
    network.features.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_macs(network)
    after = network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {tensor.device.type for tensor in after.values()} == {"cpu"}
    assert network.training and network.classifier.training and not network.features.training
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_go_even_when_the_forward_pass_raises() -> None:
    network = get_model(num_classes=10, width_mult=0.1, input_dim_t=100, se_dims="t").train()
    with pytest.raises(ValueError, match="axis 't'"):
        trace(network, (1, 1, 128, 200), (nn.Conv2d,))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(module.training for module in network.modules())
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_a_name_for_a_network_without_one() -> None:
    assert describe(Arch()) == "width 1.0, mlp head"
    assert describe(Arch(width_mult=2.0, se_dims="none")) == "width 2.0, mlp head, se_dims none"
    assert describe(Arch(strides=(2, 2, 2, 1), dilated=True)) == "width 1.0, mlp head, strides 2 2 2 1, dilated"
