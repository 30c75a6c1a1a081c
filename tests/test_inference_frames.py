"""inference.py with a frame-wise model."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import matplotlib.axes
import numpy as np
import pytest
import soundfile

import inference
from helpers.tagger import audio_tagger as module
from helpers.tagger.embedding_files import read_embeddings
from tests.frame_loudness import FrameLoudness

RATE = 16000
EVENTS = [("around", 1.2, 4.8), ("peak", 2.0, 4.0), ("around", 19.2, 22.0), ("peak", 20.0, 22.0)]  # of the file


@pytest.fixture(autouse=True)
def frame_wise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_backend", lambda *_: FrameLoudness())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """22 s with noise from 2 to 4 and from 20 s to the end."""
    sound = np.zeros(22 * RATE, np.float32)
    noise = 0.6 * np.sign(np.random.default_rng(0).standard_normal(2 * RATE))
    sound[2 * RATE : 4 * RATE] = sound[20 * RATE :] = noise
    soundfile.write(tmp_path / "x.wav", sound, RATE, subtype="FLOAT")
    return tmp_path / "x.wav"


def run(*words: object) -> int:
    return inference.main(["--model_name", "any", *map(str, words)])


def test_events_are_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--audio_path", path, "--events") == 0
    name, *lines = capsys.readouterr().out.splitlines()
    found = [line.split() for line in lines]
    assert name == str(path) and [(label, float(start), float(end)) for start, end, label, _ in found] == EVENTS
    assert {score for *_, score in found} == {"0.600"}


def test_events_are_written(path: Path, tmp_path: Path) -> None:
    assert run("--audio_path", path, "--events", tmp_path / "e.csv", "--labels", "peak", "--median", 1) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text())))
    expected = [(label, start, end) for label, start, end in EVENTS if label == "peak"]
    assert [(row["label"], float(row["start"]), float(row["end"])) for row in rows] == expected
    assert {(row["source"], row["score"], row["mean"]) for row in rows} == {(str(path), "0.6", "0.6")}
    assert run("--audio_path", path, "--events", tmp_path / "e.txt", "--start", 10) == 0
    lines = [line.split("\t") for line in (tmp_path / "e.txt").read_text().splitlines()]
    assert [(label, float(start), float(end)) for start, end, label in lines] == EVENTS[2:]


def test_thresholds_from_a_table(path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,threshold\naround,0.61\n")
    assert run("--audio_path", path, "--events", tmp_path / "e.jsonl", "--threshold", tmp_path / "t.csv") == 0
    line = json.loads((tmp_path / "e.jsonl").read_text())
    assert [(event["label"], event["start"], event["end"]) for event in line["events"]] == [EVENTS[1], EVENTS[3]]


def test_the_events_of_a_stream_are_those_of_the_file(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    assert run("--stream", "--show_top", 1) == 0
    output = capsys.readouterr()
    assert "2.2 to 3.2 s" in output.err
    lines = [line.split() for line in output.out.splitlines()]
    ends = [(words[2], float(words[4].rstrip(",")), float(words[1])) for words in lines if words[0] == "end"]
    assert sorted(ends) == sorted(EVENTS) and sum(words[0] == "begin" for words in lines) == len(EVENTS)
    spans = [(float(words[1]), float(words[2])) for words in lines if words[0] == "top"]
    assert spans[0] == (0.0, 8.0) and spans[1] == (8.0, 9.0) and spans[-1][1] == 22.0


@pytest.mark.usefixtures("figures_not_drawn")
def test_a_picture_has_a_row_for_each_class(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []
    monkeypatch.setattr(matplotlib.axes.Axes, "broken_barh", lambda axes, spans, where, **_: bars.append((spans, where[0])))
    assert run("--audio_path", path, "--plot", tmp_path / "x.png", "--labels", "peak", "around") == 0
    assert (tmp_path / "x.png").is_file()
    assert [spans for spans, _ in bars] == [
        [(pytest.approx(start), pytest.approx(end - start)) for name, start, end in EVENTS if name == label]
        for label in ("around", "peak")
    ]
    assert bars[1][1] - bars[0][1] == pytest.approx(1)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(EVENTS)


def test_embeddings_of_frames(path: Path, tmp_path: Path) -> None:
    assert run("--audio_path", path, "--embed", tmp_path / "x.h5", "--timestamps") == 0
    stored = read_embeddings(tmp_path / "x.h5")
    assert stored.embeddings.shape == (550, 1) and stored.info["window"] == 0.04
    np.testing.assert_allclose(stored.starts, 0.04 * np.arange(550))
    np.testing.assert_allclose(
        stored.embeddings[:, 0] > 1, (stored.starts > 1.99) & (stored.starts < 3.99) | (stored.starts > 19.99)
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--events", "--off_threshold", 0.1), ("--events", "--median", 4), ("--events", "--hop", 7), ("--events", "--resume"),
        ("--events", "--threshold", "missing.csv"), ("--threshold", "missing.csv"), ("--plot", "x.png", "--median", 2),
        ("--plot", "x.png", "--whole"),
    ],
)  # fmt: skip
def test_mistakes(path: Path, words: tuple[object, ...], failing_message: Callable[..., str]) -> None:
    failing_message(inference.main, "--audio_path", path, *words)
