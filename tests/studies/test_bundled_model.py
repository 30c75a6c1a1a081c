"""studies.bundled_model: two runs, one after the other, the same command again, and the files that it writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.labels import audioset_labels
from helpers.tagger import AudioTagger
from models import checkpoints
from models.config import Arch
from models.errors import UserError
from models.network import MobileNetV3
from models.waveform import WaveformModel
from studies import bundled_model


def test_both_runs_in_order_and_resumed(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unlabelled_segments_mp3.hdf").touch()
    commands = []
    monkeypatch.setattr(
        bundled_model.common, "run_python", lambda command, name, *_: commands.append((name, list(map(str, command))))
    )
    monkeypatch.setattr(bundled_model, "write_model", lambda *paths: written.append(paths))
    written = []
    options = ["--dataset_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out"), "--ranks", "2"]
    assert bundled_model.main(options) == 0
    (blocks, first), (student, second) = commands
    assert (blocks, student) == ("blocks", "student")
    assert "--blockwise_epochs" in first and "--blockwise_epochs" not in second and "torch.distributed.run" in first
    assert second[second.index("--pretrained_name") + 1] == str(tmp_path / "out" / "runs" / "blocks" / "last.pt")
    assert "--resume" not in first
    assert written == [(tmp_path / "out" / "runs" / "student" / "last.pt", tmp_path / "out")]
    (tmp_path / "out" / "runs" / "blocks").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "blocks" / "config.json").touch()
    bundled_model.main(options)
    resumed = commands[2][1]
    assert resumed[resumed.index("--resume") + 1] == str(tmp_path / "out" / "runs" / "blocks") and "--resume" not in commands[3][1]


def test_a_corpus_without_recordings_without_labels(tmp_path):
    with pytest.raises(UserError, match="unlabelled"):
        bundled_model.main(["--dataset_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])


def test_the_files_hold_the_trained_network_and_no_folder_of_the_machine(tmp_path):
    torch.manual_seed(0)
    network = MobileNetV3(Arch(width_mult=0.1), labels=audioset_labels(), clip_seconds=10.0)
    options = {"dataset_dir": str(tmp_path / "corpus"), "teacher": ["mn04_as"], "seed": 0}
    checkpoints.save(tmp_path / "best.pt", network, epoch=3, metrics={"mAP": 0.25}, args=options, training={"step": 1})
    bundled_model.write_model(tmp_path / "best.pt", tmp_path)
    checkpoint = checkpoints.load(tmp_path / "mn04_distilled.pt")
    assert checkpoint.args == options | {"dataset_dir": "corpus"}
    assert (checkpoint.epoch, checkpoint.metrics, checkpoint.labels) == (3, {"mAP": 0.25}, audioset_labels())
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in network.state_dict().items())
    assert "training" not in torch.load(tmp_path / "mn04_distilled.pt", weights_only=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 160000).astype(np.float32)
    with torch.no_grad():
        expected = torch.sigmoid(WaveformModel(network).eval()(torch.from_numpy(noise)[None])[0])[0]
    for backend, suffix in (("torch", "pt"), ("onnx", "onnx")):
        tagger = AudioTagger(tmp_path / f"mn04_distilled.{suffix}", "cpu", backend=backend)
        assert tagger.min_seconds == bundled_model.CLIP_SECONDS  # views are shorter than the 10 s that they are cut from
        np.testing.assert_allclose(tagger.scores(noise, 32000), expected, atol=1e-4)
    assert tagger.backend.metadata["weights"] == "float16"
