"""The registry agrees with the published lists of released checkpoints (tests/golden/*pretrained.tsv)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from models import checkpoints
from models.config import Arch, DyMNArch, MelConfig
from models.MobileNetV3 import list_models
from models.registry import BUNDLED, PRETRAINED

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"


def released(file: str) -> dict[str, dict[str, str]]:
    with open(GOLDEN_DIR / file, newline="") as rows:
        return {row["name"]: row for row in csv.DictReader(rows, delimiter="\t")}


RELEASED, RELEASED_DYMN = released("pretrained.tsv"), released("dymn_pretrained.tsv")


def test_names_are_those_of_the_release():
    assert (len(RELEASED), len(RELEASED_DYMN)) == (35, 11)
    assert list(PRETRAINED) == [*RELEASED, *RELEASED_DYMN]
    assert not set(BUNDLED) & set(PRETRAINED)


@pytest.mark.parametrize("name", RELEASED)
def test_entry_agrees_with_the_release(name):
    row, entry = RELEASED[name], PRETRAINED[name]
    assert entry.asset == row["asset"]
    assert entry.arch == Arch(
        num_classes=527,
        width_mult=float(row["width_mult"]),
        head_type=row["head_type"],
        strides=tuple(int(stride) for stride in row["strides"].split(",")),
        input_dim_f=int(row["n_mels"]),
    )
    assert entry.mel == MelConfig(n_mels=int(row["n_mels"]), hop_size=int(row["hop_size_samples"]))
    assert entry.mel.fmax == 15000
    assert entry.reported_map == (None if row["reported_mAP"] == "-" else float(row["reported_mAP"]))
    assert (entry.reported_map is None) == row["trained_on"].startswith("ImageNet")


@pytest.mark.parametrize("name", RELEASED_DYMN)
def test_entry_of_a_dynamic_network_agrees_with_the_release(name):
    row, entry = RELEASED_DYMN[name], PRETRAINED[name]
    assert entry.asset == row["asset"]
    assert entry.arch == DyMNArch(
        num_classes=527,
        width_mult=float(row["width_mult"]),
        strides=tuple(int(stride) for stride in row["strides"].split(",")),
        use_dy_blocks=row["use_dy_blocks"],
        T_max=float(row["temperature"]),
        temperature=float(row["temperature"]),
    )
    assert entry.mel == MelConfig(n_mels=int(row["n_mels"]), hop_size=int(row["hop_size_samples"]))
    assert entry.reported_map == (None if row["reported_mAP"] == "-" else float(row["reported_mAP"]))


def test_list_models():
    assert list_models() == [*PRETRAINED, *BUNDLED]
    assert list_models("mn10_as_hop_*") == [f"mn10_as_hop_{hop}" for hop in (5, 15, 20, 25)]
    assert list_models("mn40_as(?)") == ["mn40_as(2)", "mn40_as(3)"] and list_models("resnet*") == []


@pytest.mark.parametrize("name", {checkpoints.architecture(name)[0]: name for name in list_models()}.values())
def test_every_architecture_computes_shapes_without_its_weights(name):
    """One name for each: those of the same architecture differ in weights and hop alone."""
    arch, mel = checkpoints.architecture(name)
    with torch.device("meta"):
        model = arch.build(mel).eval()
        x = torch.empty(2, 1, mel.n_mels, 100)
    with torch.no_grad():
        features = model.forward_features(x)
        logits, embedding = model(x)
    assert features.shape[:2] == (2, model.embedding_size)
    assert model.forward_head(features).shape == logits.shape == (2, arch.num_classes)
    assert model.forward_head(features, pre_logits=True).shape == embedding.shape == (2, model.embedding_size)
    assert (model.arch, model.mel) == (arch, mel) and mel.n_mels == arch.input_dim_f
