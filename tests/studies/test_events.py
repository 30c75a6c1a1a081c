"""studies.events: what windows say of frames, the trainings, the figures, and the whole study with a tiny start."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ex_audioset
import ex_audioset_strong
from datasets.audioset_strong import Classes
from datasets.labels import audioset_mids
from datasets.strong_labels import LabelledEvent
from helpers.training.frame_wise import Form
from studies import events, events_figures

CLASSES = Classes(("second", "first"), (audioset_mids()[10], audioset_mids()[0]))


def words(folder: Path, *more: object) -> list[str]:
    return list(map(str, ["--dataset_dir", folder, "--output_dir", folder / "study", *more]))


def test_a_frame_has_the_scores_of_the_window_around_it() -> None:
    def model(windows: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Logits of 527 classes: class 0 has the first sample of the window, class 10 the last."""
        logits = torch.zeros(len(windows), 527)
        logits[:, 0], logits[:, 10] = windows[:, 0], windows[:, -1]
        return logits, None

    rate = 100
    waveform = torch.arange(10 * rate).float().repeat(2, 1) / 1000
    loader = [SimpleNamespace(waveform=waveform, name=["one", "two"])]
    scores = events.window_scores(model, loader, CLASSES, Form(rate, 50, 0.2))
    assert scores.keys() == {"one", "two"} and scores["one"].shape == (50, 2)
    last, first = np.log(scores["two"] / (1 - scores["two"])).T * 10  # in seconds
    middle = np.clip((np.arange(50) + 0.5) * 0.2, 0.5, 9.5)  # windows do not leave the scene
    np.testing.assert_allclose(first, middle - 0.5, atol=0.001)
    np.testing.assert_allclose(last, middle + 0.49, atol=0.001)


def test_events_are_runs_above_the_threshold_of_their_class() -> None:
    scores = np.array([[0.6, 0.1], [0.6, 0.6], [0.2, 0.6], [0.6, 0.1]])
    found = events.runs_above(scores, 0.5, np.array([0.5, 0.55]))
    assert found == [LabelledEvent(0, 1, 0), LabelledEvent(1.5, 2, 0), LabelledEvent(0.5, 1.5, 1)]


def test_all_trainings_are_valid_and_of_one_length(tmp_path: Path) -> None:
    args = events.build_parser().parse_args(words(tmp_path, "--epoch_len", 50))
    scripts = {"clip": ex_audioset, "frame": ex_audioset_strong, "frame_tf": ex_audioset_strong}
    trainings = {
        arm: script.build_parser().parse_args(["--train", *map(str, events.options(args, arm))]) for arm, script in scripts.items()
    }
    assert {(t.n_epochs, t.epoch_len, t.batch_size, t.clip_seconds) for t in trainings.values()} == {(7, 50, 4, 10.0)}
    assert {t.pretrained_name for t in trainings.values()} == {events.START}
    assert [t.sequence_model for t in trainings.values()] == [None, None, "tf"]


def test_figures_are_drawn(tmp_path: Path) -> None:
    runs = [{measure: 0.1 * k for k, measure in enumerate(events_figures.MEASURES)}] * 2
    events_figures.draw_scores(tmp_path / "scores.png", dict.fromkeys(events.ARMS, runs), events.ARMS)
    found = {"truth": [LabelledEvent(0.1, 0.5, 0)], "windows": [LabelledEvent(0, 1, 1)], "frames": []}
    events_figures.draw_scene(tmp_path / "scene.png", np.zeros(events_figures.RATE, np.float32), found, CLASSES.labels, "scene")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("scores.png", "scene.png"))


@pytest.mark.slow
def test_the_study_runs_and_resumes(
    tiny_strong: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "START", str(tiny_checkpoint))
    study = tmp_path / "study"
    argv = list(map(str, ["--dataset_dir", tiny_strong, "--output_dir", study, "--seeds", 1, "--clip_seconds", 1, "--n_epochs", 1]))
    argv += ["--jobs", "2", "--epoch_len", "8"]
    assert events.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in events.ARMS.values()) and printed.count("gain in") == 3
    with open(study / "results.csv", newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == list(events.ARMS)
    files = {path: path.stat().st_mtime_ns for path in (*study.glob("runs/*/last.pt"), *study.glob("scores/*.npz"))}
    assert len(files) == 3 + 2 * 4
    assert events.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
