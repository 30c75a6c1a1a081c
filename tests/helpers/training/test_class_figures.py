"""Tables and pictures of single classes: numbers by hand, and what is written in a picture."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from helpers.training.class_figures import write_class_figures
from helpers.training.confusion_figure import confusion_figure
from helpers.training.evaluation import Predictions

LABELS = ("dog", "costs $5 and $6_{", "日本", "never", "unheard")


def predictions(classes: list[int], predicted: list[int]) -> Predictions:
    targets, logits = (np.eye(len(LABELS), dtype=np.float32)[indices] for indices in (classes, predicted))
    return Predictions([f"clip{i}" for i in range(len(classes))], targets, logits)


def read(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_figures_of_a_classification_by_hand(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    write_class_figures(tmp_path, "test", LABELS, predictions([0, 0, 0, 0, 1, 2, 3], [0, 0, 0, 1, 1, 0, 0]), single_label=True)
    assert {path.name for path in tmp_path.iterdir()} == {"test_classes.csv", "test_confusion.csv", "test_confusion.png"}
    assert read(tmp_path / "test_classes.csv") == [
        ["label", "clips", "precision", "recall", "f1"],
        [LABELS[0], "4", "0.6000", "0.7500", "0.6667"],
        [LABELS[1], "1", "0.5000", "1.0000", "0.6667"],
        [LABELS[2], "1", "", "0.0000", "0.0000"],  # never predicted
        [LABELS[3], "1", "", "0.0000", "0.0000"],
        [LABELS[4], "0", "", "", ""],
    ]
    assert read(tmp_path / "test_confusion.csv") == [
        ["label", *LABELS],
        [LABELS[0], "3", "1", "0", "0", "0"],
        [LABELS[1], "0", "1", "0", "0", "0"],
        [LABELS[2], "1", "0", "0", "0", "0"],
        [LABELS[3], "1", "0", "0", "0", "0"],
        [LABELS[4], "0", "0", "0", "0", "0"],
    ]
    assert (tmp_path / "test_confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not recwarn.list


def test_figures_of_tagging(tmp_path: Path) -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    logits = np.array([[3, 1, 0], [2, 0, 0], [1, 2, 0], [0, -1, 0]], np.float32)
    write_class_figures(tmp_path, "validation", ("a", "b", "c"), Predictions(list("wxyz"), targets, logits), single_label=False)
    assert read(tmp_path / "validation_classes.csv")[1:] == [["a", "2", "1.0000", "1.0000"], ["b", "2", "0.8333", "0.7500"]]
    assert (tmp_path / "validation_classes.png").exists()


def test_no_picture_where_no_clip_has_a_class(tmp_path: Path) -> None:
    nothing = Predictions(["a", "b"], np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32))
    write_class_figures(tmp_path, "test", ("a",), nothing, single_label=False)
    assert [path.name for path in tmp_path.iterdir()] == ["test_classes.csv"]


def written(counts: np.ndarray, labels: list[str], folder: Path) -> list[str]:
    """What is written in a confusion matrix's picture."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        confusion_figure(labels, counts, folder / "figure.svg")
    return re.findall(r"<text[^>]*>([^<]*)</text>", (folder / "figure.svg").read_text(encoding="utf-8"))


def test_few_classes_are_drawn_with_their_counts(tmp_path: Path) -> None:
    texts = written(np.array([[123, 0], [45, 678]]), ["costs $5 and $6_{", "name " * 20], tmp_path)
    assert {"123", "45", "678", "costs $5 and $6_{"} <= set(texts)
    assert texts.count("costs $5 and $6_{") == 2 and not any(len(text) > 40 for text in texts)


@pytest.mark.parametrize(("number", "named"), [(21, 21), (30, 15)])
def test_of_many_classes_no_count_is_written_and_not_every_name(
    number: int, named: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.training.confusion_figure.LABELS_UP_TO", 25)
    labels = [f"class {k}" for k in range(number)]
    texts = written(np.eye(number, dtype=int) * 777, labels, tmp_path)
    assert "777" not in texts and len(set(texts) & set(labels)) == named


def test_labels_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        confusion_figure(["a"], np.eye(2, dtype=int), tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())
