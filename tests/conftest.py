"""Fixtures shared by the tests: tiny real data in the project's own formats."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import audio
from datasets.audioset_strong import CLASSES, TABLES
from datasets.csv_table import write_table
from datasets.hdf5_mp3 import Mp3Writer, read_entries
from datasets.labels import audioset_mids
from datasets.strong_labels import LabelledEvent, write_strong_labels
from helpers import cli
from models import checkpoints
from models.MobileNetV3 import get_model
from tests.finetuning import piece, write
from tests.pretended_cuda import pretended_cuda  # noqa: F401

# Two threads wait for each other when the machine is busy: here, in the workers of pytest-xdist, and in what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage, here or in a fork, looks at it again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def tiny_audioset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the AudioSet format: 1 s tones, whose pitch is the class (0, 10, 20 or 30 of 527)."""
    folder = tmp_path_factory.mktemp("audioset")
    rng = np.random.default_rng(0)
    time = np.arange(32000) / 32000
    for part, count in (("balanced_train", 8), ("unbalanced_train", 24), ("eval", 12)):
        with Mp3Writer(folder / f"{part}_segments_mp3.hdf", 527) as writer:
            for i in range(count):
                tone = 0.5 * np.sin(2 * np.pi * 300 * (i % 4 + 1) * time) + 0.05 * rng.standard_normal(len(time))
                target = np.zeros(527)
                target[10 * (i % 4)] = 1
                writer.add(f"Y{part[:4]}{i:07d}.mp3", audio.encode_mp3(tone.astype(np.float32), 32000), target)
    return folder


@pytest.fixture(scope="session")
def tiny_strong(tiny_audioset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips with events of three of the classes: each clip's tone counts for one half of it alone, where it sounds.

    The table of training names the unbalanced clips. Clips of the fourth class have no event.
    """
    folder = tmp_path_factory.mktemp("audioset_strong")
    mids = [audioset_mids()[10 * k] for k in range(3)]
    write_table(folder / CLASSES, [("mid", "display_name"), *((mid, f"Tone {k}") for k, mid in enumerate(mids))], delimiter="\t")
    for part, of_table in (("balanced_train", ""), ("unbalanced_train", "train"), ("eval", "eval")):
        events = {}
        with Mp3Writer(folder / f"{part}_segments_mp3.hdf", 527) as writer:
            for i, (name, mp3, target) in enumerate(read_entries(tiny_audioset / f"{part}_segments_mp3.hdf", 527)):
                half = slice(0, 16000) if i // 4 % 2 == 0 else slice(16000, 32000)
                waveform = audio.load(mp3, 32000)[:32000]
                sound = np.zeros_like(waveform)
                sound[half] = waveform[half]
                writer.add(name, audio.encode_mp3(sound, 32000), target)
                events[f"{name[1:-4]}_0"] = [LabelledEvent(half.start / 32000, half.stop / 32000, i % 4)] if i % 4 < 3 else []
        if of_table:
            write_strong_labels(folder / TABLES[of_table], events, [f"Tone {k}" for k in range(3)])
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project checkpoint of width 0.1 with random weights, AudioSet's 527 classes without names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoints") / "random.pt"
    checkpoints.save(path, get_model(width_mult=0.1).eval())
    return path


@pytest.fixture(scope="session")
def folder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real recordings of three classes, ten pieces of 0.5 s each."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("rock", "speech", "wind"):
        for i in range(10):
            write(folder / name / f"{i}.wav", piece(name, 0.5 * i))
    return folder


@pytest.fixture
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def figures_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What drawing costs, trainings in tests save; the figures have tests of their own."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(b"not drawn"))


@pytest.fixture
def empty_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, not made yet; the release is out of reach."""
    monkeypatch.setenv("EFFICIENTAT_RESOURCES", str(tmp_path / "resources"))
    monkeypatch.setenv("EFFICIENTAT_RELEASE_URL", (tmp_path / "release").as_uri())
    return tmp_path / "resources"


@pytest.fixture
def failing_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a script's `main` as its command line would; it must fail with one line, which is returned."""

    def run(main: Callable[[Sequence[str] | None], int], *argv: object) -> str:
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, argv)])
        with pytest.raises(SystemExit) as end:
            cli.run(main)
        output = capsys.readouterr()
        assert end.value.code == 1 and output.out == ""
        lines = output.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return run
