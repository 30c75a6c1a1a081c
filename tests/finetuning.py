"""What the tests of the fine-tuning scripts share: small recordings and tables, options of short trainings, their results."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
import torch

from datasets import audio
from models import checkpoints

RECORDINGS = Path(__file__).resolve().parents[1] / "resources" / "recordings"
RATE = 8000
FRONT_END = ("--sample_rate", RATE, "--n_mels", 64, "--hop_size", 800, "--win_length", 800, "--n_fft", 1024)
ALWAYS = ("--wandb", "disabled", "--num_workers", 0)
TINY = ("--model_width", 0.1, *FRONT_END, "--n_mels", 32, "--n_epochs", 1)  # random weights
SCHEDULE = ("--warm_up_len", 0, "--ramp_down_start", 0, "--ramp_down_len", 4)


def tone(k: int, seconds: float, seed: int) -> np.ndarray:
    """One of 50 sounds that are easily distinguished: ten pitches, interrupted at five rates, with some noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.4 * np.sin(2 * np.pi * 150 * 1.42 ** (k % 10) * time) * (time * 2 ** (k // 10 + 1) % 1 < 0.5)
    return (sound + 0.01 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def write(path: Path, waveform: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, format="WAV")


def write_table(path: Path, *rows: Sequence[object], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def piece(recording: str, start: float, seconds: float = 0.5) -> np.ndarray:
    """A piece of a bundled recording, from `start` seconds on, at `RATE`."""
    waveform = audio.load(RECORDINGS / f"{recording}.ogg", RATE)
    return waveform[round(start * RATE) :][: round(seconds * RATE)]


def run(script: ModuleType, *argv: object) -> None:
    assert script.main([*map(str, argv)]) == 0


def scores(lines: Sequence[str]) -> dict[str, float]:
    """What follows the first line of a result."""
    found = [re.fullmatch(r"  (\S.*): ([01]\.\d{3})", line) for line in lines]
    return {match[1]: float(match[2]) for match in found if match}


def metrics(folder: Path) -> list[dict[str, float]]:
    """What a run's metrics.csv has of each epoch."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same_run(first: Path, second: Path) -> None:
    for name in ("last.pt", "best.pt"):
        one, two = (checkpoints.load(folder / name) for folder in (first, second))
        assert one.epoch == two.epoch and one.single_label == two.single_label and one.labels == two.labels
        assert one.state.keys() == two.state.keys()
        for key, tensor in one.state.items():
            assert torch.equal(tensor, two.state[key]), f"{name}: {key}"
    rows = [[row.rpartition(",")[0] for row in (folder / "metrics.csv").read_text().splitlines()] for folder in (first, second)]
    assert rows[0] == rows[1] and len(rows[0]) == 3
