"""Arch and MelConfig: what they refuse, what they derive, and their plain form."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from models.config import Arch, MelConfig, from_plain, to_plain
from models.errors import UserError


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": -1},
        {"width_mult": 0},
        {"strides": (2, 2, 2)},
        {"strides": (2, 2, 2, 3)},
        {"head_type": "fc"},
        {"multihead_attention_heads": 0},
        {"input_dim_f": 0},
        {"se_dims": ""},
        {"se_dims": "cc"},
        {"se_agg": "mean"},
        {"se_r": 0},
        {"width_mult": 11.0},
        {"width_mult": "wide"},
        {"width_mult": float("nan")},
        {"num_classes": 10**9},
        {"num_classes": 2.0},
        {"num_classes": True},
        {"input_dim_t": 10**9},
        {"strides": 2},
        {"strides": "2222"},
        {"strides": (2, 2, 2, True)},
        {"head_type": None},
        {"se_dims": 5},
        {"se_agg": []},
        {"dilated": 1},
        {"reduced_tail": "no"},
    ],
    ids=str,
)
def test_arch_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Arch(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_mels": 0},
        {"sample_rate": 0},
        {"hop_size": 0},
        {"win_length": 0},
        {"win_length": 1025},
        {"n_fft": 1023},
        {"fmin": -1.0},
        {"fmin": 15000.0},
        {"fmax": 16001.0},
        {"fmax": float("nan")},
        {"fmin": "low"},
        {"n_fft": 1 << 30},
        {"n_fft": 1024.0},
        {"n_mels": 4096, "n_fft": 4096},
        {"n_mels": None},
        {"hop_size": 1 << 30},
        {"sample_rate": 10**400},
    ],
    ids=str,
)
def test_mel_config_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        MelConfig(**wrong)


def test_fmax_is_1_khz_below_nyquist_unless_given():
    assert MelConfig().fmax == 15000
    assert MelConfig(sample_rate=16000).fmax == 7000
    assert MelConfig(fmax=14000.0).fmax == 14000


@pytest.mark.parametrize(("hop_size", "frames"), [(160, 2000), (320, 1000), (480, 667), (640, 500), (800, 400)])
def test_frames_of_10_s(hop_size, frames):
    assert MelConfig(hop_size=hop_size).frames(320000) == frames


def test_configurations_are_frozen_and_comparable():
    with pytest.raises(FrozenInstanceError):
        Arch().num_classes = 5
    with pytest.raises(FrozenInstanceError):
        MelConfig().n_mels = 5
    assert Arch(strides=[2, 2, 2, 1]) == Arch(strides=(2, 2, 2, 1)) != Arch()
    assert len({Arch(strides=[2, 2, 2, 1]), Arch(strides=(2, 2, 2, 1)), Arch()}) == 2


@pytest.mark.parametrize(
    "config",
    [
        Arch(),
        Arch(3, 0.4, True, True, (2, 2, 1, 1), "multihead_attention_pooling", 2, 64, 500, "tf", "min", 2),
        MelConfig(),
        MelConfig(64, 16000, 400, 160, 512, 50.0, 7800.0),
    ],
    ids=repr,
)
def test_plain_form_survives_json(config):
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(type(config), plain) == config


@pytest.mark.parametrize("plain", [None, 5, "n_fft", [1], {"n_fft": 1024}, {1: 2, "a": 3}], ids=repr)
def test_what_is_no_plain_form_is_one_error(plain):
    with pytest.raises(UserError, match="MelConfig"):
        from_plain(MelConfig, plain)
