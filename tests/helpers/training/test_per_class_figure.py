from __future__ import annotations

import os
import re
import subprocess
import sys
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


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7])
def test_few_classes_are_drawn_once_each(tmp_path: Path, number: int) -> None:
    labels = [f"class {k}" for k in range(number)]
    shown = drawn(labels, metrics(np.linspace(0, 1, number)), tmp_path, count=3)
    assert len(shown) == len(set(shown)) == min(number, 6)


def test_classes_without_a_positive_clip_are_left_out(tmp_path: Path) -> None:
    assert sorted(drawn(["a", "b", "c"], metrics([0.5, 0.2, 0.9], [3, 0, 4]), tmp_path)) == ["a", "c"]
    with pytest.raises(ValueError):
        per_class_figure(["a"], metrics([0.5], [0]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_value_and_number_of_positive_clips_are_annotated(tmp_path: Path) -> None:
    written = " ".join(texts(["a", "b"], metrics([0.875, 0.00125], [37, 3]), tmp_path))
    for part in ("0.875", "37", "0.00125", "3 "):
        assert part in written


def test_labels_are_not_read_as_formulas(tmp_path: Path) -> None:
    labels = ["costs $5 and $6_{", r"\frac{a"]
    assert sorted(drawn(labels, metrics([0.5, 0.6]), tmp_path)) == sorted(labels)


@pytest.mark.parametrize("precision", [[1.0, 0.5, 0.4, 0.2], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_nothing_is_cut_at_the_edge(tmp_path: Path, precision: list[float]) -> None:
    labels = ["a", "A label " + "that is longer than any other " * 3, "c", "d"]
    per_class_figure(labels, metrics(precision, [99, 100, 100, 98]), tmp_path / "figure.png")
    pixels = matplotlib.image.imread(tmp_path / "figure.png")[..., :3]
    assert pixels.min() < 0.2
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 1


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_decides_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"figure{suffix}"
    path.write_bytes(b"an older one")
    per_class_figure(["a", "b"], metrics([0.5, 0.6]), str(path))
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["figure", "figure.", "figure.xyz", ".png"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        per_class_figure(["a"], metrics([0.5]), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_contradictions_are_refused(tmp_path: Path) -> None:
    for labels, count in ((["a"], 15), (["a", "b"], 0)):
        with pytest.raises(ValueError):
            per_class_figure(labels, metrics([0.5, 0.6]), tmp_path / "figure.png", count)


def test_a_broken_off_figure_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "figure.png").write_bytes(b"an older one")

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        per_class_figure(["a"], metrics([0.5]), tmp_path / "figure.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older one"]


def test_drawing_needs_no_pyplot_and_no_display(tmp_path: Path) -> None:
    code = """
import sys, numpy, helpers.training.per_class_figure, helpers.metrics
one = numpy.ones(1)
helpers.training.per_class_figure.per_class_figure(["a"], helpers.metrics.TaggingMetrics(one.astype(int), one, one, 2), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    root = Path(__file__).resolve().parents[3]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "figure.png"], env=environment, check=True, timeout=120)
    assert (tmp_path / "figure.png").exists()
