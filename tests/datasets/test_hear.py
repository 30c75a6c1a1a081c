"""datasets.hear on small task folders in HEAR's layout, with pieces of the bundled recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets import audio, hear

SCENE = Path(__file__).resolve().parents[2] / "resources" / "recordings" / "scene.ogg"
FOLDS = {
    "fold00": {"b.wav": ["dog"], "a.wav": ["cat, small"]},
    "fold01": {"c.wav": ["3"], "d.wav": [3]},  # labels may be numbers
    "fold02": {"e.wav": ["dog"]},
}
METADATA = {
    "task_name": "pets",
    "embedding_type": "scene",
    "prediction_type": "multiclass",
    "split_mode": "new_split_kfold",
    "splits": list(FOLDS),
    "sample_duration": 0.5,
    "evaluation": ["top1_acc", "mAP"],
}
VOCABULARY = 'idx,label\n1,dog\n0,3\n2,"cat, small"\n'
RATES = (16000, 44100)


@cache
def scene(rate: int) -> np.ndarray:
    return audio.load(SCENE, rate)[rate // 100 :]


def write_task(folder: Path, splits=FOLDS, vocabulary: str = VOCABULARY, rates=RATES, **metadata) -> Path:
    """A task folder whose files are of 0.4, 0.5, ... s."""
    folder.mkdir()
    (folder / "task_metadata.json").write_text(json.dumps(METADATA | {"splits": list(splits)} | metadata))
    (folder / "labelvocabulary.csv").write_text(vocabulary)
    for rate in rates:
        sound = scene(rate)
        for split, files in splits.items():
            (folder / str(rate) / split).mkdir(parents=True)
            for i, file in enumerate(files):
                soundfile.write(folder / str(rate) / split / file, sound[i * rate : i * rate + (4 + i) * rate // 10], rate)
    for split, files in splits.items():
        (folder / f"{split}.json").write_text(json.dumps(files))
    return folder


@pytest.fixture
def task_dir(tmp_path):
    return write_task(tmp_path / "pets-v1-full")


def test_a_task_of_folds(task_dir):
    task = hear.read_task(str(task_dir))
    assert (task.name, task.path, task.labels, task.single_label) == ("pets", task_dir, ("3", "dog", "cat, small"), True)
    assert (task.split_mode, task.splits) == ("new_split_kfold", ("fold00", "fold01", "fold02"))
    assert (task.metrics, task.clip_seconds, task.sample_rates) == (("top1_acc", "mAP"), 0.5, RATES)
    fold = task.recordings("fold00")
    assert fold.names == ["a.wav", "b.wav"] and fold.targets().tolist() == [[0, 0, 1], [0, 1, 0]]
    assert task.recordings("fold01").targets().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert fold[1].name == "b.wav" and fold[1].target.tolist() == [0, 1, 0] and len(task.recordings("fold02")) == 1


@pytest.mark.parametrize(("sample_rate", "taken_from"), [(16000, 16000), (44100, 44100), (32000, 44100), (8000, 44100)])
def test_files_of_the_rate_or_else_the_highest(task_dir, tmp_path, sample_rate, taken_from):
    fold = hear.read_task(task_dir).recordings("fold00", sample_rate=sample_rate, cache_dir=tmp_path / "cache")
    for clip, name in zip([fold[0], fold[1]], ("a.wav", "b.wav"), strict=True):
        waveform, rate = soundfile.read(task_dir / str(taken_from) / "fold00" / name, dtype="float32")
        expected = audio.resample(waveform, rate, sample_rate)[: sample_rate // 2]
        assert clip.waveform.shape == (sample_rate // 2,) and fold.sample_rate == sample_rate
        np.testing.assert_array_equal(clip.waveform[: len(expected)], expected)
        assert not clip.waveform[len(expected) :].any() and np.abs(expected).max() > 1e-3


def test_several_labels_or_none_and_lengths_of_their_own(tmp_path):
    splits = {"train": {"x.wav": ["dog", "3"], "y.wav": []}, "valid": {"v.wav": ["3"]}, "test": {"t.wav": ["dog"]}}
    options = {"prediction_type": "multilabel", "split_mode": "trainvaltest", "sample_duration": None, "evaluation": ["mAP"]}
    task = hear.read_task(write_task(tmp_path / "task", splits, **options))
    train = task.recordings("train", sample_rate=16000)
    assert not task.single_label and task.splits == ("train", "valid", "test") and task.clip_seconds is None
    assert train.targets().tolist() == [[1, 1, 0], [0, 0, 0]] and train.clip_seconds is None
    assert [len(train[i].waveform) for i in range(2)] == [6400, 8000]
    assert hear.read_task(write_task(tmp_path / "presplit", split_mode="presplit_kfold")).splits == tuple(FOLDS)


@contextmanager
def one_line(kind: type[Exception], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as error:
        yield
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words)


EVENTS = {
    "train": {"a.wav": [{"label": "dog", "start": 100.0, "end": 250}, {"label": 3, "start": 0, "end": 50}], "b.wav": []},
    "valid": {"c.wav": [{"label": "dog", "start": 0, "end": 50}]},
    "test": {"d.wav": [{"label": "dog", "start": 0, "end": 50}]},
}
EVENT_METADATA = {
    "embedding_type": "event",
    "prediction_type": "multilabel",
    "split_mode": "trainvaltest",
    "evaluation": ["event_onset_200ms_fms"],
}


def test_an_event_task(tmp_path):
    task = hear.read_task(write_task(tmp_path / "event", EVENTS, **EVENT_METADATA))
    assert task.is_event and (task.median_filter_ms, task.min_duration_ms) == ((250.0,), (125.0, 250.0))
    assert task.recordings("train").targets().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert [[(e.onset, e.offset, e.class_index) for e in events] for events in task.events("train")] == [
        [(0.1, 0.25, 1), (0.0, 0.05, 0)],
        [],
    ]
    grid = {"event_postprocessing_grid": {"median_filter_ms": [0, 100], "min_duration": [60]}}
    task = hear.read_task(write_task(tmp_path / "other", EVENTS, **EVENT_METADATA, evaluation_params=grid))
    assert (task.median_filter_ms, task.min_duration_ms) == ((0, 100), (60,))


@pytest.mark.parametrize(
    "event",
    [
        "dog",
        {"label": "dog", "start": 5},
        {"label": "fish", "start": 5, "end": 6},
        {"label": "dog", "start": 7, "end": 6},
        {"label": "dog", "start": -1, "end": 6},
        {"label": "dog", "start": float("nan"), "end": 6},
    ],
)
def test_events_that_contradict_the_format(tmp_path, event):
    folder = write_task(tmp_path / "event", EVENTS | {"valid": {"c.wav": [event]}}, **EVENT_METADATA)
    with one_line(ValueError, "valid.json", "c.wav"):
        hear.read_task(folder).events("valid")


@pytest.mark.parametrize(
    "metadata",
    [
        {"prediction_type": "multiclass"},
        {"evaluation_params": {"event_postprocessing_grid": {"min_duration": 5}}},
        {"evaluation_params": {"event_postprocessing_grid": {"median_filter_ms": [-5]}}},
        {"evaluation_params": [1]},
    ],
)
def test_metadata_of_events_that_contradict_the_format(tmp_path, metadata):
    folder = write_task(tmp_path / "event", EVENTS, **EVENT_METADATA | metadata)
    with one_line(ValueError, "task_metadata.json"):
        hear.read_task(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_name", None),
        ("prediction_type", "regression"),
        ("split_mode", ["trainvaltest"]),
        ("splits", ["fold00", "fold01"]),
        ("splits", ["fold00", "fold01", "fold01"]),
        ("splits", ["fold00", "fold01", "../fold02"]),
        ("splits", ["fold00", "fold01", ".."]),
        ("sample_duration", 0),
        ("sample_duration", float("nan")),
        ("evaluation", []),
    ],
)
def test_metadata_that_contradict_the_format(task_dir, key, value):
    (task_dir / "task_metadata.json").write_text(json.dumps(METADATA | {key: value}))
    with one_line(ValueError, "task_metadata.json", key):
        hear.read_task(task_dir)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{", b"[" * 100_000], ids=lambda content: repr(content[:4]))
@pytest.mark.parametrize("file", ["task_metadata.json", "fold00.json"])
def test_what_is_not_json(task_dir, file, content):
    (task_dir / file).write_bytes(content)
    with one_line(ValueError, file):
        hear.read_task(task_dir).recordings("fold00")


@pytest.mark.parametrize(
    "vocabulary",
    ["idx,label\n", "idx,label\n1,3\n2,dog\n", "idx,label\n0,dog\n1,dog\n", "label\ndog\n", "idx,label\nx,dog\n", "idx,label\n0\n"],
)
def test_damaged_vocabularies(tmp_path, vocabulary):
    folder = write_task(tmp_path / "task", vocabulary=vocabulary)
    with one_line(ValueError, "labelvocabulary.csv"):
        hear.read_task(folder)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.wav": ["cow"]},
        {"a.wav": []},
        {"a.wav": ["dog", "3"]},
        {"a.wav": [{"label": "dog", "start": 0, "end": 100}]},
        {"../fold01/c.wav": ["dog"]},
        {"..": ["dog"]},
    ],
    ids=repr,
)
def test_splits_that_do_not_fit_the_task(task_dir, files):
    (task_dir / "fold00.json").write_text(json.dumps(files))
    task = hear.read_task(task_dir)
    with one_line(ValueError, "fold00.json"):
        task.recordings("fold00")
    assert len(task.recordings("fold01")) == 2


def test_an_absolute_path_and_an_unknown_split(task_dir):
    (task_dir / "fold00.json").write_text(json.dumps({str(task_dir / "44100" / "fold00" / "a.wav"): ["dog"]}))
    for split in ("fold00", "test", "../pets-v1-full/fold01"):
        with one_line(ValueError, split):
            hear.read_task(task_dir).recordings(split)


@pytest.mark.parametrize("missing", ["task_metadata.json", "labelvocabulary.csv", "fold00.json", "44100/fold00/b.wav"])
def test_what_is_missing(task_dir, missing):
    (task_dir / missing).unlink()
    with one_line(FileNotFoundError, str(task_dir / missing)):
        hear.read_task(task_dir).recordings("fold00")
    with pytest.raises(FileNotFoundError):
        hear.read_task(task_dir / "nowhere")


def test_no_folder_of_any_rate(tmp_path):
    folder = write_task(tmp_path / "task", rates=())
    (folder / "audio").mkdir()
    with one_line(FileNotFoundError, str(folder), "sample rate"):
        hear.read_task(folder)
