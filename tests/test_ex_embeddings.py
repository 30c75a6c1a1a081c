"""The layer study from recordings to table, figure and scores; small protocol, in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import ex_embeddings
from helpers.probing import runs as probe_runs
from helpers.probing.probe import Protocol
from helpers.probing.tasks import open_task
from models import checkpoints
from models.errors import UserError
from models.frame_wise import get_model
from models.preprocess import AugmentMelSTFT

SMALL = Protocol(grid_points=1, hidden_size=16, lrs=(3e-3,), hidden_layers=(1,), max_epochs=30, patience=4)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 10 recordings with different spectra."""
    folder = tmp_path_factory.mktemp("data") / "tones"
    rng = np.random.default_rng(0)
    time = np.arange(6400) / 32000
    for label, pitch in (("low", 300), ("high", 3000)):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time) + 0.01 * rng.standard_normal(len(time))
            soundfile.write(folder / label / f"{number}.wav", tone, 32000)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Train in threads of this process with a small protocol; return the layers of each probe that is trained."""
    layers = []

    def train(request: probe_runs.ProbeRequest) -> dict:
        layers.append(request.layers)
        return original(request)

    original = probe_runs.train_probe
    monkeypatch.setattr(probe_runs, "train_probe", train)
    monkeypatch.setattr(probe_runs, "ProcessPoolExecutor", lambda processes, _: ThreadPoolExecutor(processes))
    monkeypatch.setattr(ex_embeddings, "HEAR", SMALL)
    return layers


def run(tones: Path, checkpoint: Path, output: Path, *options: object) -> int:
    words = ["--data", tones, "--model_name", checkpoint, "--output_dir", output, "--grid_points", 1, *options]
    return ex_embeddings.main([str(word) for word in words])


def test_every_choice_is_probed_once(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--layers", "mel", "block5+mel", "se1?", "--random_network", "--seeds", 2]
    assert run(tones, tiny_checkpoint, tmp_path, *options) == 0
    assert len(trained) == 10  # 3 choices for the model, 2 for random weights, which mel has not got; 2 seeds
    assert ["se11", "se12", "se13", "se14", "se15"] in trained
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert table[0] == ["network", "layers", "tones (top1_acc)", "mean"] and table[-1] == ["chance", "", "0.500", "0.500"]
    rows = {(network, layers): score for network, layers, score, _ in table[2:-1]}
    assert list(rows) == [(str(tiny_checkpoint), layers) for layers in ("mel", "block5+mel", "se1?")] + [
        ("random", layers) for layers in ("block5+mel", "se1?")
    ]
    assert float(rows[str(tiny_checkpoint), "mel"].split(" ± ")[0]) > 0.9
    with open(tmp_path / "scores.csv", newline="") as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 10 and {row["seed"] for row in scores} == {"0", "1"}
    for row in scores:
        assert np.mean([float(fold) for fold in row["folds"].split()]) == pytest.approx(float(row["score"]), abs=1e-3)
    assert (tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"

    trained.clear()  # the same again, with one choice more, and a last line that a kill has cut off
    with open(tmp_path / "probes.jsonl", "a") as file:
        file.write('\n{"request": "abc')
    for _ in range(2):  # the second time, nothing is missing
        assert run(tones, tiny_checkpoint, tmp_path, *options[:4], "logits", *options[4:]) == 0
        assert trained == [["logits"]] * 4


def test_other_labels_are_another_task(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = sorted(tones.rglob("*.wav"))
    table = tones / "table.csv"
    for labels in (["low", "high"] * 10, ["low", "high", "low", "low"] * 5):
        rows = [
            f"{path.relative_to(tones)},{label},{i % 4}" for i, (path, label) in enumerate(zip(recordings, labels, strict=True))
        ]
        table.write_text("path,labels,fold\n" + "\n".join(rows))
        assert run(table, tiny_checkpoint, tmp_path, "--layers", "mel") == 0
    table.unlink()
    assert trained == [["mel"]] * 2
    assert [line for line in capsys.readouterr().out.splitlines() if "chance" in line] == [
        "| chance | | 0.500 | 0.500 |", "| chance | | 0.750 | 0.750 |",
    ]  # fmt: skip


def test_signals_live_in_the_random_network(tones: Path, tiny_checkpoint: Path) -> None:
    network = checkpoints.load_model(tiny_checkpoint)
    task = open_task(tones)
    random, again = (ex_embeddings.random_network(network, [task]) for _ in range(2))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in random.state_dict().items())
    x = AugmentMelSTFT.from_config(network.mel).eval()(task.clips[0][0].waveform[None])[:, None]
    with torch.no_grad():
        for number, stage in enumerate(random.features):
            x = stage(x)
            assert 0.1 < x.std() < 10, number


def test_an_interruption_keeps_what_is_trained(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = probe_runs.train_probe

    def killed(request: probe_runs.ProbeRequest) -> dict:
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(request)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(probe_runs, "train_probe", killed)
        run(tones, tiny_checkpoint, tmp_path, "--layers", "mel", "block5", "block11")
    assert len(trained) == 2
    assert run(tones, tiny_checkpoint, tmp_path, "--layers", "mel", "block5", "block11") == 0
    assert len(trained) == 3


def test_without_a_choice_each_layer_is_probed_and_the_published_best(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def nothing_trained(requests: dict, *_: object) -> dict:
        asked.update(requests)
        result = {"score": 0.5, "folds": [0.5], "configuration": {"hidden_layers": 1, "lr": 1e-3, "initialisation": "any"}}
        return dict.fromkeys(requests, result)

    monkeypatch.setattr(ex_embeddings, "run_probes", nothing_trained)
    assert run(tones, tiny_checkpoint, tmp_path) == 0
    layers = [job.layers for job in asked]
    assert layers[0] == "mel" and layers[-2:] == ["logits", "block5+block11+block13+block15+mel"]
    assert len(layers) == 1 + 17 + 8 + 3 + 1


@pytest.mark.parametrize("options", [["--layers", "block99"], ["--data", "nowhere"]])
def test_mistakes_end_in_one_line(
    tones: Path, tiny_checkpoint: Path, tmp_path: Path, options: list[str], failing_message: Callable[..., str]
) -> None:
    words = ["--data", tones, "--model_name", tiny_checkpoint, "--output_dir", tmp_path]
    assert options[1] in failing_message(ex_embeddings.main, *words, *options)
    twice = failing_message(ex_embeddings.main, *words, "--data", tones, tones)
    assert "names" in twice


def test_event_tasks_are_probed_at_timestamps(tmp_path: Path, trained: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """Noise that begins somewhere in 3 s of silence is found within 200 ms, by the frames of a network with random weights."""
    task, rng = tmp_path / "noises-v1-full", np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        (task / "16000" / split).mkdir(parents=True)
        labels = {}
        for number in range(6):
            onset = rng.uniform(0.5, 2)
            sound = 0.001 * rng.standard_normal(48000)
            sound[round(onset * 16000) : round(onset * 16000) + 9600] += 0.3 * rng.standard_normal(9600)
            soundfile.write(task / "16000" / split / f"{number}.wav", sound, 16000)
            labels[f"{number}.wav"] = [{"label": "noise", "start": 1000 * onset, "end": 1000 * onset + 600}]
        (task / f"{split}.json").write_text(json.dumps(labels))
    (task / "labelvocabulary.csv").write_text("idx,label\n0,noise\n1,other\n")
    metadata = {"task_name": "noises", "embedding_type": "event", "prediction_type": "multilabel", "split_mode": "trainvaltest"}
    metadata |= {"sample_duration": 3.0, "evaluation": ["event_onset_200ms_fms"]}
    (task / "task_metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "frames.pt", get_model(num_classes=2, width_mult=0.1).eval())
    options = tmp_path / "frames.pt", tmp_path / "out", "--random_network"  # whose signals do not die out
    assert run(task, *options) == 0
    table = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert table[0][3].strip() == "noises (event_onset_200ms_fms)" and [row[2].strip() for row in table[2:-1]] == 2 * ["embedding"]
    assert float(table[3][3]) > 0.5 and trained == 2 * [["embedding"]]
    assert run(task, *options) == 0 and len(trained) == 2
    with pytest.raises(UserError, match="embedding"):
        run(task, tmp_path / "frames.pt", tmp_path / "out", "--layers", "block3")
