"""DyMN against the reference implementation's outputs, names, shapes and temperatures, and the published costs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.costs.macs import count_macs, meta_network
from models.config import DyMNArch
from models.DyMN import DyMN, get_model
from tests.golden.fill import fill_state_dict, spectrogram
from tests.golden.fill_dymn import fill_dymn_state_dict

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"
ENTRIES = json.loads((GOLDEN_DIR / "golden_dymn.json").read_text())
TEMPERATURES = ENTRIES.pop("temperature")
# How far float32 is from float64, in standard deviations of the outputs: at temperature 1 these weights amplify rounding.
FLOAT32_BOUNDS = {"dymn10_t30": 1e-3, "dymn04_t1_replace_se": 1e-3, "dymn04_t1_no_dyconv": 1e-3, "dymn04_t1": 2e-2}


@pytest.fixture(scope="module")
def stored():
    with np.load(GOLDEN_DIR / "golden_dymn.npz") as arrays:
        return dict(arrays)


def filled(name: str) -> DyMN:
    entry = ENTRIES[name]
    network = get_model(**entry["get_model"]).eval()
    if entry["fill"] == "fill_state_dict":
        fill_state_dict(network.state_dict())
    else:
        fill_dymn_state_dict(network.state_dict(), entry["norm_variance"])
    return network


def test_every_stored_array_is_compared(stored):
    expected = {f"{name}/{part}" for name in ENTRIES for part in ("logits", "embedding")}
    expected |= {f"{name}/maps" for name, entry in ENTRIES.items() if entry["fill"] == "fill_dymn_state_dict"}
    assert set(stored) == expected


@pytest.mark.parametrize("name", ENTRIES)
def test_outputs_and_maps(name, stored):
    network = filled(name).double()
    maps = []
    for stage in network.stages:
        stage.register_forward_hook(
            lambda module, inputs, output: maps.append((output.mean().item(), output.std(correction=0).item()))
        )
    with torch.no_grad():
        outputs = network(spectrogram(ENTRIES[name]["input_shape"]).double())
    if f"{name}/maps" in stored:
        np.testing.assert_allclose(maps, stored[f"{name}/maps"], rtol=1e-5, atol=1e-6)
    for part, output in zip(("logits", "embedding"), outputs, strict=True):
        expected = stored[f"{name}/{part}"]
        assert output.shape == expected.shape
        assert np.abs(output.numpy() - expected).max() <= 1e-6 * expected.std(), part


@pytest.mark.parametrize("name", FLOAT32_BOUNDS)
def test_float32_is_near_float64(name, stored):
    with torch.no_grad():
        outputs = filled(name)(spectrogram(ENTRIES[name]["input_shape"]))
    for part, output in zip(("logits", "embedding"), outputs, strict=True):
        expected = stored[f"{name}/{part}"]
        assert np.abs(output.numpy() - expected).max() <= FLOAT32_BOUNDS[name] * expected.std(), part


@pytest.mark.parametrize("case", TEMPERATURES)
def test_temperatures(case):
    arguments = {"width_mult": 0.1, "num_classes": 2, **case["get_model"]}
    network = get_model(**arguments)
    assert network.arch.temperature == network.layers[3].proj_conv.temperature == case["constructed"]
    for epoch, temperature in zip(case["epochs"], case["temperature"], strict=True):
        network.start_epoch(epoch)
        assert network.arch.temperature == network.layers[3].proj_conv.temperature == pytest.approx(temperature)


@pytest.mark.parametrize(("table", "width", "blocks"), [("dymn10", 1.0, "all"), ("dymn04_replace_se", 0.4, "replace_se")])
def test_state_dict_names_order_and_shapes(table, width, blocks):
    with open(GOLDEN_DIR / f"state_dict_{table}.tsv", newline="") as file:
        expected = [tuple(row) for row in csv.reader(file, delimiter="\t")][1:]
    state = meta_network(DyMNArch(width_mult=width, use_dy_blocks=blocks)).state_dict()
    assert [(key, ",".join(str(size) for size in tensor.shape)) for key, tensor in state.items()] == expected


def test_costs_are_the_published_ones():
    with open(GOLDEN_DIR / "dymn_complexity.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        network = meta_network(DyMNArch(width_mult=float(row["width_mult"]), use_dy_blocks=row["use_dy_blocks"]))
        report = count_macs(network, (1, 1, 128, 1000))
        figures = (report.params, report.norm_statistics, report.macs, report.mixing_macs, network.embedding_size)
        columns = ("params", "norm_statistics", "MACs_128mels_1000frames", "kernel_mixing_MACs", "embedding_size")
        assert figures == tuple(int(row[column]) for column in columns), row
