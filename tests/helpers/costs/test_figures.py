"""Figures are files with the given text; their looks are not tested."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import torch

from helpers.costs.activation_memory import peak_memory
from helpers.costs.figures import cost_figure, memory_figure, receptive_field_figure
from helpers.costs.receptive_field import EffectiveField, receptive_field
from helpers.costs.released import PublishedModel, model_costs
from models.config import Arch
from models.registry import PRETRAINED

TINY = Arch(width_mult=0.1, num_classes=10)


def drawn(path: Path) -> str:
    """The text of an SVG, which matplotlib keeps in comments next to its outlines."""
    text = path.read_text()
    ElementTree.fromstring(text)
    return text


def test_memory_by_block(tmp_path: Path) -> None:
    path = tmp_path / "memory.svg"
    plain, efficient = peak_memory(TINY, 100), peak_memory(TINY, 100, memory_efficient=True)
    memory_figure({"plain": plain, "chunked": efficient}, {"chunked": efficient}, "of a network", path)
    text = drawn(path)
    assert "of a network" in text and "stem" in text and "head" not in text
    assert f"chunked, measured: {efficient.peak_kb:.0f} kB" in text


def test_receptive_fields(tmp_path: Path) -> None:
    path = tmp_path / "field.svg"
    gradient = torch.zeros(8, 700)
    gradient[:, 300:400] = 1
    receptive_field_figure({"a network": (receptive_field(TINY), EffectiveField(gradient, 350))}, path)
    text = drawn(path)
    assert "receptive field: 595 frames" in text and "95% of the gradient: 96 frames" in text


def test_performance_against_cost(tmp_path: Path) -> None:
    path = tmp_path / "costs.svg"
    names = ("mn01_as", "mn10_as_mels_40", "mn10_as_fc")
    ours = [model_costs(name, PRETRAINED[name].arch, PRETRAINED[name].mel, PRETRAINED[name].reported_map) for name in names]
    others = [
        PublishedModel("Big", "family", 0.45, 8e7, None, None, "a paper"),
        PublishedModel("Huge", "family", 0.45, 9e7, 1e11, None, "it"),
    ]
    cost_figure(ours, {(name, variant): 0.01 for name in names for variant in ("eager", "exported")}, others, path)
    text = drawn(path)
    assert text.count("<!-- Big -->") == 1 and text.count("<!-- Huge -->") == 2  # where it is known
    assert "<!-- exported -->" in text and "<!-- memory-efficient -->" in text
