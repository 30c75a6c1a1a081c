from __future__ import annotations

import argparse

import pytest

from helpers import network_options
from helpers.costs.macs import describe
from models.building import new_architecture
from models.config import Arch, Architecture, DyMNArch
from models.errors import UserError

ARCHS = (
    Arch(),
    Arch(width_mult=0.4, head_type="fully_convolutional", se_dims="cf"),
    DyMNArch(width_mult=0.4),
    DyMNArch(width_mult=0.4, use_dy_blocks="replace_se", no_ca=True, no_dyrelu=True, dyconv_k=2, context_ratio=8),
)


@pytest.mark.parametrize("arch", ARCHS, ids=describe)
def test_options_describe_an_architecture(arch: Architecture) -> None:
    parser = argparse.ArgumentParser()
    network_options.add_network_options(parser)
    args = parser.parse_args([str(option) for option in network_options.options_of(arch)])
    assert new_architecture(network_options.chosen_family(args), network_options.given_fields(args)) == arch


def test_architectures_that_differ_have_names_that_differ() -> None:
    assert len({describe(arch) for arch in ARCHS}) == len(ARCHS)


@pytest.mark.parametrize(
    ("words", "shown"),
    [("--no_ca", "--no_ca means"), ("--dyconv_k 2", "--dyconv_k 2 means"), ("--T_max 3", "--T_max 3")],
)
def test_messages_show_options_as_they_are_given(words: str, shown: str) -> None:
    parser = argparse.ArgumentParser()
    network_options.add_architecture_options(parser)
    network_options.add_temperature_options(parser)
    network_options.add_front_end_options(parser)
    with pytest.raises(UserError, match=f"^{shown}"):
        network_options.described_model(None, parser.parse_args(words.split()))
    assert network_options.as_option("strides", (2, 2, 2, 1)) == "--strides 2 2 2 1"
    assert network_options.as_option("width_mult", 0.4) == "--model_width 0.4"
    assert network_options.as_option("temperature", 1.0) == "--pretrain_final_temp 1.0"
