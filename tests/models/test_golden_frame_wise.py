"""Frame-wise networks against the reference implementation's outputs, names, shapes and front end, and the published costs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.costs.macs import count_macs, meta_network, parameter_count
from models.config import FrameWiseArch
from models.frame_wise import FrameWiseMobileNet, get_model
from models.preprocess import AugmentMelSTFT
from tests.golden.fill import fill_state_dict, spectrogram, waveform

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"
ENTRIES = json.loads((GOLDEN_DIR / "golden_framewise.json").read_text())
NETWORKS = [name for name, entry in ENTRIES.items() if "model" in entry]
FRONT_ENDS = ["mel_16k", "mel_16k_odd"]
ARGUMENTS = {
    "n_classes_strong": "num_classes", "n_classes_weak": "weak_classes",
    "seq_model_type": "sequence_model", "seq_model_dim": "sequence_size",
}  # fmt: skip


@pytest.fixture(scope="module")
def stored():
    with np.load(GOLDEN_DIR / "golden_framewise.npz") as arrays:
        return dict(arrays)


def filled(name: str) -> FrameWiseMobileNet:
    arguments = {ARGUMENTS.get(key, key): value for key, value in ENTRIES[name]["model"].items()}
    network = get_model(**arguments, seq_len=250).eval()
    fill_state_dict(network.state_dict())
    return network


def outputs(network: FrameWiseMobileNet, x: torch.Tensor) -> dict[str, np.ndarray]:
    """What the reference returns, in its shapes."""
    with torch.no_grad():
        features = network.forward_features(x)
        embedding = network.forward_sequence(features)
        strong = network.strong_head(embedding).mT
        weak = network.weak_head(embedding.mean(1))
        if network.arch.head_type == "attention":
            weak = network.forward_frames(x).clip_logits.sigmoid()
            strong = strong.sigmoid()
    return {"sequence": features[:, :, 0].mT.numpy(), "strong": strong.numpy(), "weak": weak.numpy()}


def test_every_stored_array_is_compared(stored):
    expected = {f"{name}/{part}" for name in NETWORKS for part in ("strong", "weak", "sequence")}
    assert set(stored) == expected | {f"{name}/every_29th_frame" for name in FRONT_ENDS}


@pytest.mark.parametrize(("name", "kind"), [
    *((name, torch.float64) for name in NETWORKS), *((name, torch.float32) for name in ("fmn06_50_short", "fmn04_tf104")),
])  # fmt: skip
def test_outputs(name, kind, stored):
    entry = ENTRIES[name]
    clips = 1 if kind == torch.float64 else entry["input_shape"][0]  # each alone and, where it takes less time, together
    found = outputs(filled(name).to(kind), spectrogram(entry["input_shape"])[:clips].to(kind))
    assert [*found["strong"].shape[1:]] == entry["strong_shape"][1:]
    assert [*found["sequence"].shape[1:]] == entry["sequence_shape"][1:]
    found = {"strong": found["strong"][:, ::6, ::23], "sequence": found["sequence"][:, ::23, ::10], "weak": found["weak"]}
    for part, values in found.items():
        expected = stored[f"{name}/{part}"][:clips]
        assert values.shape == expected.shape
        assert np.abs(values - expected).max() <= (1e-6 if kind == torch.float64 else 1e-4) * expected.std(), part


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_end(name, stored):
    entry = ENTRIES[name]
    front_end = AugmentMelSTFT.from_config(FrameWiseArch.default_mel).eval()
    x = waveform(entry["samples"], entry["sample_rate"])
    expected = stored[f"{name}/every_29th_frame"]
    # As in test_golden: less than 1e-8 of the frame's energy is within the rounding of a float32 Fourier transform.
    energy = np.exp(5 * expected - 4.5)
    tolerance = np.where(energy < 1e-8 * energy.sum(0), 1e-3, 2e-4)
    for mel in (front_end(x), front_end(x.requires_grad_()).detach()):  # two implementations
        assert [*mel.unsqueeze(1).shape] == entry["output_shape"]
        assert (np.abs(mel[0, :, ::29].numpy() - expected) <= tolerance).all()
    assert (tolerance == 2e-4).mean() > 0.85
    assert front_end(torch.zeros(1, 400)).numpy() == pytest.approx(-2.32362, abs=1e-5)


@pytest.mark.parametrize(
    ("table", "width", "sequence"), [("fmn10_tf256", 1.0, ("tf", 256)), ("fmn06_hybrid160", 0.6, ("hybrid", 160))]
)
def test_state_dict_names_order_and_shapes(table, width, sequence):
    with open(GOLDEN_DIR / f"state_dict_{table}.tsv", newline="") as file:
        expected = [tuple(row) for row in csv.reader(file, delimiter="\t")][1:]
    state = meta_network(FrameWiseArch(447, width, *sequence)).state_dict()
    assert [(key, ",".join(str(size) for size in tensor.shape)) for key, tensor in state.items()] == expected


def test_costs_are_the_published_ones():
    with open(GOLDEN_DIR / "framewise_complexity.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    backbones = {}
    for row in rows:
        _, _, sequence = row["name"].partition("+")
        kind, _, size = sequence.partition("-")
        sequence = (kind, int(size)) if kind else ()
        network = meta_network(FrameWiseArch(447, float(row["width_mult"]), *sequence))
        features = network.stage_channels[-1]
        if features not in backbones:
            backbones[features] = count_macs(network.features, (1, 1, 128, 1000)).macs
        heads = (network.seq_model, features), (network.strong_head, network.embedding_size)
        macs = [backbones[features], *(count_macs(nn.Sequential(part), (1, 250, size)).macs for part, size in heads)]
        params = [parameter_count(part) for part in (network, network.features, network.seq_model)]
        columns = (
            "params_total", "params_backbone", "params_sequence_model",
            "MACs_backbone_1000frames", "MACs_sequence_model_250frames", "MACs_strong_head_250frames", "features_backbone",
        )  # fmt: skip
        assert [*params, *macs, features] == [int(row[column]) for column in columns], row


def test_costs_of_a_whole_network_are_without_the_head_that_is_not_used():
    report = count_macs(meta_network(FrameWiseArch(447, 0.4, "gru", 104)))
    assert report.macs == 181129864 + 125424000 + 23355750
