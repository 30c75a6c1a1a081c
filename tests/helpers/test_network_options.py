from __future__ import annotations

import argparse

import pytest

from helpers import network_options
from helpers.costs.macs import describe
from models.building import new_architecture
from models.config import Arch, Architecture, DyMNArch

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
