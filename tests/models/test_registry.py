"""The registry agrees with the published lists of released checkpoints (tests/golden/*pretrained.tsv)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from models import checkpoints
from models.config import Arch, DyMNArch, FrameWiseArch, MelConfig
from models.MobileNetV3 import list_models
from models.registry import BUNDLED, PRETRAINED, full_name

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"


def released(file: str) -> dict[str, dict[str, str]]:
    with open(GOLDEN_DIR / file, newline="") as rows:
        return {row["name"]: row for row in csv.DictReader(rows, delimiter="\t")}


RELEASED, RELEASED_DYMN = released("pretrained.tsv"), released("dymn_pretrained.tsv")
RELEASED_FRAME_WISE = released("framewise_pretrained.tsv")
RELEASES = {
    "EfficientSED": "https://github.com/theMoro/EfficientSED/releases/download/v0.0.1/",
    "PretrainedSED": "https://github.com/fschmid56/PretrainedSED/releases/download/v0.0.1/",
}
# The costs of all frame-wise architectures are tested; of their shapes a few are enough.
ARCHITECTURES = {checkpoints.architecture(name)[0]: name for name in list_models() if name not in RELEASED_FRAME_WISE}
ARCHITECTURES |= {name: name for name in ("fmn04_weak", "fmn04+tf-104_strong", "fmn04+hybrid-104_strong", "fmn04+gru-104_strong")}


def test_names_are_those_of_the_release():
    assert (len(RELEASED), len(RELEASED_DYMN), len(RELEASED_FRAME_WISE)) == (35, 11, 37)
    assert list(PRETRAINED) == [*RELEASED, *RELEASED_DYMN, *RELEASED_FRAME_WISE]
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


@pytest.mark.parametrize("name", RELEASED_FRAME_WISE)
def test_entry_of_a_frame_wise_network_agrees_with_the_release(name):
    row, entry = RELEASED_FRAME_WISE[name], PRETRAINED[name]
    assert (entry.asset, entry.release) == (row["asset"], RELEASES[row["release"]])
    weak = row["trained_on"] == "AudioSet clip labels"
    has_sequence_model = row["sequence_model"] != "-"
    assert entry.arch == FrameWiseArch(
        num_classes=527 if weak else 447,
        width_mult=float(row["width_mult"]),
        sequence_model=row["sequence_model"] if has_sequence_model else "none",
        sequence_size=int(row["sequence_dim"]) if has_sequence_model else None,
        trained_heads="weak" if weak else "strong",
    )
    assert entry.mel == MelConfig(128, 16000, 400, 160, 512, 0, 7000, 1e-7)
    assert entry.reported_map is None
    assert entry.reported_psds1 == (None if row["reported_PSDS1"] == "-" else float(row["reported_PSDS1"]))


def test_names_may_leave_out_the_training():
    assert [full_name(name) for name in ("fmn10", "fmn10+tf-256", "frame_mn06", "fmn04_weak", "mn10_as", "x.pt")] == [
        "fmn10_strong", "fmn10+tf-256_strong", "frame_mn06_strong_1", "fmn04_weak", "mn10_as", "x.pt",
    ]  # fmt: skip
    assert checkpoints.architecture("fmn20+gru-512") == checkpoints.architecture("fmn20+gru-512_strong")


def test_list_models():
    assert list_models() == [*PRETRAINED, *BUNDLED]
    assert list_models("mn10_as_hop_*") == [f"mn10_as_hop_{hop}" for hop in (5, 15, 20, 25)]
    assert list_models("mn40_as(?)") == ["mn40_as(2)", "mn40_as(3)"] and list_models("resnet*") == []


@pytest.mark.parametrize("name", ARCHITECTURES.values())
def test_every_architecture_computes_shapes_without_its_weights(name):
    """One name for each: those of the same architecture differ in weights and hop alone."""
    arch, mel = checkpoints.architecture(name)
    with torch.device("meta"):
        model = arch.build(mel).eval()
        x = torch.empty(2, 1, mel.n_mels, 100)
    with torch.no_grad():
        features = model.forward_features(x)
        logits, embedding = model.forward_outputs(features)  # as `forward` does
    assert features.shape[:2] == (2, model.stage_channels[-1])
    assert model.forward_head(features).shape == logits.shape == (2, arch.num_classes)
    assert model.forward_head(features, pre_logits=True).shape == embedding.shape == (2, model.embedding_size)
    assert (model.arch, model.mel) == (arch, mel) and mel.n_mels == arch.input_dim_f
