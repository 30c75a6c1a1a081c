"""The study at toy size: all exports are scored on the same clips and timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import audioset
from helpers.export.front_end import front_end_to_onnx
from helpers.export.graph import to_onnx
from helpers.export.runtime import ParallelGraph
from models import checkpoints
from models.MobileNetV3 import get_model
from studies import esc10, weights
from tests.finetuning import tone, write


@pytest.fixture
def audio_dir(tmp_path: Path) -> Path:
    for k, name in enumerate(esc10.CLASSES):
        for fold in (1, 2):
            write(tmp_path / f"{k + 1:03d} - {name}" / f"{fold}-{k}-A.wav", tone(k, 0.3, 10 * k + fold))
    return tmp_path


def test_a_row_for_each_export(
    audio_dir: Path, tiny_audioset: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model_name", tiny_checkpoint, "--audio_dir", audio_dir, "--dataset_dir", tiny_audioset, "--clip_seconds", 1]
    assert weights.main([*map(str, argv), "--rounds", "1", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    header, *rows = (line.split(",") for line in lines)
    assert [row[0] for row in rows] == ["float32", "float16", "int8", "int8 computation"]
    sizes, same = ([float(row[header.index(name)]) for row in rows] for name in ("size (MB)", "first tag as float32"))
    assert sizes[0] > sizes[1] > sizes[2] and same[0] == 1


def test_scores_are_those_of_the_exports(tiny_audioset: Path, tiny_checkpoint: Path) -> None:
    clips = audioset.evaluation_set(tiny_audioset, clip_seconds=1.0)
    network = checkpoints.load_model(tiny_checkpoint)
    graph = ParallelGraph(to_onnx(network, "one").SerializeToString(), threads=1)
    for parameter in network.classifier.parameters():
        parameter.data.zero_()
    blind = ParallelGraph(to_onnx(network, "blind").SerializeToString(), threads=1)
    scores = weights.compute({"one": graph, "blind": blind}, clips, "clips")
    np.testing.assert_array_equal(scores["one"][3], graph([clips[3].waveform.numpy()])[0][0])
    assert (scores["blind"] == 0.5).all()


def test_convolutions_alone_are_computed_in_8_bits(tiny_checkpoint: Path) -> None:
    network = checkpoints.load_model(tiny_checkpoint)
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    model = weights.computed_in_int8(network, [noise])
    quantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    inputs = {node.name: set(node.input[:2]) for node in model.graph.node if node.op_type == "Conv"}
    front_end = [node.name for node in front_end_to_onnx(network.mel).graph.node if node.op_type == "Conv"]
    expected = {name for name in inputs if name.startswith("Conv_")} - set(front_end)
    assert {name for name in inputs if inputs[name] <= quantized} == expected and len(expected) > 30
    assert any(name.startswith("Gate_") for name in inputs)


def test_other_classes_are_refused(tiny_audioset: Path, tmp_path: Path, failing_message: Callable[..., str]) -> None:
    checkpoints.save(tmp_path / "own.pt", get_model(num_classes=3, width_mult=0.1))
    argv = ["--model_name", tmp_path / "own.pt", "--audio_dir", tmp_path, "--dataset_dir", tiny_audioset]
    assert "labels" in failing_message(weights.main, *argv)
