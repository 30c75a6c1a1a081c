from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from helpers.metrics import TaggingMetrics
from helpers.training.per_class_figure import per_class_figure


def metrics(precision: Sequence[float], positives: Sequence[int] | None = None) -> TaggingMetrics:
    positives = np.array([5] * len(precision) if positives is None else positives)
    return TaggingMetrics(positives, np.where(positives > 0, precision, np.nan), np.full(len(precision), np.nan), clips=100)


def texts(labels: Sequence[str], scores: TaggingMetrics, folder: Path, **options: int) -> list[str]:
    """What is written in a figure, from top to bottom of its source."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        per_class_figure(labels, scores, folder / "figure.svg", **options)
    return re.findall(r"<text[^>]*>([^<]*)</text>", (folder / "figure.svg").read_text())


def drawn(labels: Sequence[str], scores: TaggingMetrics, folder: Path, **options: int) -> list[str]:
    """Labels of the classes that a figure shows, as often as it shows them."""
    return [text for text in texts(labels, scores, folder, **options) if text in labels]


def test_the_best_and_the_worst_are_drawn_and_nothing_between(tmp_path: Path) -> None:
    labels = [f"class {k}" for k in range(50)]
    order = np.random.default_rng(0).permutation(50)  # by average precision, worst first
    precision = np.empty(50)
    precision[order] = np.linspace(0.01, 0.99, 50)
    expected = [labels[k] for k in (*order[:4], *order[-4:])]
    assert sorted(drawn(labels, metrics(precision), tmp_path, count=4)) == sorted(expected)
    assert len(drawn(labels, metrics(precision), tmp_path)) == 30


def test_classes_without_a_positive_clip_are_left_out(tmp_path: Path) -> None:
    assert sorted(drawn(["a", "b", "c"], metrics([0.5, 0.2, 0.9], [3, 0, 4]), tmp_path)) == ["a", "c"]
    with pytest.raises(ValueError):
        per_class_figure(["a"], metrics([0.5], [0]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_value_and_number_of_positive_clips_are_annotated(tmp_path: Path) -> None:
    written = " ".join(texts(["a", "b"], metrics([0.875, 0.00125], [37, 3]), tmp_path))
    for part in ("0.875", "37", "0.00125", "3 "):
        assert part in written


@pytest.mark.parametrize("number", [1, 5, 7])
def test_few_classes_are_drawn_once_each(tmp_path: Path, number: int) -> None:
    labels = [f"costs $5 and $6_{{ {k}" for k in range(number)]  # no formulas
    shown = drawn(labels, metrics(np.linspace(0, 1, number)), tmp_path, count=3)
    assert len(shown) == len(set(shown)) == min(number, 6)


@pytest.mark.parametrize(("name", "start"), [("figure.png", b"\x89PNG"), ("figure.PDF", b"%PDF")])
def test_the_suffix_decides_the_format(tmp_path: Path, name: str, start: bytes) -> None:
    per_class_figure(["a", "b"], metrics([0.5, 0.6]), str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("name", "labels", "count"),
    [("figure", ["a", "b"], 15), ("figure.xyz", ["a", "b"], 15), ("figure.png", ["a"], 15), ("figure.png", ["a", "b"], 0)],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, name: str, labels: list[str], count: int) -> None:
    with pytest.raises(ValueError):
        per_class_figure(labels, metrics([0.5, 0.6]), tmp_path / name, count)
    assert not list(tmp_path.iterdir())
