"""The columns of rows, and how values become them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from helpers.archive.schema import METADATA, Settings, schema, to_table
from models.errors import UserError

LABELS = ("Speech", "Dog", "Rain")


def names(settings: Settings) -> list[str]:
    fields = schema(settings, [LABELS] * len(settings.models), [4] * len(settings.models)).names
    return [name for name in fields if name not in ("source", "start", "end", "warnings", "error", "error_kind")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["scores"]),
        ({"embed": True}, ["scores", "embedding"]),
        ({"top_k": 2}, ["labels", "label_scores"]),
        ({"events": True, "per_channel": True}, ["channel", "label", "score"]),
    ],
)
def test_columns_are_what_was_asked_for(settings: dict[str, object], expected: list[str]) -> None:
    about = ["model", "model_hash", "version"]
    assert names(Settings(("mn10_as",), **settings)) == expected + about
    of_models = [f"{name}_{model}" for model in ("mn10_as", "b_1") for name in expected if name != "channel"]
    channel = [name for name in expected if name == "channel"]
    assert names(Settings(("mn10_as", "/models/b+1.pt"), **settings)) == channel + of_models + about


@pytest.mark.parametrize("settings", [{"events": True, "embed": True}, {"events": True, "top_k": 3}, {"dtype": "float64"}])
def test_settings_that_do_not_go_together(settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Settings(("mn10_as",), **settings)


@pytest.mark.parametrize("models", [(), ("a.pt", "folder/a.pt"), ("a.pt", "A.pt")])
def test_models_need_names_that_differ(models: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        Settings(models)


def test_labels_travel_with_the_rows() -> None:
    about = json.loads(schema(Settings(("a",)), [LABELS], [4]).metadata[METADATA])
    assert about["labels"]["labels"] == list(LABELS)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_are_rounded_as_asked(dtype: str) -> None:
    columns = schema(Settings(("a",), embed=True, dtype=dtype), [LABELS], [4])
    scores, embedding = np.array([0.1, 1e-5, 1.0], np.float32), np.array([1 / 3, -1e6, 1e6, 0], np.float32)
    table = to_table(
        {"source": ["a", "b"], "scores": [scores, None], "embedding": [embedding, None], "error": [None, "x"]}, columns
    )
    assert table.schema == columns
    found = [table[name].to_pylist() for name in ("scores", "embedding")]
    assert found[0][1] is None and found[1][1] is None
    if dtype == "float32":
        np.testing.assert_array_equal(found[0][0], scores)
        np.testing.assert_array_equal(found[1][0], embedding)
    else:
        np.testing.assert_array_equal(found[0][0], scores.astype(np.float16))
        np.testing.assert_array_equal(found[1][0], np.array([1 / 3, -65504, 65504, 0], np.float16))  # finite


def test_lists_and_events() -> None:
    columns = schema(Settings(("a",), top_k=2), [LABELS], [4])
    given = {
        "source": ["a", "b", "c"],
        "labels": [np.array([2, 0]), None, np.array([], int)],
        "label_scores": [[0.5, 0.25], None, []],
    }
    table = to_table(given, columns)
    assert table["labels"].to_pylist() == [[2, 0], None, []]
    assert table["label_scores"].to_pylist() == [[0.5, 0.25], None, []]
    table = to_table(
        {"source": ["a", "b"], "label": [1, None], "score": [0.5, None]}, schema(Settings(("a",), events=True), [LABELS], [4])
    )
    assert (table["label"].to_pylist(), table["score"].to_pylist()) == ([1, None], [0.5, None])


def test_texts_that_are_no_utf8_and_warnings() -> None:
    columns = schema(Settings(("a",)), [LABELS], [4])
    given = {"source": ["a", "b\udcff"], "warnings": [("short", "\udcfe"), ()], "error": [None, "\udcff is no sound"]}
    table = to_table(given, columns)
    assert table["warnings"].to_pylist() == [["short", "\\udcfe"], None]
    assert table["error"].to_pylist()[1].endswith("is no sound")
    assert pa.types.is_string(table["source"].type)
    assert to_table({"source": []}, columns).num_rows == 0
